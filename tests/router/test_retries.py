"""Further attempts at backends that have failed: few, soon, and only what may be sent twice."""

from __future__ import annotations

import time

import pytest
from upstream import Answers, upstream

from router.allowance import Allowance

ONE = """
kind: Fleet
backends:
  - {{name: only, tier: edge, region: jp, clearance: restricted, protocol: fake, latency: {{prior_ms: 10}},
     script: {script}, models: {{chat: {{task: chat}}}}}}
---
kind: Policy
rules:
  - {{name: all, fallback: {fallback}}}
"""


def one(script, fallback="{}"):
    return ONE.format(script=script, fallback=fallback)


@pytest.mark.parametrize("failure", ["connect", "status_500", "rubbish"])
def test_a_failure_that_may_pass_is_tried_again_at_the_same_backend(start_router, failure):
    router = start_router(one(f"[{{fail: {failure}}}, {{}}]"))
    reply = router.chat()
    assert (reply.status, reply.headers["x-pointsman-attempts"]) == (200, "2")
    assert router.count("pointsman_attempts_total", kind="retry", outcome="ok") == 1


def test_there_is_none_where_the_policy_says_so(start_router):
    router = start_router(one("[{fail: status_500}, {}]", "{retry_share: 0}"))
    assert router.chat().status == 502
    assert router.count("pointsman_attempts_total") == 1


@pytest.mark.parametrize("failure", ["timeout", "overloaded", "status_400"])
def test_what_waiting_does_not_help_is_not_tried_again(start_router, failure):
    router = start_router(one(f"[{{fail: {failure}}}, {{}}]"))
    assert router.chat().status != 200
    assert router.count("pointsman_attempts_total") == 1


def test_what_leaves_something_behind_is_sent_again_only_where_it_was_not_taken(start_router):
    router = start_router(one("[{fail: status_500}, {}]"))
    assert router.chat(store=True).status == 502
    router = start_router(one("[{fail: connect}, {}]"))
    assert router.chat(store=True).status == 200


def test_they_are_a_share_of_the_load_and_not_a_count(start_router):
    """When everything fails, the load on the backends must not be a multiple of the requests."""
    router = start_router(one("[{fail: rubbish}]", "{retry_share: 0.1}"))
    sent = sum(router.chat().status in (502, 503) for _ in range(40))
    assert sent == 40
    assert router.count("pointsman_attempts_total", kind="retry") <= 1 + 0.1 * 40


def test_the_pause_is_inside_the_deadline(start_router):
    router = start_router(one("[{latency_ms: 40, fail: status_500}]"))
    began = time.monotonic()
    reply = router.chat(headers={"x-slo-latency-ms": "60"})
    assert reply.status in (502, 504)
    assert time.monotonic() - began < 0.5


def test_an_allowance_is_earned_and_kept_up_to_a_burst():
    allowance = Allowance(0.5, burst=2)
    assert [allowance.take(), allowance.take()] == [True, False]
    for _ in range(100):
        allowance.earn()
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    assert not Allowance(0.0).take()


def test_a_stale_connection_is_not_a_reason_to_send_such_a_call_twice(start_router):
    """The server may have read it before it closed: nobody can tell."""
    with upstream() as server:
        fleet = ONE.replace("protocol: fake", f'protocol: openai, url: "{server.url}"').replace(
            "script: {script}, ", ""
        )
        router = start_router(fleet.format(fallback="{retry_share: 0}"))
        server.answers.body = {"choices": []}
        assert router.chat().status == 200
        for store, seen in ((True, 1), (False, 2)):
            before = len(server.asked)
            server.choose = lambda asked, before=before: (
                Answers(raw=b"") if len(server.asked) == before + 1 else server.answers
            )
            assert router.chat(store=store).status == (502 if store else 200)
            assert len(server.asked) - before == seen
            assert router.chat().status == 200


HANGS = """
kind: Fleet
backends:
  - {{name: first, tier: edge, region: jp, clearance: restricted, protocol: fake, latency: {{prior_ms: 10}},
     script: [{quick}, {{latency_ms: 700}}], models: {{chat: {{task: chat}}}}}}
  - {{name: second, tier: edge, region: jp, clearance: restricted, protocol: fake, latency: {{prior_ms: 20}},
     models: {{chat: {{task: chat}}}}}}
---
kind: Policy
rules:
  - {{name: all, split: {{weights: {{first: 1}}}}, spill: never, fallback: {{retry_share: {share}}}}}
"""


@pytest.mark.parametrize(("share", "given_up"), [(0, 0), (0.05, 2)])
def test_who_is_much_later_than_usual_is_given_up_as_far_as_that_can_be_afforded(start_router, share, given_up):
    quick = ", ".join(["{latency_ms: 2}"] * 22)
    router = start_router(HANGS.format(quick=quick, share=share))
    for _ in range(22):
        assert router.chat().backend == "first"
    answers = [router.chat().backend for _ in range(6)]
    assert answers.count("second") == given_up
    assert answers[:given_up] == ["second"] * given_up, "then the allowance is used up, and the first is waited for"
