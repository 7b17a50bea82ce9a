"""What is counted for every request: in plain numbers while requests are served, and handed to prometheus-client when
somebody looks, or a moment later. That costs a tenth of counting there each time."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

Labels = tuple[str, ...]


class Tally:
    """Of a counter, or of a gauge that goes up and down. Belongs to one thread."""

    def __init__(self, metric: Counter | Gauge, at_once: bool = False) -> None:
        """`at_once`: nothing is kept back, so that a process that is killed has counted all that it has done."""
        self.metric, self._at_once = metric, at_once
        self._pending: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        if self._at_once:
            self._hand_over(labels, amount)
        else:
            self._pending[labels] = self._pending.get(labels, 0.0) + amount

    def fold(self) -> None:
        """Hand over what has come together."""
        pending, self._pending = self._pending, {}
        for labels, amount in pending.items():
            self._hand_over(labels, amount)

    def _hand_over(self, labels: Labels, amount: float) -> None:
        (self.metric.labels(*labels) if labels else self.metric).inc(amount)


@dataclass(slots=True)
class _Seen:
    counts: list[int]
    total: float = 0.0


class Exemplar(NamedTuple):
    """A request that fell into a bucket, by its trace."""

    trace_id: str
    value: float
    at: float  # seconds since 1970


@dataclass(slots=True)
class Distribution:
    """Of a histogram. Belongs to one thread."""

    metric: Histogram
    bounds: Sequence[float]  # of its buckets, ascending, without the last, which has none
    exemplars: dict[tuple[Labels, int], Exemplar] = field(default_factory=dict)  # by labels and bucket, the latest
    _pending: dict[Labels, _Seen] = field(default_factory=dict)

    def observe(self, labels: Labels, value: float) -> None:
        self.observe_all(labels, (value,))

    def observe_all(self, labels: Labels, values: Iterable[float]) -> None:
        seen = self._pending.get(labels)
        if seen is None:
            seen = self._pending[labels] = _Seen([0] * (len(self.bounds) + 1))
        for value in values:
            seen.counts[bisect_left(self.bounds, value)] += 1
            seen.total += value

    def exemplify(self, labels: Labels, value: float, trace_id: str) -> None:
        self.exemplars[labels, bisect_left(self.bounds, value)] = Exemplar(trace_id, value, time.time())

    def fold(self) -> None:
        """Hand over what has come together. (prometheus-client has no way to add several observations at once, so this
        does what its `observe` does, by the numbers that it keeps; a test holds the two together.)"""
        pending, self._pending = self._pending, {}
        for labels, seen in pending.items():
            child = self.metric.labels(*labels) if labels else self.metric
            child._sum.inc(seen.total)
            for bucket, count in zip(child._buckets, seen.counts, strict=True):
                if count:
                    bucket.inc(count)
