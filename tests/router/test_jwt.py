"""Signed tokens: only those of the issuer, for us, in time, by a known key and an accepted algorithm."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from policies.schema import Jwt
from router import jwt as tokens
from router.credentials import digest
from router.jwt import NoKeys, Refused, Unavailable, Verifier, key_set

ISSUER, AUDIENCE = "https://login.example.com/", "pointsman"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
CANARY = "canary-4711"


def jwk(key, kid, **more):
    kind = type(key).__name__
    algorithm = "RS256" if "RSA" in kind else "EdDSA" if "Ed25519" in kind else "ES256"
    return jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True) | {"kid": kid, **more}


def keys(*entries):
    return json.dumps({"keys": list(entries)}).encode()


JWKS = keys(jwk(RSA, "r1"), jwk(EC, "e1"), jwk(ED, "d1"))


def settings(**more):
    return Jwt(**{"issuer": ISSUER, "audience": AUDIENCE, "jwks": {"file": "jwks.json"}, **more})


def token(key=EC, kid="e1", alg="ES256", headers=None, drop=(), **claims):
    now = int(time.time())
    payload = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 600, "tenant": "acme", **claims}
    payload = {name: value for name, value in payload.items() if name not in drop and value is not None}
    return jwt.encode(payload, key, algorithm=alg, headers={"kid": kid, **(headers or {})}).encode()


def verified(given, verifier=None):
    verifier = verifier or Verifier(settings(), JWKS)
    return asyncio.run(verifier.tenant(given, digest(given)))


@pytest.mark.parametrize(("key", "kid", "alg"), [(RSA, "r1", "RS256"), (EC, "e1", "ES256"), (ED, "d1", "EdDSA")])
def test_a_good_token_names_the_tenant(key, kid, alg):
    assert verified(token(key, kid, alg)) == "acme"
    assert verified(token(key, kid, alg, aud=["other", AUDIENCE])) == "acme"


def part(data):
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=")


def forged(header, payload, sign=lambda message: b""):
    message = part(header) + b"." + part(payload)
    return message + b"." + base64.urlsafe_b64encode(sign(message)).rstrip(b"=")


NOW = int(time.time())
GOOD = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 600, "tenant": "acme"}
PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def by_hmac(secret):
    return lambda message: hmac.new(secret, message, hashlib.sha256).digest()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (token(iss="https://evil.example.com/"), "is of another issuer"),
        (token(aud="somebody-else"), "is for another audience"),
        (token(exp=NOW - 60), "has expired"),
        (token(nbf=NOW + 600), "is not valid yet"),
        (token(drop=["exp"]), "lacks one of"),
        (token(drop=["aud"]), "lacks one of"),
        (token(drop=["iss"]), "lacks one of"),
        (token(drop=["tenant"]), "has no claim tenant"),
        (token(tenant=["acme"]), "has no claim tenant"),
        (token(exp="soon"), "is not valid"),
        (token(kid="e2"), "names a key that the issuer does not have"),
        (forged({"alg": "ES256"}, GOOD), "names no key"),
        (token(OTHER, "e1"), "has a wrong signature"),
        (token(OTHER, "e1", headers={"jwk": jwk(OTHER, "e1")}), "has a wrong signature"),
        (token(RSA, "r1", "RS512"), "is signed by an algorithm that is not accepted"),
        (token(RSA, "e1", "RS256"), "names a key that the issuer does not have"),
        (token(headers={"crit": ["x"], "x": 1}), ""),
        (token()[:-8], ""),
        (forged({"alg": "none", "kid": "e1"}, GOOD), "is signed by an algorithm that is not accepted"),
        (forged({"alg": "None", "kid": "e1"}, GOOD), "is signed by an algorithm that is not accepted"),
        (forged({"alg": "HS256", "kid": "r1"}, GOOD, by_hmac(PEM)), "is signed by an algorithm that is not accepted"),
        (forged({"alg": "ES256", "kid": "e1"}, GOOD, by_hmac(PEM)), ""),
        (forged({"alg": ["ES256"], "kid": "e1"}, GOOD), ""),
        (forged({"alg": "ES256", "kid": "e1"}, GOOD), ""),
        (b"a.b.c", "is not a signed token"),
        (b"..", "is not a signed token"),
        (b"\xff\xfe.\x00.", "is not a signed token"),
    ],
)
def test_any_other_is_refused(given, says):
    with pytest.raises(Refused) as refused:
        verified(given)
    assert says in str(refused.value)
    assert "acme" not in str(refused.value)


def test_a_small_difference_of_clocks_is_forgiven():
    assert verified(token(exp=int(time.time()) - tokens.LEEWAY_S + 10)) == "acme"


def test_another_claim_may_name_the_tenant():
    assert verified(token(client_id="lab"), Verifier(settings(tenant_claim="client_id"), JWKS)) == "lab"


def test_symmetric_algorithms_cannot_even_be_configured():
    for algorithm in ("HS256", "none"):
        with pytest.raises(ValueError, match="algorithms"):
            settings(algorithms=[algorithm])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is no JSON Web Key Set"),
        (keys(), "has no public key"),
        (keys({"kty": "oct", "kid": "k", "k": CANARY}), "holds a private or shared key"),
        (keys(jwk(EC, "e1") | {"d": CANARY}), "holds a private or shared key"),
        (keys(jwk(EC, "e1"), jwk(OTHER, "e1")), "two keys with one 'kid'"),
        (keys(jwk(EC, "e1") | {"x": CANARY}), "not well-formed"),
        (keys(jwk(EC, "e1", use="enc")), "has no public key"),
        (keys(jwk(EC, "e1", alg="ES512")), "has no public key"),
        (keys({k: v for k, v in jwk(EC, "e1").items() if k != "kid"}), "has no public key"),
    ],
)
def test_key_sets_that_cannot_be_used(text, says):
    with pytest.raises(NoKeys) as refused:
        key_set(text, ["RS256", "ES256"])
    assert says in str(refused.value)
    assert CANARY not in str(refused.value)


# --- the cache --------------------------------------------------------------------------------------------------


def test_a_verified_token_is_not_verified_again_until_it_expires(monkeypatch):
    verifier, given = Verifier(settings(), JWKS), token(exp=int(time.time()) + 600)
    assert verified(given, verifier) == "acme"
    monkeypatch.setattr(jwt, "decode", lambda *_, **__: pytest.fail("verified again"))
    assert verified(given, verifier) == "acme"
    later = time.time() + 601
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises((Refused, pytest.fail.Exception)):
        verified(given, verifier)


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(tokens, "MAX_CACHED", 3)
    verifier = Verifier(settings(), JWKS)
    for number in range(6):
        verified(token(jti=str(number)), verifier)
    assert len(verifier._known) == 3


# --- keys from a URL --------------------------------------------------------------------------------------------

URL = {"jwks": {"url": "https://login.example.com/keys"}}


class Issuer:
    def __init__(self, text):
        self.text, self.asked, self.down = text, 0, False

    def __call__(self, url):
        self.asked += 1
        if self.down:
            raise OSError(CANARY)
        return self.text


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(tokens.time, "monotonic", lambda: Clock.now)
    return Clock


def test_keys_are_fetched_when_first_needed_and_once(clock):
    issuer = Issuer(JWKS)
    verifier = Verifier(settings(**URL), b"", issuer)
    assert issuer.asked == 0

    async def many():
        given = [token(jti=str(i)) for i in range(20)]
        return await asyncio.gather(*(verifier.tenant(one, digest(one)) for one in given))

    assert set(asyncio.run(many())) == {"acme"}
    assert issuer.asked == 1


def test_a_new_key_is_found_by_its_kid_and_unknown_ones_do_not_hammer_the_issuer(clock):
    issuer = Issuer(keys(jwk(EC, "e1")))
    verifier = Verifier(settings(**URL), b"", issuer)
    old = token()
    verified(old, verifier)
    issuer.text = keys(jwk(OTHER, "e2"))
    clock.now += tokens.RETRY_S
    assert verified(token(OTHER, "e2"), verifier) == "acme"
    assert issuer.asked == 2
    for _ in range(20):
        with pytest.raises(Refused):
            verified(token(kid="nope"), verifier)
    assert issuer.asked == 2
    with pytest.raises(Refused):
        verified(old, verifier)  # its key has gone, and what was remembered of it with the key


def test_without_keys_nobody_gets_in(clock, caplog):
    issuer = Issuer(JWKS)
    issuer.down = True
    verifier = Verifier(settings(**URL), b"", issuer)
    given = token()
    with pytest.raises(Unavailable):
        verified(given, verifier)
    assert CANARY not in caplog.text
    assert "cannot be had: OSError" in caplog.text
    issuer.down = False
    with pytest.raises(Unavailable):
        verified(given, verifier)  # not asked again so soon
    clock.now += tokens.RETRY_S
    assert verified(given, verifier) == "acme"
    issuer.down = True
    clock.now += tokens.STALE_S - 1
    assert verified(given, verifier) == "acme", "the keys that we have hold for a while"
    clock.now += tokens.RETRY_S
    with pytest.raises(Unavailable):
        verified(given, verifier)


# --- on the wire ------------------------------------------------------------------------------------------------

CONFIG = """
kind: Fleet
backends:
  - {name: edge, tier: edge, region: jp, clearance: restricted, protocol: fake, models: {chat: {task: chat}}}
---
kind: Tenants
tenants:
  - {name: acme, label_floor: confidential}
  - {name: lab, keys: [{env: LAB}]}
"""
WITH = "jwt: {{issuer: '{issuer}', audience: pointsman, jwks: {jwks}}}\n"


def test_tokens_and_keys_side_by_side(start_router, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "jwks.json").write_bytes(JWKS)
    config = CONFIG + WITH.format(issuer=ISSUER, jwks="{file: jwks.json}")
    router = start_router(config, env={"LAB": "pm-key-of-the-lab-0001"}, files=folder)

    def ask(credential):
        return router.chat(headers={"authorization": f"Bearer {credential}"})

    reply = ask(token().decode())
    assert (reply.status, reply.headers["x-pointsman-label"]) == (200, "confidential")
    assert ask("pm-key-of-the-lab-0001").headers["x-pointsman-label"] == "internal"
    assert ask(token(tenant="lab").decode()).headers["x-pointsman-label"] == "internal"
    for bad in (token(tenant="stranger"), token(tenant="anonymous"), token(iss="x"), b"a.b.c"):
        reply = ask(bad.decode())
        assert (reply.status, reply.json()["error"]["code"]) == (401, "unauthorized")
        assert bad.decode() not in reply.body.decode()
    assert router.count("pointsman_unauthorized_total", reason="token") == 2


def test_a_bad_file_of_keys_does_not_start(start_router, tmp_path):
    from policies.errors import ConfigurationError

    config = CONFIG + WITH.format(issuer=ISSUER, jwks="{file: jwks.json}")
    with pytest.raises(ConfigurationError, match=r"the file jwks\.json cannot be read"):
        start_router(config, env={"LAB": "pm-key-of-the-lab-0001"})
    (tmp_path / "jwks.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"the file jwks\.json is not JSON"):
        start_router(config, env={"LAB": "pm-key-of-the-lab-0001"})


def test_keys_from_a_real_url_and_503_without_it(start_router):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("location", "/keys")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(JWKS)

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    env = {"LAB": "pm-key-of-the-lab-0001"}
    bearer = {"authorization": f"Bearer {token().decode()}"}
    try:
        router = start_router(CONFIG + WITH.format(issuer=ISSUER, jwks=f"{{url: '{base}/keys'}}"), env=env)
        assert router.chat(headers=bearer).status == 200
        router = start_router(CONFIG + WITH.format(issuer=ISSUER, jwks=f"{{url: '{base}/moved'}}"), env=env)
        assert router.chat(headers=bearer).status == 503
    finally:
        server.shutdown()
    router = start_router(CONFIG + WITH.format(issuer=ISSUER, jwks="{url: 'http://127.0.0.1:9/keys'}"), env=env)
    reply = router.chat(headers=bearer)
    assert (reply.status, reply.json()["error"]["code"]) == (503, "identity_unavailable")
    assert reply.headers["retry-after"]
    assert router.chat(headers={"authorization": "Bearer pm-key-of-the-lab-0001"}).status == 200, "keys go on"
