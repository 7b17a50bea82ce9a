"""Counting in plain numbers says what counting at prometheus-client says."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from router.alarm import Alarm
from router.telemetry.tallies import Distribution, Tally

BOUNDS = (0.1, 0.5, 1, 5)
amounts = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 4.0, 5.0, 99.0])))


def made():
    registry = CollectorRegistry()
    counter = Counter("c", "c", ["x"], registry=registry)
    gauge = Gauge("g", "g", ["x"], registry=registry)
    histogram = Histogram("h", "h", ["x"], registry=registry, buckets=BOUNDS)
    return registry, counter, gauge, histogram


@given(st.lists(amounts, max_size=3))
def test_the_same_numbers_come_out(batches):
    registry, counter, gauge, histogram = made()
    counts, levels, times = Tally(counter), Tally(gauge), Distribution(histogram, BOUNDS)
    for batch in batches:
        for label, amount in batch:
            counts.add((label,), amount)
            levels.add((label,), 1 - amount)
            times.observe((label,), amount)
        many = [amount for _, amount in batch] * 20  # enough to be sorted in one go
        times.observe_all(("c",), many)
        for one in (counts, levels, times):
            one.fold()
    plain, counter, gauge, histogram = made()
    for label, amount in (one for batch in batches for one in batch):
        counter.labels(label).inc(amount)
        gauge.labels(label).inc(1 - amount)
        histogram.labels(label).observe(amount)
        for _ in range(20):
            histogram.labels("c").observe(amount)
    if batches:
        histogram.labels("c")
    found, wanted = (
        {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in generate_latest(one).decode().splitlines()
         if not line.startswith("#")}
        for one in (registry, plain)
    )  # fmt: skip
    assert found == pytest.approx(wanted)


def test_an_alarm_ends_what_takes_too_long_and_nothing_else():
    async def main():
        with pytest.raises(TimeoutError), Alarm(0.01):
            await asyncio.sleep(5)
        with pytest.raises(TimeoutError), Alarm(-1):
            await asyncio.sleep(5)
        with Alarm(0.05):
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)  # it does not ring afterwards
        with pytest.raises(ValueError), Alarm(0.01):
            raise ValueError

        async def cancelled():
            with Alarm(5):
                await asyncio.sleep(5)

        task = asyncio.create_task(cancelled())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        outer = Alarm(0.01)
        with pytest.raises(TimeoutError), outer, Alarm(5):
            await asyncio.sleep(5)
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(main())
