"""What is counted for every request: in plain numbers while requests are served, and handed to prometheus-client when
somebody looks, or a moment later. That costs a tenth of counting there each time."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Counted
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

Labels = tuple[str, ...]
_FEW = 40
"""Fewer observations than that are sorted into buckets one by one."""


class Tally:
    """Of a counter, or of a gauge that goes up and down. Belongs to one thread."""

    def __init__(self, metric: Counter | Gauge, at_once: bool = False) -> None:
        """`at_once`: nothing is kept back, so that a process that is killed has counted all that it has done."""
        self.metric, self._at_once = metric, at_once
        self._pending: defaultdict[Labels, float] = defaultdict(float)

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        if self._at_once:
            self._hand_over(labels, amount)
        else:
            self._pending[labels] += amount

    def fold(self) -> None:
        """Hand over what has come together."""
        pending, self._pending = self._pending, defaultdict(float)
        for labels, amount in pending.items():
            self._hand_over(labels, amount)

    def _hand_over(self, labels: Labels, amount: float) -> None:
        (self.metric.labels(*labels) if labels else self.metric).inc(amount)


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
    _pending: dict[Labels, list[float]] = field(default_factory=dict)

    def observe(self, labels: Labels, value: float) -> None:
        seen = self._pending.get(labels)
        if seen is None:
            self._pending[labels] = [value]
        else:
            seen.append(value)

    def observe_all(self, labels: Labels, values: Sequence[float]) -> None:
        self._pending.setdefault(labels, []).extend(values)

    def exemplify(self, labels: Labels, value: float, trace_id: str) -> None:
        self.exemplars[labels, bisect_left(self.bounds, value)] = Exemplar(trace_id, value, time.time())

    def fold(self) -> None:
        """Hand over what has come together. (prometheus-client has no way to add several observations at once, so this
        does what its `observe` does, by the numbers that it keeps; a test holds the two together.)"""
        pending, self._pending = self._pending, {}
        for labels, values in pending.items():
            child = self.metric.labels(*labels) if labels else self.metric
            child._sum.inc(sum(values))
            for bucket, count in self._counted(values):
                child._buckets[bucket].inc(count)

    def _counted(self, values: Sequence[float]) -> Iterable[tuple[int, int]]:
        """How many lie in which bucket, of those that hold any."""
        if len(values) < _FEW:
            return Counted(bisect_left(self.bounds, value) for value in values).items()
        counts = np.bincount(np.searchsorted(self.bounds, values)).tolist()
        return [(bucket, count) for bucket, count in enumerate(counts) if count]
