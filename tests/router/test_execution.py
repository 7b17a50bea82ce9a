"""From a decision to an answer: fallback, deadlines, overload, streams that break, clients that leave."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from upstream import Answers, upstream

from backends.calls import Call
from router.guard import EgressBlocked

TWO = """
kind: Fleet
backends:
  - {{name: first, tier: edge, region: jp, clearance: restricted, protocol: fake, latency: {{prior_ms: 10}},
     script: {first}, models: {{chat: {{task: chat}}}}, limits: {limits}}}
  - {{name: second, tier: cloud, region: us, clearance: internal, protocol: fake, latency: {{prior_ms: 100}},
     script: {second}, models: {{chat: {{task: chat}}}}}}
---
kind: Policy
rules:
  - {{name: fast, objective: {{latency: {{weight: 1}}}}, fallback: {fallback}}}
"""


def two(first="[{}]", second="[{text: from the second}]", fallback="{}", limits="{}"):
    return TWO.format(first=first, second=second, fallback=fallback, limits=limits)


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def at_rest(router):
    """Nothing in flight: no lease was lost on the way."""
    return all(state.in_flight == 0 for state in router.service.state.backends)


@pytest.mark.parametrize("failure", ["connect", "timeout", "rubbish", "overloaded", "status_500"])
def test_a_failed_attempt_falls_back_to_the_next_ranked_backend(start_router, failure):
    router = start_router(two(first=f"[{{fail: {failure}}}]"))
    reply = router.chat()
    assert (reply.status, reply.backend, reply.headers["x-pointsman-attempts"]) == (200, "second", "2")
    assert router.count("pointsman_attempts_total", backend="first") == 1
    assert router.count("pointsman_attempts_total", backend="first", outcome="ok") == 0
    assert router.count("pointsman_requests_total", backend="second", rule="fast", outcome="ok") == 1
    assert at_rest(router)


def test_a_fallback_never_goes_above_clearance(start_router):
    router = start_router(two(first="[{fail: status_500}]"))
    reply = router.chat(headers={"x-data-sensitivity": "confidential"})
    assert reply.status == 502
    assert reply.json()["error"]["code"] == "upstream_error"
    assert len(router.backend("second").calls) == 0


def test_a_request_that_a_backend_calls_wrong_is_not_tried_elsewhere(start_router):
    router = start_router(two(first="[{fail: status_400}]"))
    assert router.chat().status == 400
    assert len(router.backend("second").calls) == 0


@pytest.mark.parametrize(
    ("headers", "fallback"), [({"x-no-fallback": "true"}, "{}"), ({}, "{scope: none}"), ({}, "{attempts: 1}"),
                              ({}, "{scope: same_tier}"), ({}, "{scope: same_region}")]
)  # fmt: skip
def test_without_fallback_the_first_failure_is_the_answer(start_router, headers, fallback):
    router = start_router(two(first="[{fail: connect}]", fallback=fallback))
    reply = router.chat(headers=headers)
    assert reply.status == 502
    assert "first: connection refused" in reply.json()["error"]["message"]
    assert len(router.backend("second").calls) == 0


def test_when_all_fail_the_answer_says_why_for_each(start_router):
    router = start_router(two(first="[{fail: connect}]", second="[{fail: rubbish}]"))
    reply = router.chat()
    message = reply.json()["error"]["message"]
    assert reply.status == 502
    assert "first: connection refused" in message
    assert "second: rubbish" in message
    assert router.count("pointsman_requests_total", outcome="upstream_error", backend="") == 1
    assert at_rest(router)


def test_when_all_are_overloaded_the_answer_is_429_with_the_time_to_wait(start_router):
    router = start_router(two(first="[{fail: overloaded}]", second="[{fail: overloaded}]"))
    reply = router.chat()
    assert (reply.status, reply.json()["error"]["code"]) == (429, "overloaded")
    assert reply.headers["retry-after"] == "7"


def test_who_says_when_to_come_back_is_not_asked_before(start_router):
    router = start_router(two(first="[{fail: overloaded}]", second="[{latency_ms: 60}]"))
    assert router.chat().headers["x-pointsman-attempts"] == "2"
    reply = router.chat()
    assert (reply.backend, reply.headers["x-pointsman-attempts"]) == ("second", "1")
    assert router.count("pointsman_rejections_total", backend="first", filter="limits") == 1
    refused = router.chat(headers={"x-data-sensitivity": "confidential"})
    assert (refused.status, refused.json()["error"]["code"]) == (429, "overloaded")
    assert "asked not to be asked" in refused.json()["error"]["message"]
    assert 6 <= int(refused.headers["retry-after"]) <= 7


def test_a_full_router_refuses_instead_of_queueing_for_ever(start_router):
    text = """
    kind: Fleet
    backends:
      - {name: only, tier: edge, region: jp, clearance: restricted, protocol: fake, script: [{latency_ms: 400}],
         models: {chat: {task: chat}}, limits: {max_in_flight: 1, max_queued: 1}}
    """
    router = start_router(text)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: router.chat(), range(4)))
    assert sorted(reply.status for reply in replies) == [200, 200, 429, 429]
    refused = next(reply for reply in replies if reply.status == 429)
    assert refused.json()["error"]["code"] == "overloaded"
    assert "retry-after" in refused.headers
    assert at_rest(router)


def test_the_deadline_covers_all_attempts_together(start_router):
    router = start_router(two(first="[{latency_ms: 2000}]", second="[{latency_ms: 2000}]"))
    begin = time.monotonic()
    reply = router.chat(headers={"x-slo-latency-ms": "300"})
    assert (reply.status, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - begin < 1.5
    assert router.count("pointsman_attempts_total", backend="first", outcome="timeout") == 1
    wait_until(lambda: at_rest(router))
    assert router.backend("first").cancelled == 1, "the abandoned call is cancelled, not left running"


def test_time_lost_at_one_backend_leaves_less_for_the_next(start_router):
    router = start_router(two(first="[{latency_ms: 150, fail: status_500}]", second="[{latency_ms: 2000}]"))
    reply = router.chat(headers={"x-slo-latency-ms": "300"})
    assert reply.status == 504
    message = reply.json()["error"]["message"]
    assert "first: answered 500" in message
    assert "second: no answer before the deadline" in message


def test_a_fallback_has_time_left_also_where_it_takes_longer_than_expected(start_router):
    quick = two(first="[{latency_ms: 2000}]", second="[{latency_ms: 70}]").replace("prior_ms: 100", "prior_ms: 12")
    router = start_router(quick)
    reply = router.chat(headers={"x-slo-latency-ms": "500"})
    assert (reply.status, reply.backend, reply.headers["x-pointsman-attempts"]) == (200, "second", "2")


def test_three_failures_in_a_row_keep_a_backend_out_of_decisions(start_router, caplog):
    router = start_router(two(first="[{fail: status_500}]", second="[{latency_ms: 50}]"))
    for _ in range(3):
        assert router.chat().headers["x-pointsman-attempts"] == "2"
    reply = router.chat()
    assert (reply.backend, reply.headers["x-pointsman-attempts"]) == ("second", "1")
    assert router.count("pointsman_rejections_total", backend="first", filter="health") == 1
    assert caplog.text.count("backend first failed too often, and is kept out for 5 s") == 1


def test_who_is_told_that_nobody_is_there_is_told_when_somebody_may_be(start_router):
    router = start_router(two(first="[{fail: status_500}]"))
    secret = {"x-data-sensitivity": "confidential"}
    for _ in range(4):
        reply = router.chat(headers=secret)
    assert (reply.status, reply.json()["error"]["code"]) == (503, "backends_unavailable")
    assert 4 <= int(reply.headers["retry-after"]) <= 5


def test_a_caller_with_little_time_cannot_have_a_backend_kept_out(start_router):
    slow = "[{latency_ms: 100}]"
    router = start_router(two(first=slow, second=slow))
    for _ in range(6):
        router.chat(headers={"x-slo-latency-ms": "90"})
    assert router.chat().status == 200
    assert router.count("pointsman_rejections_total", filter="health") == 0


def test_not_more_than_a_share_of_a_models_backends_is_kept_out(start_router):
    """With all of them out there would be nobody to ask: the last ones are asked although they fail."""
    router = start_router(two(first="[{fail: status_500}]", second="[{fail: status_500}]"))
    for _ in range(12):
        assert router.chat().status == 502
    assert router.count("pointsman_rejections_total", backend="first", filter="health") > 0
    assert router.count("pointsman_rejections_total", backend="second", filter="health") == 0


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_that_fails_before_its_first_event_falls_back(start_router):
    router = start_router(two(first="[{fail: rubbish}]", second="[{text: a b c, chunks: 3}]"))
    reply = router.chat(stream=True)
    assert (reply.status, reply.backend) == (200, "second")
    assert reply.body.endswith(b"data: [DONE]\n\n")


def test_a_stream_that_breaks_on_the_way_ends_with_an_error_event_and_no_done(start_router, caplog):
    router = start_router(two(first="[{text: one two three four, chunks: 4, break_after_chunks: 2}]"))
    reply = router.chat(stream=True)
    events = [event for event in reply.body.split(b"\n\n") if event]
    assert reply.status == 200
    assert len(events) == 3
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "upstream_error"
    assert b"[DONE]" not in reply.body
    assert len(router.backend("second").calls) == 0, "the first byte had left: no other backend may go on"
    assert router.count("pointsman_requests_total", backend="first", outcome="stream_broken") == 1
    assert router.count("pointsman_streams_broken_total", backend="first", tier="edge") == 1
    assert router.service.state.backends[0].health.failures == 1
    assert f"the stream of request {reply.headers['x-request-id']} broke: first: " in caplog.text
    assert at_rest(router)


def open_stream(router, headers=""):
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream": True})
    sock = socket.create_connection(("127.0.0.1", router.port), timeout=5)
    sock.sendall(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}"
        f"content-length: {len(body)}\r\n\r\n{body}".encode()
    )
    return sock


def test_a_client_that_leaves_mid_stream_stops_the_backend_and_frees_its_place(start_router):
    router = start_router(two(first="[{text: 'a b c d e f', chunks: 6, chunk_delay_ms: 200}]"))
    with open_stream(router) as sock:
        assert b"data: " in sock.recv(65536) + sock.recv(65536)
        assert router.service.state.backends[0].in_flight == 1
    wait_until(lambda: at_rest(router))
    assert router.backend("first").cancelled == 1
    assert router.count("pointsman_requests_total", backend="first", outcome="cancelled") == 1
    assert router.service.state.backends[0].health.failures == 0, "leaving is not the backend's fault"
    assert router.chat().status == 200


def test_a_client_that_leaves_before_the_answer_cancels_the_call(start_router):
    router = start_router(two(first="[{latency_ms: 5000}]"))
    with open_stream(router):
        wait_until(lambda: not at_rest(router))
    wait_until(lambda: at_rest(router))
    assert router.backend("first").cancelled == 1
    assert len(router.backend("second").calls) == 0, "nobody waits for a fallback's answer"
    assert router.count("pointsman_requests_total", outcome="cancelled") == 1


def test_many_clients_that_leave_at_any_moment_leak_nothing(start_router):
    router = start_router(two(first="[{text: 'a b c d', chunks: 4, chunk_delay_ms: 20, latency_ms: 20}]"))

    def visit(i):
        with open_stream(router) as sock:
            sock.settimeout(0.004 * i)
            try:
                while sock.recv(4096):
                    pass
            except TimeoutError:
                pass

    threads = [threading.Thread(target=visit, args=(i,)) for i in range(1, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: at_rest(router))
    assert router.count("pointsman_in_flight") == 0
    assert router.chat().status == 200


def test_two_requests_on_one_connection_after_a_stream(start_router):
    router = start_router(two(first="[{text: a b, chunks: 2}]"))
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=5)
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream": True})
    for _ in range(2):
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        assert connection.getresponse().read().endswith(b"data: [DONE]\n\n")
    connection.close()


# --- the guard --------------------------------------------------------------------------------------------------------


def test_the_guard_stops_what_a_mistaken_decision_would_send_and_counts_it(start_router):
    router = start_router(two(second="[{text: must not be asked}]"))
    guarded = router.service.backends["second"]
    levels = router.service.policy.levels
    call = Call("chat", "/v1/chat/completions", b"{}", label=levels.index("confidential"))
    future = asyncio.run_coroutine_threadsafe(guarded.send(call), router.loop)
    with pytest.raises(EgressBlocked):
        future.result(5)
    assert len(router.backend("second").calls) == 0
    assert router.count("pointsman_egress_blocked_total", backend="second") == 1
    assert router.count("pointsman_egress_blocked_total", backend="first") == 0


@pytest.mark.parametrize("label", [-1, 4, 99])
def test_the_guard_refuses_a_label_it_does_not_know(start_router, label):
    router = start_router(two())
    call = Call("chat", "/v1/chat/completions", b"{}", label=label)
    future = asyncio.run_coroutine_threadsafe(router.service.backends["first"].send(call), router.loop)
    with pytest.raises(EgressBlocked):
        future.result(5)
    assert len(router.backend("first").calls) == 0


def test_with_clearance_cut_out_of_decide_the_guard_still_holds(start_router, monkeypatch):
    from policies import decide, filters

    others = [one for one in filters.FILTERS if one[0] != "clearance"]
    monkeypatch.setattr(decide, "asked", lambda context: others)
    router = start_router(two(first="[{fail: connect}]"))
    reply = router.chat("secret", headers={"x-data-sensitivity": "restricted"})
    assert reply.status == 500
    assert len(router.backend("second").calls) == 0
    assert router.count("pointsman_egress_blocked_total", backend="second") == 1


# --- what the answer and the metrics say ------------------------------------------------------------------------------


def test_every_answer_says_who_gave_it_and_why(start_router):
    router = start_router(two())
    reply = router.chat(headers={"x-request-id": "my-id-1"})
    expected = {
        "x-pointsman-schema": "1", "x-request-id": "my-id-1", "x-pointsman-backend": "first",
        "x-pointsman-tier": "edge", "x-pointsman-rule": "fast", "x-pointsman-label": "internal",
        "x-pointsman-attempts": "1", "x-pointsman-cost-usd": "0.000000000",
    }  # fmt: skip
    assert expected.items() <= reply.headers.items()
    shown = router.call("GET", f"/decisions/{reply.headers['x-pointsman-decision']}", admin=True).json()
    assert (shown["backend"], shown["rule"], shown["label"]) == ("first", "fast", "internal")


def test_a_refusal_carries_the_decision_too(start_router):
    router = start_router(two().replace("clearance: restricted", "clearance: internal"))
    reply = router.chat(headers={"x-data-sensitivity": "restricted"})
    assert (reply.status, reply.json()["error"]["code"]) == (403, "policy_no_backend")
    assert reply.headers["x-pointsman-label"] == "restricted"
    assert "x-pointsman-backend" not in reply.headers
    assert "first: label restricted is above its clearance internal" in reply.json()["error"]["message"]


def test_metrics_show_requests_by_backend_tier_rule_outcome_and_the_time_of_decisions(start_router):
    router = start_router(two())
    router.chat()
    router.chat(stream=True)
    router.chat(headers={"x-slo-latency-ms": "rubbish"})
    router.call("POST", "/v1/chat/completions", {"model": "none", "messages": [{"role": "user", "content": "x"}]})
    count = router.count
    assert count("pointsman_requests_total", task="chat", backend="first", tier="edge", rule="fast", outcome="ok") == 2
    assert count("pointsman_requests_total", outcome="client_error") == 1
    assert count("pointsman_requests_total", outcome="not_found", backend="") == 1
    assert count("pointsman_decision_seconds_count") == 3
    assert count("pointsman_request_seconds_count", task="chat", tier="edge") == 2
    assert count("pointsman_time_to_first_token_seconds_count", task="chat", tier="edge") == 1
    assert count("pointsman_tokens_total", backend="first", direction="in", source="told") == 10
    assert count("pointsman_backend_available", backend="first", tier="edge") == 1
    assert count("pointsman_policy_info", digest=router.service.policy.digest) == 1


def test_names_that_callers_invent_never_become_metric_labels(start_router):
    router = start_router(two())
    for name in ("invented-model", "another"):
        router.call("POST", "/v1/embeddings", {"model": name, "input": "x"}, {"x-usage": name})
    router.call("GET", "/invented-path")
    assert "invented" not in router.call("GET", "/metrics", admin=True).body.decode()


def test_an_error_inside_the_router_is_a_500_without_details_and_is_logged_without_payload(
    start_router, monkeypatch, caplog
):
    router = start_router(two())
    payload = f"my-{'secret'}-payload-4711"  # put together: a traceback shows this file's lines

    async def broken(call):
        raise RuntimeError(call.body.decode())

    monkeypatch.setattr(router.service.backends["first"], "send", broken)
    reply = router.chat(payload)
    assert (reply.status, reply.json()["error"]["code"]) == (500, "internal_error")
    assert payload not in reply.body.decode()
    assert "RuntimeError" in caplog.text
    assert payload not in caplog.text
    assert router.count("pointsman_requests_total", outcome="internal") == 1
    assert at_rest(router)


def test_the_tokens_of_a_stream_are_those_that_the_backend_counted(start_router):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1000}}\n\n'
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}}], "usage": null}\n\n'
    with upstream() as server:
        stream = {"content-type": "text/event-stream"}
        server.answers = Answers(headers=stream, chunks=[event, usage, b"data: [DONE]\n\n"])
        router = start_router(
            "kind: Fleet\nbackends:\n  - {name: one, tier: cloud, region: us, protocol: openai, clearance: restricted, "
            f"url: '{server.url}', models: {{chat: {{task: chat}}}}, price: {{output_per_mtok: 1000}}}}\n"
        )
        assert router.chat(stream=True).body.endswith(b"data: [DONE]\n\n")
    assert router.count("pointsman_tokens_total", direction="out") == 1000
    assert router.count("pointsman_tokens_total", direction="in") == 7
    assert router.count("pointsman_cost_usd_total") == pytest.approx(1.0)
