"""Quantiles of what was measured lately: a histogram of logarithmic buckets in which old samples fade.

Each bucket is 10 % wider than the one before, so a quantile is right to 5 %. Samples lose half their weight in
HALF_LIFE_S (forward decay: Cormode et al., "Forward Decay", 2009; new samples weigh more instead of old ones less).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

HALF_LIFE_S = 120.0
_GROWTH = math.log(1.1)
_BUCKETS = 160  # from 1 ms: the last begins at over an hour
_RESCALE = 2.0**60


@dataclass(slots=True)
class Sketch:
    """Of positive numbers, such as latencies in ms. `now` is seconds on any clock that does not go back."""

    samples: int = 0  # ever
    _weights: list[float] = field(default_factory=lambda: [0.0] * _BUCKETS, repr=False)
    _total: float = 0.0
    _origin: float | None = None
    _known: dict[float, tuple[int, float]] = field(default_factory=dict, repr=False)  # share -> (samples then, value)

    def observe(self, value: float, now: float) -> None:
        if self._origin is None:
            self._origin = now
        weight = 2.0 ** min((now - self._origin) / HALF_LIFE_S, 200.0)
        if weight > _RESCALE:
            self._weights = [one / weight for one in self._weights]
            self._total /= weight
            self._origin, weight = now, 1.0
        self._weights[min(max(int(math.log(max(value, 1.0)) / _GROWTH), 0), _BUCKETS - 1)] += weight
        self._total += weight
        self.samples += 1

    def quantile(self, share: float) -> float | None:
        """The value that this share of the samples is below; None where there are none. What was asked before holds
        until a sixteenth, or a hundred, more samples have come: it is asked for every request."""
        at, value = self._known.get(share, (0, 0.0))
        if at and self.samples - at <= min(at // 16, 100):
            return value
        found = self._quantile(share)
        if found is not None:
            self._known[share] = (self.samples, found)
        return found

    def _quantile(self, share: float) -> float | None:
        wanted = share * self._total
        if not wanted:
            return None
        seen = 0.0
        for i, weight in enumerate(self._weights):
            seen += weight
            if seen >= wanted:
                return math.exp((i + 0.5) * _GROWTH)
        return math.exp(_BUCKETS * _GROWTH)
