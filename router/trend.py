"""How an answer's time grows with its size: a straight line through what was measured lately.

Least squares in which each sample weighs a little less than the next (recursive, so nothing is kept). The size is the
answer's tokens for generated text, whose time goes into them one by one, and the request's KiB for tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

_KEPT = 0.98  # of a sample's weight at the next one: about the last fifty count
_ENOUGH = 10


@dataclass(slots=True)
class Trend:
    samples: int = 0
    line: tuple[float, float] | None = None
    """(usual size, ms for each unit more); None before there are enough samples, or where all have one size."""
    _weight: float = 0.0
    _size: float = 0.0  # weighted sums
    _ms: float = 0.0
    _size_size: float = 0.0
    _size_ms: float = 0.0

    def observe(self, size: float, ms: float) -> None:
        self.samples += 1
        self._weight = self._weight * _KEPT + 1
        self._size = self._size * _KEPT + size
        self._ms = self._ms * _KEPT + ms
        self._size_size = self._size_size * _KEPT + size * size
        self._size_ms = self._size_ms * _KEPT + size * ms
        self.line = self._line()  # here, for it is read for every decision

    def _line(self) -> tuple[float, float] | None:
        if self.samples < _ENOUGH:
            return None
        mean, mean_ms = self._size / self._weight, self._ms / self._weight
        spread = self._size_size / self._weight - mean * mean
        if spread <= 1e-6 * max(mean * mean, 1.0):
            return None
        slope = (self._size_ms / self._weight - mean * mean_ms) / spread
        # No answer takes less than none: a line that says so went through something else than sizes.
        return mean, max(0.0, min(slope, mean_ms / mean))
