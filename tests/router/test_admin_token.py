"""The admin API's own token: what it opens, what stays open, and that it is nowhere to be seen."""

from __future__ import annotations

import pytest
from conftest import THREE_TIERS

from router.credentials import digest
from router.settings import Settings, is_loopback

TOKEN, NEXT = "admin-canary-0001-abcdef", "admin-canary-0002-abcdef"
TOKENS = (digest(TOKEN.encode()), digest(NEXT.encode()))


@pytest.fixture
def router(start_router):
    return start_router(THREE_TIERS, admin_tokens=TOKENS)


def ask(router, path, token=None, method="GET", body=b""):
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return router.call(method, path, body, headers, admin=True)


@pytest.mark.parametrize("path", ["/decisions", "/decisions/x", "/policy", "/nope", "/", "/metrics/x"])
def test_paths_that_need_the_token(router, path):
    for token in (None, "", "wrong", TOKEN + "x", TOKEN[:-1]):
        reply = ask(router, path, token)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert "canary" not in reply.body.decode()
    for token in (TOKEN, NEXT):
        assert ask(router, path, token).status in (200, 404)


def test_what_changes_or_explains_needs_it_too(router):
    for path, body in (("/reload", b""), ("/explain", {"model": "chat"})):
        assert ask(router, path, None, "POST", body).status == 401
    assert ask(router, "/explain", TOKEN, "POST", {"model": "chat"}).json()["backend"]
    assert ask(router, "/reload", TOKEN, "POST").json()["outcome"] == "refused"


def test_health_stays_open_and_metrics_on_loopback(router):
    for path in ("/healthz", "/readyz", "/metrics"):
        assert ask(router, path).status == 200


def test_metrics_need_the_token_beyond_loopback(start_router):
    router = start_router(THREE_TIERS, admin_tokens=TOKENS, admin_host="0.0.0.0")
    assert ask(router, "/metrics").status == 401
    assert ask(router, "/metrics", TOKEN).status == 200
    assert ask(router, "/healthz").status == 200


def test_a_tenants_key_opens_nothing_here(start_router):
    key = "pm-canary-tenant-key-0001"
    tenants = "\n---\nkind: Tenants\ntenants: [{name: acme, keys: [{sha256: " + digest(key.encode()).hex() + "}]}]\n"
    router = start_router(THREE_TIERS + tenants, admin_tokens=TOKENS)
    assert ask(router, "/decisions", key).status == 401
    assert router.chat(headers={"authorization": f"Bearer {TOKEN}"}).status == 401


def test_the_token_is_nowhere_to_be_seen(caplog):
    settings = Settings(admin_tokens=TOKENS)
    assert "canary" not in repr(settings)
    assert TOKENS[0].hex() not in repr(settings)
    assert repr(TOKENS[0]) not in repr(settings)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.com", False),
    ],
)
def test_what_is_loopback(host, here):
    assert is_loopback(host) is here
