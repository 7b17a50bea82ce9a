"""An answer's time is expected by its size, where that was seen to matter."""

from __future__ import annotations

import random

import pytest
from conftest import compile_text, request
from hypothesis import given
from hypothesis import strategies as st

from policies import estimate
from policies.types import Snapshot
from router.trend import Trend

ONE = """
kind: Fleet
backends:
  - {name: b, tier: edge, region: jp, protocol: fake, models: {chat: {task: [chat, x]}}, limits: {max_in_flight: 4}}
"""


def seen(samples):
    trend = Trend()
    for size, ms in samples:
        trend.observe(size, ms)
    return trend


def test_the_line_is_found_through_noise():
    rng = random.Random(1)
    usual, slope = seen((n, 200 + 10 * n + rng.uniform(-50, 50)) for n in rng.choices(range(20, 200), k=500)).line
    assert 80 < usual < 140
    assert slope == pytest.approx(10, rel=0.1)


def test_a_few_samples_and_a_single_size_say_nothing():
    assert seen([(1, 1)] * 5).line is None
    assert seen([(50, 100)] * 100).line is None


def test_time_that_falls_with_size_is_no_trend():
    assert seen((n, 1000 - n) for n in range(100)).line[1] == 0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=60))
def test_no_line_goes_below_nothing(samples):
    line = seen(samples).line
    assert line is None or (line[0] >= 0 and line[1] >= 0)


def expected(tokens_out=0, body_bytes=0, protocol="openai", growth=(100.0, 10.0), measured=1200.0):
    policy = compile_text(ONE)
    snapshot = Snapshot((None,), (0,), (measured,), growth=(growth,))
    facts = {"tokens_out": tokens_out, "body_bytes": body_bytes, "protocol": protocol}
    return estimate.latency_ms(policy.targets[0], request(**facts), snapshot)


def test_a_short_answer_is_expected_soon_and_a_high_limit_means_nothing():
    assert expected(tokens_out=10) == pytest.approx(300)
    assert expected(tokens_out=100) == pytest.approx(1200)
    assert expected(tokens_out=100_000) == pytest.approx(1200)


def test_a_large_tensor_is_expected_late():
    assert expected(body_bytes=1024 * 200, protocol="oip") == pytest.approx(2200)
    assert expected(body_bytes=1024, protocol="oip") == pytest.approx(210)


def test_what_was_not_measured_is_as_the_fleet_says():
    assert expected(tokens_out=10, measured=None) == pytest.approx(500)


def test_the_router_learns_it(start_router):
    script = ", ".join(f"{{text: {' '.join(['w'] * n)!r}, latency_ms: {2 * n}}}" for n in (5, 30) * 10)
    router = start_router(ONE.replace("protocol: fake", f"protocol: fake, clearance: restricted, script: [{script}]"))
    for _ in range(20):
        router.chat()
    usual, slope = router.service.state._whole[0].trend.line
    assert 10 < usual < 25
    assert slope > 1
