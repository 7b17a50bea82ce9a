"""What is counted for every request: in plain numbers while requests are served, and handed to prometheus-client when
somebody looks, or a moment later. That costs a tenth of counting there each time."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Counted
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from prometheus_client import Counter, Gauge, Histogram

Labels = tuple[str, ...]
_FEW = 40
"""Fewer observations than that are sorted into buckets one by one."""


M = TypeVar("M", Counter, Gauge, Histogram)


class Series(dict[Labels, M]):
    """Those of a metric, by the values of its labels: prometheus-client takes ten times as long to find one. None is
    ever removed there."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric: M = metric

    def __missing__(self, labels: Labels) -> M:
        series: M = self._metric.labels(*labels) if labels else self._metric
        self[labels] = series
        return series


class Tally:
    """Of a counter, or of a gauge that goes up and down. Belongs to one thread."""

    def __init__(self, metric: Counter | Gauge, at_once: bool = False) -> None:
        """`at_once`: nothing is kept back, so that a process that is killed has counted all that it has done."""
        self.metric, self._at_once = metric, at_once
        self._series: Series[Any] = Series(metric)
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
        self._series[labels].inc(amount)


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
    _bounds: npt.NDArray[np.float64] = field(init=False)
    _series: Series[Histogram] = field(init=False)

    def __post_init__(self) -> None:
        self._bounds, self._series = np.array(self.bounds), Series(self.metric)

    def observe(self, labels: Labels, value: float) -> None:
        seen = self._pending.get(labels)
        if seen is None:
            self._pending[labels] = [value]
        else:
            seen.append(value)

    def observe_all(self, labels: Labels, values: Sequence[float]) -> None:
        """Handed over at once. (prometheus-client has no way to add several observations, so this does what its
        `observe` does, by the numbers that it keeps; a test holds the two together.)"""
        series = self._series[labels]
        series._sum.inc(sum(values))
        for bucket, count in self._counted(values):
            series._buckets[bucket].inc(count)

    def exemplify(self, labels: Labels, value: float, trace_id: str) -> None:
        self.exemplars[labels, bisect_left(self.bounds, value)] = Exemplar(trace_id, value, time.time())

    def fold(self) -> None:
        """Hand over what has come together."""
        pending, self._pending = self._pending, {}
        for labels, values in pending.items():
            self.observe_all(labels, values)

    def _counted(self, values: Sequence[float]) -> Iterable[tuple[int, int]]:
        """How many lie in which bucket, of those that hold any."""
        if len(values) < _FEW:
            return Counted(bisect_left(self.bounds, value) for value in values).items()
        counts = np.bincount(self._bounds.searchsorted(values)).tolist()
        return [(bucket, count) for bucket, count in enumerate(counts) if count]
