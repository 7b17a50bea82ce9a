"""What a central ledger knows, and how a report changes it. Pure: the clock is an argument, no value is changed.

All numbers of a holder add up over the period, so that a report that comes twice, late or not at all counts right. What
a holder was granted counts as spent until it says otherwise: one that dies takes its lease with it, and never more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from policies.quotas import ROUNDING

SPREAD = 4
"""A lease is at most 1/SPREAD of a holder's equal share of what is left, so leases shrink towards the limit."""
GRACE_S = 60.0
"""How long after its end a period is still known, for reports that are late and clocks that differ."""


class Report(NamedTuple):
    """What one process says of one account (a quota and a key) in one period. Amounts are in the quota's unit."""

    account: str
    end: float  # of the period, seconds since 1970: each period is counted by itself
    cap: float
    used: float  # by this process in this period so far
    held: float  # what it holds beyond that. Never more than it was granted: what it gives back it stops using first
    wanted: float  # what it wants to hold beyond what it has used
    least: float  # the same, if one waiting request is to go on
    enough: float  # the same, if all of them are
    last: bool = False  # the process ends


class Grant(NamedTuple):
    """The answer: what a process may have used at most, and what is known of all of them."""

    granted: float
    used: float  # by all processes, as they have reported
    left: float  # neither used nor leased


class Holder(NamedTuple):
    granted: float = 0.0
    used: float = 0.0
    seq: int = 0  # of its latest report


@dataclass(frozen=True, slots=True)
class Cell:
    """One account in one period."""

    holders: Mapping[str, Holder] = field(default_factory=dict)
    gone: float = 0.0  # spent by processes that have ended

    @property
    def used(self) -> float:
        return self.gone + sum(holder.used for holder in self.holders.values())

    @property
    def committed(self) -> float:
        """Used or leased: what nobody else may have."""
        return self.gone + sum(max(holder.granted, holder.used) for holder in self.holders.values())


_NOBODY = Holder()


def fold(cell: Cell, replica: str, seq: int, report: Report, now: float) -> tuple[Cell, Grant]:
    """The cell after a report, and the answer. `seq` rises with every report of a process: one that is late changes
    nothing. Never grants anything in a period that has been over for GRACE_S."""
    before = cell.holders.get(replica, _NOBODY)
    if now >= report.end + GRACE_S:
        return cell, Grant(report.used + min(report.held, report.wanted), cell.used, 0.0)
    if seq <= before.seq:
        return cell, Grant(before.granted, cell.used, max(0.0, report.cap - cell.committed))
    used = max(before.used, report.used)
    # The second term tells a ledger that has lost its memory what is out.
    granted = max(before.granted, report.used + report.held, used)
    target = used + report.wanted
    others = cell.committed - max(before.granted, before.used)
    if target <= granted:
        granted = target
    else:
        left = max(0.0, report.cap - others - granted)
        granted += min(target - granted, left, max(_share(left, cell, replica), _floor(left, granted - used, report)))
    holders = {**cell.holders, replica: Holder(granted, used, seq)}
    gone = cell.gone
    if report.last:
        del holders[replica]
        gone += granted
    after = Cell(holders, gone)
    return after, Grant(granted, after.used, max(0.0, report.cap - after.committed))


def _share(left: float, cell: Cell, replica: str) -> float:
    return left / (SPREAD * len({*cell.holders, replica}))


def _floor(left: float, held: float, report: Report) -> float:
    """What requests wait for, where there is so much: a share of little would be no use to anybody. A request that is
    too large for what is left gets nothing held for it."""
    for amount in (report.enough, report.least):
        if amount - held <= left + report.cap * ROUNDING:
            return amount - held
    return 0.0
