"""The admin port: health, readiness, decisions, explanations."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import THREE_TIERS
from processes import soon

from router.recent import Recent

POLICY = """
---
kind: Policy
sensitivity: {detectors: [{use: keywords, words: [社外秘], label: confidential}]}
"""


@pytest.fixture
def router(start_router):
    return start_router(THREE_TIERS + POLICY)


def get(router, path):
    return router.call("GET", path, admin=True)


def test_health_readiness_and_policy(router):
    assert get(router, "/healthz").json() == {"status": "alive"}
    assert get(router, "/readyz").json() == {
        "ready": True, "reachable": ["edge", "onprem", "cloud"], "unreachable": []
    }  # fmt: skip
    policy = get(router, "/policy").json()
    assert policy["digest"] == router.service.policy.digest
    assert policy["rules"] == ["default"]


def test_a_decision_can_be_read_back_without_its_payload(router):
    reply = router.chat("これは社外秘 my-prompt-4711")
    decision_id = reply.headers["x-pointsman-decision"]
    found = get(router, f"/decisions/{decision_id}").json()
    assert found["label"] == "confidential"
    assert found["raised_by"][-1]["label"] == "confidential"
    assert found["backend"] == reply.backend
    assert found["outcome"]["outcome"] == "ok" and found["outcome"]["backend"] == reply.backend
    assert abs(found["at"] - time.time()) < 60
    assert get(router, "/decisions").json()["decisions"][0]["id"] == decision_id
    for path in ("/decisions", f"/decisions/{decision_id}"):
        body = get(router, path).body.decode()
        assert "4711" not in body
        assert "社外秘" not in body


def test_only_the_latest_decisions_are_kept(router):
    router.service.recent = Recent(router.service._going, 3)
    kept = [router.chat().headers["x-pointsman-decision"] for _ in range(5)][-3:]
    assert [one["id"] for one in get(router, "/decisions").json()["decisions"]] == kept[::-1]


def test_a_decision_whose_request_is_in_progress_is_there_too(start_router):
    router = start_router(
        THREE_TIERS.replace("protocol: fake", "protocol: fake\n    script: [{latency_ms: 700}]") + POLICY
    )
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(router.chat)
        assert soon(lambda: get(router, "/decisions").json()["decisions"], 5)
        (shown,) = get(router, "/decisions").json()["decisions"]
        assert not waiting.done()
        assert shown["outcome"] is None
        assert get(router, f"/decisions/{shown['id']}").json() == shown
    assert shown["id"] == waiting.result().headers["x-pointsman-decision"]
    assert [one["id"] for one in get(router, "/decisions").json()["decisions"]] == [shown["id"]], "and once only"


def test_explain_is_the_live_decision_and_sends_nothing(router):
    facts = router.call("POST", "/explain", {"model": "chat", "label": "confidential"}, admin=True).json()
    http = {"path": "/v1/chat/completions", "headers": {"X-Data-Sensitivity": "confidential"},
            "body": {"model": "chat", "messages": [{"role": "user", "content": "x"}]}}  # fmt: skip
    sent = router.call("POST", "/explain", http, admin=True).json()
    assert facts["backend"] == sent["backend"] == "edge"
    assert {entry["backend"] for entry in facts["rejected"]} == {"cloud"}
    assert sum(len(router.backend(name).calls) for name in ("edge", "onprem", "cloud")) == 0
    assert get(router, "/decisions").json() == {"decisions": []}


def test_explain_agrees_with_what_is_then_done(router):
    for label in ("public", "internal", "confidential", "restricted"):
        told = router.call("POST", "/explain", {"model": "chat", "label": label}, admin=True).json()
        if label == "public":
            continue  # the policy's default is internal: a header cannot loosen it
        assert router.chat(headers={"x-data-sensitivity": label}).backend == told["backend"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "send facts such as"),
        ({"labl": "x"}, "labl"),
        ({"model": "chat", "label": "secret"}, "unknown sensitivity level"),
        ({"model": "chat", "tokens_in": -1}, "tokens_in"),
        ({"model": "chat", "deadline_ms": "soon"}, "deadline_ms"),
        ({"path": "/nowhere", "body": {}}, "no inference path"),
        ({"path": "/v1/chat/completions", "body": {"model": "chat", "messages": 4711}}, "messages"),
    ],
)
def test_explain_of_something_wrong(router, body, says):
    reply = router.call("POST", "/explain", body, admin=True)
    assert reply.status in (400, 404)
    assert says in reply.json()["error"]["message"]
    assert "4711" not in reply.body.decode()


@pytest.mark.parametrize("request_line", ["GET /nope", "POST /metrics", "GET /explain", "GET /decisions/x"])
def test_what_is_not_there(router, request_line):
    reply = router.call(*request_line.split(), admin=True)
    assert reply.status in (404, 405)
    assert reply.json()["error"]["code"] in ("not_found", "method_not_allowed")


def test_an_error_inside_is_a_500_in_json(router, monkeypatch, caplog):
    def broken():
        raise RuntimeError

    monkeypatch.setattr(router.service, "readiness", broken)
    reply = get(router, "/readyz")
    assert (reply.status, reply.json()["error"]["code"]) == (500, "internal_error")
    assert "RuntimeError" in caplog.text


def test_the_admin_api_is_not_on_the_data_port(router):
    for path in ("/metrics", "/decisions", "/policy", "/explain"):
        assert router.call("GET", path).status == 404


def test_head_is_answered_like_get_without_the_body(router):
    for path in ("/metrics", "/healthz", "/readyz"):
        reply = router.call("HEAD", path, admin=True)
        assert (reply.status, reply.body) == (200, b"")
        assert int(reply.headers["content-length"]) > 0
