"""Quantiles are right to a few per cent, follow what is new, and take any time and value."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from router.quantiles import HALF_LIFE_S, Sketch


def test_they_are_right_to_ten_per_cent():
    rng = random.Random(1)
    values = [rng.lognormvariate(4, 1) for _ in range(5000)]
    sketch = Sketch()
    for value in values:
        sketch.observe(value, 0.0)
    values.sort()
    for share in (0.1, 0.5, 0.9, 0.95, 0.99):
        assert abs(sketch.quantile(share) / values[int(share * 5000)] - 1) < 0.1


def test_what_is_old_fades():
    sketch = Sketch()
    for _ in range(1000):
        sketch.observe(10, 0.0)
    for _ in range(100):
        sketch.observe(1000, 8 * HALF_LIFE_S)
    assert 900 < sketch.quantile(0.5) < 1100


def test_what_is_asked_again_and_again_follows_what_comes():
    sketch = Sketch()
    for i in range(4000):
        sketch.observe(10 if i < 2000 else 1000, 0.0 if i < 2000 else 8 * HALF_LIFE_S)
        sketch.quantile(0.5)
    assert 900 < sketch.quantile(0.5) < 1100


def test_nothing_is_known_of_nothing():
    assert Sketch().quantile(0.5) is None


@given(st.lists(st.tuples(st.floats(0, 1e12), st.floats(0, 1e6)), min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_any_value_and_any_time(samples, share):
    sketch, now = Sketch(), 0.0
    for value, passed in samples:
        now += passed
        sketch.observe(value, now)
    assert sketch.quantile(share) is not None
