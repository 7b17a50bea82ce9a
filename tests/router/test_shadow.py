"""Copies to a backend on trial: sent beside, discarded, never above clearance, never in the way."""

from __future__ import annotations

import time

import pytest
from upstream import Answers, upstream

from router import shadow

CONFIG = """
kind: Fleet
backends:
  - {name: live, tier: onprem, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}}}
  - {name: trial, tier: onprem, region: jp, protocol: fake, clearance: TRIAL, models: {chat: {task: chat}},
     script: [STEP]}
---
kind: Policy
rules: [{name: r, shadow: {backend: trial, share: SHARE}}]
"""

STREAMED = """
kind: Fleet
backends:
  - {name: live, tier: onprem, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}}}
  - {name: trial, tier: onprem, region: jp, protocol: openai, url: "URL", clearance: restricted,
     models: {chat: {task: chat}}, price: {output_per_mtok: 1000000}}
---
kind: Policy
rules: [{name: r, shadow: {backend: trial, share: 1}}]
"""


@pytest.fixture
def start(start_router):
    def start(trial="restricted", step="{}", share="1", **settings):
        text = CONFIG.replace("TRIAL", trial).replace("STEP", step).replace("SHARE", share)
        return start_router(text, **settings)

    return start


def until(condition, within_s=5.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def copies(router, outcome):
    return router.count("pointsman_shadow_copies_total", backend="trial", outcome=outcome)


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_call_goes_to_the_trial_and_its_answer_nowhere(start, stream):
    router = start(step="{text: of the trial}")
    reply = router.chat("hello", stream=stream)
    assert reply.backend == "live"
    assert b"trial" not in reply.body
    until(lambda: copies(router, "ok") == 1)
    assert router.backend("trial").calls[0].body == router.backend("live").calls[0].body
    until(lambda: all(state.in_flight == 0 for state in router.service.state.backends))


def test_a_share_is_a_share(start):
    router = start(share="0.3")
    for i in range(100):
        router.chat(headers={"x-request-id": f"r{i}"})
    until(lambda: copies(router, "ok") == len(router.backend("trial").calls))
    assert 15 <= len(router.backend("trial").calls) <= 45


def test_nothing_is_copied_above_clearance(start):
    router = start(trial="internal")
    assert router.chat(headers={"x-data-sensitivity": "confidential"}).status == 200
    time.sleep(0.1)
    assert len(router.backend("trial").calls) == 0
    assert router.count("pointsman_egress_blocked_total") == 0


def test_a_trial_that_fails_is_nobody_elses_trouble(start, caplog):
    router = start(step="{fail: status_500}")
    assert router.chat().status == 200
    until(lambda: copies(router, "failed") == 1)
    assert "Traceback" not in caplog.text


def test_a_slow_trial_holds_nobody_up_and_is_not_flooded(start, monkeypatch):
    monkeypatch.setattr(shadow, "MAX_COPIES", 3)
    router = start(step="{latency_ms: 60000}", default_deadline_s=30)
    began = time.monotonic()
    assert {router.chat().status for _ in range(10)} == {200}
    assert time.monotonic() - began < 5
    assert copies(router, "dropped") == 7
    assert router.service.state.backends[1].in_flight == 3


def test_a_copy_that_breaks_costs_what_came_of_it_and_one_that_nobody_counts_its_events(start_router):
    """Not what the request allows at most, and not nothing."""
    events = [b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'] * 3
    with upstream() as trial:
        router = start_router(STREAMED.replace("URL", trial.url))
        for cut in (True, False):
            end = [] if cut else [b"data: [DONE]\n\n"]
            trial.answers = Answers(chunks=events + end, headers={"content-type": "text/event-stream"}, cut=cut)
            before = router.count("pointsman_cost_usd_total", backend="trial", purpose="copy")
            router.chat(stream=True)
            until(lambda cut=cut: copies(router, "failed" if cut else "ok") == 1)
            assert router.count("pointsman_cost_usd_total", backend="trial", purpose="copy") - before == 3
    until(lambda: all(state.in_flight == 0 for state in router.service.state.backends))
