"""How many requests at once a backend takes, found out from how its answers slow down: a pure state machine.

The limit grows by the square root of itself while answers take as long as they do without load, and shrinks in
proportion as they take longer (after the "gradient" of Netflix' concurrency-limits). What they take without load is
the least of the latest answers; to see it, the limit is halved for a moment now and then (as BBR probes the round
trip), or a backend that is always full would come to look normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_TOLERANCE = 1.5  # times the least latency that are still no sign of load
_WINDOW = 500  # answers, of which the least counts, beside those of the window before
_LOOK = 30  # answers at half the limit, at the beginning of a window
_SMOOTH = 0.2
_REFUSED = 0.9


@dataclass(frozen=True, slots=True)
class Gradient:
    most: int  # what the fleet allows
    grown: float  # the limit, but for the moments of looking
    answers: int = 0  # in this window
    least_ms: float = math.inf  # in this window
    least_before_ms: float = math.inf  # in the one before

    @classmethod
    def begin(cls, most: int) -> Gradient:
        return cls(most, min(most, 4.0), _LOOK)

    @property
    def limit(self) -> int:
        return max(1, int(self.grown / 2 if self.answers < _LOOK else self.grown))


def answered(state: Gradient, latency_ms: float, in_flight: int) -> Gradient:
    """After an answer that took so long, with so many under way. Few of them say nothing of load."""
    least = min(state.least_ms, latency_ms)
    if state.answers + 1 < _WINDOW:
        state = replace(state, answers=state.answers + 1, least_ms=least)
    else:
        state = replace(state, answers=0, least_ms=math.inf, least_before_ms=least)
    if in_flight < state.limit / 2 or state.answers < _LOOK:
        return state
    usual = _TOLERANCE * min(state.least_before_ms, least)
    if latency_ms <= usual:
        return _limited(state, state.grown + 1 / math.sqrt(state.grown))
    return _limited(state, state.grown * (1 - _SMOOTH / state.grown * (1 - max(usual / latency_ms, 0.5))))


def refused(state: Gradient) -> Gradient:
    """It said that it has too much to do, or did not answer in time."""
    return _limited(state, state.grown * _REFUSED)


def _limited(state: Gradient, limit: float) -> Gradient:
    return replace(state, grown=max(1.0, min(limit, float(state.most))))
