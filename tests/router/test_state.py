"""Latencies: a slow answer counts at once, and is not held against a backend for ever."""

from __future__ import annotations

import pytest
from conftest import compile_text

from router.state import FleetState

ONE = """
kind: Fleet
backends:
  - {name: b, tier: edge, region: jp, protocol: fake, models: {chat: {task: chat}}, latency: {prior_ms: 50}}
"""


@pytest.fixture
def state():
    return FleetState(compile_text(ONE))


def estimate(state, now):
    return state.snapshot(now, 0.0).latency_ms[0]


def observe(state, *samples):
    for ms, now in samples:
        state.observe_latency(state._targets[0], ms, now)


def test_a_slow_answer_counts_at_once_and_quick_ones_bit_by_bit(state):
    observe(state, (50, 0.0), (500, 0.1))
    assert estimate(state, 0.2) == 500
    observe(state, *((50, 0.2 + i / 100) for i in range(5)))
    assert 200 < estimate(state, 0.3) < 400
    observe(state, *((50, 0.3 + i / 100) for i in range(100)))
    assert estimate(state, 1.4) < 60


def test_what_is_not_measured_again_goes_back_to_the_prior(state):
    observe(state, (2000, 0.0))
    assert estimate(state, 0.4) == 2000
    for tenth in range(4, 100):
        last = estimate(state, tenth / 10)
    assert last == pytest.approx(50, rel=0.1)


def test_or_to_what_is_usual_where_that_is_known(state):
    observe(state, *((400, i / 10) for i in range(50)), (4000, 5.0))
    for tenth in range(50, 200):
        last = estimate(state, tenth / 10)
    assert last == pytest.approx(400, rel=0.1)


def test_a_quick_backend_stays_so(state):
    observe(state, (5, 0.0))
    assert [estimate(state, t) for t in (1.0, 10.0, 100.0)] == [5, 5, 5]
