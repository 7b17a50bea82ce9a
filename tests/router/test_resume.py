"""A stream that breaks after it has begun: gone on with at another backend where the rule asks for it."""

from __future__ import annotations

import json
import time

import pytest
from test_execution import at_rest, wait_until
from upstream import Answers, upstream

FLEET = """
kind: Fleet
backends:
  - {{name: first, tier: edge, region: jp, clearance: {clearance}, protocol: openai, url: "{first}",
     latency: {{prior_ms: 10}}, models: {{chat: {{task: chat}}}}, price: {{output_per_mtok: 1000000}},
     energy: {{active_w: 6400}}}}
  - {{name: second, tier: cloud, region: us, clearance: {second_clearance}, protocol: openai, url: "{second}",
     latency: {{prior_ms: 100}}, models: {{chat: {{task: chat}}}}, price: {{output_per_mtok: 1000000}}}}
---
kind: Policy
sensitivity: {{detectors: [{{use: pii, label: confidential}}]}}
rules:
  - {{name: all, objective: {{latency: {{weight: 1}}}}, transform: pseudonymise,
     fallback: {{resume: {resume}, retry_share: 0}}}}
"""
EVENTS = {"content-type": "text/event-stream"}


def event(text=None, **delta):
    body = {"choices": [{"index": 0, "delta": delta if text is None else {"content": text}}]}
    return f"data: {json.dumps(body)}\n\n".encode()


@pytest.fixture
def servers():
    with upstream() as first, upstream() as second:
        first.answers = Answers(chunks=[event("Dear [EMAIL_"), event("ADDRESS_1], the ")], headers=EVENTS, cut=True)
        second.answers = Answers(chunks=[event("train [EMAIL_ADDRESS_1]"), b"data: [DONE]\n\n"], headers=EVENTS)
        yield first, second


def start(start_router, servers, resume="true", second="restricted"):
    urls = {"first": servers[0].url, "second": servers[1].url}
    return start_router(FLEET.format(**urls, resume=resume, clearance="restricted", second_clearance=second))


def said(reply):
    lines = [line[6:] for line in reply.body.decode().splitlines() if line.startswith("data: {")]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)


def test_the_other_goes_on_from_what_was_said(start_router, servers):
    router = start(start_router, servers)
    reply = router.chat("write to taro@example.com", stream=True)
    assert said(reply) == "Dear taro@example.com, the train taro@example.com"
    assert reply.body.count(b"[DONE]") == 1
    messages = servers[1].asked[0].json()["messages"]
    assert messages == [
        {"role": "user", "content": "write to [EMAIL_ADDRESS_1]"},
        {"role": "assistant", "content": "Dear [EMAIL_ADDRESS_1], the "},
    ]
    assert router.count("pointsman_requests_total", outcome="ok", backend="second") == 1
    assert router.count("pointsman_streams_broken_total", backend="first") == 1
    assert router.count("pointsman_streams_broken_total", backend="second") == 0
    wait_until(lambda: at_rest(router))


def test_without_it_the_stream_ends_with_an_error(start_router, servers):
    router = start(start_router, servers, "false")
    reply = router.chat("hello", stream=True)
    assert b'"code":"upstream_error"' in reply.body
    assert servers[1].asked == []


@pytest.mark.parametrize(
    ("headers", "second"),
    [
        ({"x-data-sensitivity": "restricted"}, "confidential"),
        ({"x-no-fallback": "true"}, "restricted"),
        ({}, "internal"),  # what the first has said may be as sensitive as what it may see
    ],
)
def test_never_to_where_the_decision_does_not_allow(start_router, servers, headers, second):
    router = start(start_router, servers, second=second)
    reply = router.chat("hello", headers, stream=True)
    assert b'"code":"upstream_error"' in reply.body
    assert servers[1].asked == []


def test_a_tool_call_is_not_gone_on_with(start_router, servers):
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}
    servers[0].answers = Answers(chunks=[event(tool_calls=[call])], headers=EVENTS, cut=True)
    router = start(start_router, servers)
    assert b'"code":"upstream_error"' in router.chat("hello", stream=True).body
    assert servers[1].asked == []


def test_what_is_whole_is_not_gone_on_with(start_router, servers):
    end = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    servers[0].answers = Answers(chunks=[event("whole."), end], headers=EVENTS, cut=True)
    router = start(start_router, servers)
    router.chat("hello", stream=True)
    assert servers[1].asked == []


def test_both_parts_are_paid_for_once(start_router, servers):
    router = start(start_router, servers)
    assert router.chat("hello", stream=True).status == 200
    assert router.count("pointsman_cost_usd_total", backend="first") == 2, "two events"
    assert router.count("pointsman_cost_usd_total", backend="second") == 1
    assert router.count("pointsman_baseline_cost_usd_total") == 3, "the cloud would have given all of it"


def test_the_first_is_not_charged_for_the_time_of_the_second(start_router, servers):
    late = servers[1].answers
    servers[1].choose = lambda asked: time.sleep(1) or late
    router = start(start_router, servers)
    assert router.chat("hello", stream=True).status == 200
    joules = router.count("pointsman_energy_joules_total", backend="first")
    assert 0 < joules < 50, "100 W for the moment that it lived, not for a second"


def test_when_the_other_fails_too_the_stream_ends_with_an_error(start_router, servers):
    servers[1].answers = Answers(status=500)
    router = start(start_router, servers)
    assert b'"code":"upstream_error"' in router.chat("hello", stream=True).body
    wait_until(lambda: at_rest(router))


def test_what_the_first_has_taken_is_neither_the_routers_time_nor_forgotten(start_router, servers):
    """A sum that fell would look to Prometheus like a router that began anew."""
    servers[0].answers = Answers(chunks=[event("a"), event("b"), event("c")], headers=EVENTS, cut=True, pause_s=0.1)
    router = start(start_router, servers)
    router.chat("hello", stream=True)
    wait_until(lambda: router.count("pointsman_overhead_seconds_count") == 1)
    assert 0 <= router.count("pointsman_overhead_seconds_sum") < 0.1
    assert router.count("pointsman_time_per_output_token_seconds_sum") < 0.2, "three pieces, and one of the second's"


def test_a_whole_answer_that_nothing_can_be_put_back_into_is_paid_for_all_the_same(start_router, servers):
    body = b'{"choices": [1e999], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}'  # no JSON that can be read
    servers[0].answers = Answers(body=body)
    router = start(start_router, servers)
    assert router.chat("write to taro@example.com").status == 502
    assert router.count("pointsman_cost_usd_total", backend="first", purpose="broken") == 7
