"""Times of day, days of the week and periods: arithmetic on a moment that the caller gives. No clock is read here.

Moments are seconds since 1970, UTC. Time zones come from the caller, since their tables are files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from policies.schema import TimeWindow

Zones = Callable[[str], tzinfo]
"""The zone of an IANA name; raises KeyError or ValueError where there is none."""

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES = 24 * 60


def utc_only(name: str) -> tzinfo:
    """The zones of a caller that has no tables."""
    if name != "UTC":
        raise KeyError(name)
    return UTC


def days(written: Sequence[str]) -> frozenset[int]:
    """Days of the week, Monday 0, from `mon` and `mon-fri`; a span may go over Sunday. Raises ValueError with the
    word that is neither."""
    found: set[int] = set()
    for word in written:
        first, _, last = word.lower().partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(word)
        at, end = DAYS.index(first), DAYS.index(last or first)
        found.add(at)
        while at != end:
            at = (at + 1) % 7
            found.add(at)
    return frozenset(found)


def window_test(window: TimeWindow, zone: tzinfo) -> Callable[[float], bool]:
    """Whether a moment is in the window, on the wall clocks of `zone` (so also across changes of summer time)."""
    allowed = days(window.days) if window.days is not None else frozenset(range(7))
    begin, end = (_minutes(half) for half in (window.between or "00:00-24:00").split("-"))

    def inside(now: float) -> bool:
        local = datetime.fromtimestamp(now, zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if begin < end:
            return begin <= minute < end and day in allowed
        # Over midnight: the hours before it belong to this day, those after it to the day before.
        return (minute >= begin and day in allowed) or (minute < end and (day - 1) % 7 in allowed)

    return inside


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def period_end(per: str, now: float) -> float:
    """When the second, minute, hour, day or month of `now` ends, on the UTC calendar."""
    lengths = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
    if per in lengths:
        return (now // lengths[per] + 1) * lengths[per]
    start = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (start + timedelta(days=32)).replace(day=1).timestamp()


def moment(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time with an offset. Raises ValueError, also where the offset is missing:
    which moment it then means would depend on the machine."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("no offset from UTC")
    return found.timestamp()
