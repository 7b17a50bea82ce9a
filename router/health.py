"""Whether a backend may be used: a pure state machine, `(state, event, now) -> state`.

Three failures in a row eject it, for longer each time; when the time is up it is on trial: one failure ejects it
again, one success acquits it. Two failed probes in a row take it out until a probe succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

FAILURES_TO_EJECT = 3
FIRST_EJECTION_S = 5.0
LONGEST_EJECTION_S = 60.0
PROBES_TO_FAIL = 2


class Event(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    PROBE_OK = "probe_ok"
    PROBE_FAILED = "probe_failed"


@dataclass(frozen=True, slots=True)
class Health:
    failures: int = 0  # in a row
    ejections: int = 0  # in a row, without a success between
    ejected_until: float = 0.0  # seconds on the clock that `now` is read from
    probe_failures: int = 0  # in a row
    seen: bool = False  # whether it has ever answered anything


def step(health: Health, event: Event, now: float) -> Health:
    match event:
        case Event.SUCCESS:
            return replace(health, failures=0, ejections=0, ejected_until=0.0, probe_failures=0, seen=True)
        case Event.PROBE_OK:
            return replace(health, probe_failures=0, seen=True)
        case Event.PROBE_FAILED:
            return replace(health, probe_failures=health.probe_failures + 1)
        case Event.FAILURE:
            failures = health.failures + 1
            on_trial = health.ejections > 0 and now >= health.ejected_until
            if failures < FAILURES_TO_EJECT and not on_trial:
                return replace(health, failures=failures)
            length = min(FIRST_EJECTION_S * 2**health.ejections, LONGEST_EJECTION_S)
            return replace(health, failures=0, ejections=health.ejections + 1, ejected_until=now + length)


def unavailable(health: Health, now: float) -> str | None:
    """Why it must not be used now, or None."""
    if health.probe_failures >= PROBES_TO_FAIL:
        return f"does not answer its probes ({health.probe_failures} failed in a row)"
    if now < health.ejected_until:
        return f"ejected after repeated failures, for {health.ejected_until - now:.0f} s more"
    return None
