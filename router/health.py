"""Whether a backend may be used: a pure state machine, `(state, event, now, settings) -> state`.

Failures in a row, or too large a share of the latest answers, eject it, for longer each time. When the time is up it is
on trial (half-open): one request at a time, of which one failure ejects it again and one success acquits it; then it
gets more and more (slow start). Two failed probes in a row take it out until a probe succeeds.
"""

from __future__ import annotations

import math
from enum import Enum

from msgspec.structs import replace

from policies.schema import Ejection
from policies.types import Value

PROBES_TO_FAIL = 2
_WEIGHT = 0.1  # of the newest answer in the share of failures: about the last twenty count
_FEW = 20  # answers, before which a share says little
USUAL = Ejection()


class Event(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    PROBE_OK = "probe_ok"
    PROBE_FAILED = "probe_failed"


class Health(Value, frozen=True, gc=False):
    failures: int = 0  # in a row
    share: float = 0.0  # of failures among the latest answers
    answers: int = 0  # since it was last kept out
    ejections: int = 0  # in a row, without a success between
    ejected_until: float = 0.0  # seconds on the clock that `now` is read from
    returned_at: float = -math.inf  # when it was last acquitted
    probe_failures: int = 0  # in a row
    seen: bool = False  # whether it has ever answered anything


def step(health: Health, event: Event, now: float, settings: Ejection = USUAL) -> Health:
    match event:
        case Event.SUCCESS:
            if ejected(health, now):  # of a request that was on its way already
                return replace(health, failures=0, probe_failures=0, seen=True)
            returned = now if health.ejections else health.returned_at
            return Health(0, health.share * (1 - _WEIGHT), health.answers + 1, 0, 0.0, returned, 0, True)
        case Event.PROBE_OK:
            return replace(health, probe_failures=0, seen=True)
        case Event.PROBE_FAILED:
            return replace(health, probe_failures=health.probe_failures + 1)
        case Event.FAILURE:
            if ejected(health, now):  # likewise: those who fail together eject it once
                return health
            share = health.share + _WEIGHT * (1 - health.share)
            failed = replace(health, failures=health.failures + 1, share=share, answers=health.answers + 1)
            often = failed.answers >= _FEW and share > settings.failure_share
            if failed.failures < settings.failures and not often and not _on_trial(health, now):
                return failed
            length = min(settings.first_s * 2 ** min(health.ejections, 30), settings.longest_s)
            ejections, until = health.ejections + 1, now + length
            return replace(failed, failures=0, share=0.0, answers=0, ejections=ejections, ejected_until=until)


STATES = ("available", "slow_start", "on_trial", "held", "ejected", "unreachable")
"""What `condition` may say, and "held": it asked to be left alone."""


def condition(health: Health, now: float, settings: Ejection = USUAL) -> str:
    """Its state in a word."""
    if health.probe_failures >= PROBES_TO_FAIL:
        return "unreachable"
    if ejected(health, now):
        return "ejected"
    if _on_trial(health, now):
        return "on_trial"
    return "slow_start" if now - health.returned_at < settings.slow_start_s else "available"


def spared(health: Health) -> Health:
    """Not ejected after all, because too many others are: the next failure tries it again."""
    return replace(health, ejections=max(health.ejections - 1, 0), ejected_until=0.0)


def ejected(health: Health, now: float) -> bool:
    return now < health.ejected_until


def had_trouble(health: Health) -> bool:
    """Whether it was ever kept out, or failed its latest probe: of any other it is known that it may be used."""
    return health.returned_at >= 0 or bool(health.ejections or health.probe_failures)


def _on_trial(health: Health, now: float) -> bool:
    return health.ejections > 0 and now >= health.ejected_until


def room(health: Health, now: float, capacity: int, settings: Ejection = USUAL) -> int:
    """How many requests it may have at once, where health alone decides."""
    if _on_trial(health, now):
        return 1
    since = now - health.returned_at
    if since >= settings.slow_start_s:
        return capacity
    return 1 + int((capacity - 1) * since / settings.slow_start_s)


def unavailable(
    health: Health, now: float, in_flight: int = 0, capacity: int = 1 << 30, settings: Ejection = USUAL
) -> str | None:
    """Why it must not be used now, or None."""
    if health.probe_failures >= PROBES_TO_FAIL:
        return f"does not answer its probes ({health.probe_failures} failed in a row)"
    if ejected(health, now):
        return f"ejected after repeated failures, for {health.ejected_until - now:.0f} s more"
    if (
        in_flight
        and in_flight >= (allowed := room(health, now, capacity, settings))
        and (allowed < capacity or _on_trial(health, now))
    ):
        return f"back after an ejection, with {allowed} at a time so far"
    return None
