"""What somebody tries who means it badly: each was once possible."""

from __future__ import annotations

import http.client
import json
import time

import pytest
from conftest import Router
from upstream import Answers, upstream

from backends.registry import BUILDERS
from policies.errors import ConfigurationError
from router.loading import ConfigurationLoader
from router.settings import Settings

FLEET = """apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: home, tier: onprem, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}},
     script: [{latency_ms: SLOW}]}
"""


@pytest.fixture
def start(tmp_path):
    routers = []

    def start(text, **settings):
        file = tmp_path / "config.yaml"
        file.write_text(text)
        loader = ConfigurationLoader((file,), {})
        routers.append(Router(loader(), Settings(**settings), BUILDERS, loader).start())
        return routers[-1], file

    yield start
    for router in routers:
        router.stop()


def fleet(slow=0):
    return FLEET.replace("SLOW", str(slow))


def test_deadlines_of_one_caller_do_not_eject_a_backend_for_the_others(start):
    router, _ = start(fleet(200))
    for _ in range(4):
        assert router.chat(headers={"x-slo-latency-ms": "50"}).status == 504
    assert router.service.state.backends[0].health.failures == 0
    assert router.chat().status == 200


def test_a_reload_that_cannot_build_a_backend_is_refused_and_the_next_one_works(start, tmp_path):
    router, file = start(fleet())
    (tmp_path / "ca.pem").write_text("no certificate")
    more = "  - {name: cloud, tier: cloud, region: us, protocol: openai, url: 'https://127.0.0.1:1',\n"
    file.write_text(fleet() + more + "     tls: {ca_file: ca.pem}, models: {m: {task: chat}}}\n")
    reply = router.call("POST", "/reload", admin=True)
    assert (reply.status, reply.json()["outcome"]) == (409, "refused")
    assert router.count("pointsman_reloads_total", outcome="refused") == 1
    file.write_text(fleet(1))
    assert router.call("POST", "/reload", admin=True).json()["outcome"] == "swapped"


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "cookie", "x-declassify-reason"])
def test_no_policy_may_ask_for_headers_that_hold_credentials(start, header):
    with pytest.raises(ConfigurationError, match="holds credentials or free text"):
        start(fleet() + f"---\napiVersion: pointsman/v1\nkind: Policy\nheaders: [{header}]\n")


def test_names_of_models_do_not_fill_the_memory(start):
    router, _ = start(fleet())
    assert router.chat(model="m" * 257).status == 400
    for i in range(50):
        assert router.chat(model=f"invented-{i}").status == 404
    assert len(router.service.policy.plans) == 0


def test_a_slow_body_is_decided_by_what_is_live_when_it_has_come(start):
    router, file = start(fleet())
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}]}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=20)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(len(body)))
    connection.endheaders(body[:-1])
    time.sleep(0.1)
    policy = "---\napiVersion: pointsman/v1\nkind: Policy\nsensitivity: {default: restricted}\n"
    file.write_text(fleet() + policy)
    assert router.call("POST", "/reload", admin=True).json()["outcome"] == "swapped"
    connection.send(body[-1:])
    reply = connection.getresponse()
    assert (reply.status, reply.getheader("x-pointsman-label")) == (200, "restricted")
    connection.close()


def test_a_body_that_never_comes_is_not_waited_for(start):
    router, _ = start(fleet(), body_s=0.2)
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=20)
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", "10")
    connection.endheaders(b"{")
    reply = connection.getresponse()
    assert (reply.status, json.loads(reply.read())["error"]["code"]) == (408, "request_timeout")
    connection.close()


@pytest.mark.parametrize("tokens", [-100_000, 2**70])
@pytest.mark.parametrize("stream", [False, True])
def test_usage_that_cannot_be_is_not_believed(start, tokens, stream):
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens}
    with upstream() as server:
        if stream:
            event = {"choices": [{"index": 0, "delta": {"content": "hi"}}], "usage": usage}
            raw = f"data: {json.dumps(event)}\n\n".encode()
            server.answers = Answers(headers={"content-type": "text/event-stream"}, chunks=[raw, b"data: [DONE]\n\n"])
        else:
            server.answers = Answers(body={"choices": [{"message": {"content": "hi"}}], "usage": usage})
        text = fleet().replace("protocol: fake", f"protocol: openai, url: '{server.url}'").replace(
            ",\n     script: [{latency_ms: 0}]", "")  # fmt: skip
        limit = "---\napiVersion: pointsman/v1\nkind: Policy\nbudgets: [{name: b, tokens: 100000, per: day}]\n"
        router, _ = start(text + limit)
        assert router.chat(stream=stream).status == 200
    assert all(book.used > 0 for book in router.service.leases.books.values())
    assert router.count("pointsman_requests_total", outcome="ok") == 1


@pytest.mark.parametrize(
    "fields",
    [{"max_tokens": 10**400}, {"max_tokens": 0}, {"n": 2**31}, {"Model": "other"}, {"max_completion_tokens": True}],
)
def test_numbers_and_keys_that_cannot_be_are_the_callers_fault(start, fields):
    router, _ = start(fleet())
    assert router.chat(**fields).status == 400


def test_the_larger_limit_of_all_answers_is_what_is_expected(start):
    router, _ = start(fleet())
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 1,
            "max_tokens": 1000, "n": 8}  # fmt: skip
    router.call("POST", "/v1/chat/completions", body)
    assert router.service.recent.latest()[-1].decided.request.tokens_out == 8000


def test_an_encoding_that_is_not_read_is_refused(start):
    router, _ = start(fleet())
    assert router.chat(headers={"content-encoding": "gzip"}).status == 415
    assert router.chat(headers={"content-encoding": "identity"}).status == 200


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completion", "/chat/completions", "/v2/x"])
def test_a_path_that_is_not_there_says_so_to_every_method(start, path):
    router, _ = start(fleet())
    assert router.call("POST", path, {}).status == 404


def test_callers_are_not_told_where_backends_stand(start):
    text = fleet().replace("protocol: fake", "protocol: openai, url: 'http://127.0.0.1:9'").replace(
        ",\n     script: [{latency_ms: 0}]", "")  # fmt: skip
    router, _ = start(text, probe_interval_s=1000)
    reply = router.chat()
    assert reply.status in (502, 503)
    assert b"127.0.0.1" not in reply.body
