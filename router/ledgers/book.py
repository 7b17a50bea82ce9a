"""What one process knows of one account in one period. Plain arithmetic: whoever calls it brings the time."""

from __future__ import annotations

from policies.quotas import ROUNDING
from router.ledgers.leases import Grant, Report

TICK_S = 0.25
"""How often a process reports, and how long it takes a refusal of the central ledger for granted."""
AHEAD_S = 1.0
"""A lease is asked for so much time at the present rate; half of it is the low-water mark."""
IDLE_S = 2.0
"""An account that nobody has used for so long gives back what it holds."""


class Book:
    """Amounts are in the quota's unit. `granted` bounds what this process uses in the period; alone it is the cap."""

    __slots__ = (
        "_rate", "_rated_at", "_reported", "_taken", "account", "active_at", "asking", "cap", "denied_until",
        "elsewhere", "end", "granted", "hard", "left", "low", "name", "need", "reserved", "reserving", "unit", "used",
    )  # fmt: skip

    def __init__(self, account: str, name: str, unit: str, end: float) -> None:
        self.account, self.name, self.unit, self.end = account, name, unit, end
        self.cap, self.hard = 0.0, True
        self.used = 0.0
        self.reserved, self.reserving = 0.0, 0  # estimates of requests on their way, and how many there are
        self.granted = 0.0
        self.elsewhere = 0.0  # used by other processes, as last heard
        self.left = 0.0  # at the central ledger, as last heard
        self.denied_until = 0.0
        self.asking: dict[int, tuple[float, float]] = {}  # requests that wait: what they need, at least and at most
        self.low = 0.0
        self.need = 0.0  # of a single request, lately
        self.active_at = self._rated_at = 0.0
        self._rate = self._taken = 0.0
        self._reported = 0.0

    @property
    def free(self) -> float:
        """What requests may still be admitted for, without asking anybody."""
        return self.granted - self.used - self.reserved

    @property
    def known(self) -> float:
        """Used or reserved, here and elsewhere, as far as is known."""
        return self.elsewhere + self.used + self.reserved

    def short(self, need: float, now: float) -> bool:
        """Whether to ask before a request that needs so much: not where the answer is known."""
        if self.fits(need) or need > self.cap:
            return False
        return now >= self.denied_until or self.fits(need - self.left)

    def fits(self, need: float) -> bool:
        """Whether a request that needs so much may be admitted."""
        return self.free >= need - self.cap * ROUNDING

    # --- a request --------------------------------------------------------------------------------------------------

    def reserve(self, amount: float, now: float) -> None:
        self.reserved += amount
        self.reserving += 1
        self._use(amount, now)

    def settle(self, reserved: float, amount: float) -> float:
        """Use of what was reserved; what stays reserved of it."""
        taken = min(reserved, amount)
        self.used += amount
        self.reserved -= taken
        return reserved - taken

    def release(self, amount: float) -> None:
        self.reserving -= 1
        # So that nothing of a rounding stays where nothing is reserved.
        self.reserved = max(0.0, self.reserved - amount) if self.reserving else 0.0

    def use(self, amount: float, now: float) -> None:
        self.used += amount
        self._use(amount, now)

    def _use(self, amount: float, now: float) -> None:
        self._taken += amount
        self.need = max(self.need, amount)
        self.active_at = now

    # --- leases -----------------------------------------------------------------------------------------------------

    def report(self, now: float, last: bool = False) -> Report | None:
        """What to tell the central ledger, None where there is nothing new. What is given back is no longer `free` when
        this returns."""
        ahead = 0.0 if last or not self.hard else self._ahead(now)
        self.low = ahead / 2
        held = max(0.0, self.granted - self.used)
        wanted = self.reserved + ahead if self.hard else 0.0
        if not last and self.hard and self.low <= held - self.reserved <= 2 * ahead:
            wanted = held
        least = enough = 0.0
        if self.asking and self.hard and not last:
            least = self.reserved + min(low for low, _ in self.asking.values())
            enough = self.reserved + sum(high for _, high in self.asking.values())
            wanted = max(wanted, enough)
        if self.used == self._reported and wanted == held and not last:
            return None
        self.granted = min(self.granted, self.used + wanted)
        held = max(0.0, self.granted - self.used)
        return Report(self.account, self.end, self.cap, self.used, held, wanted, least, enough, last)

    def granted_by(self, report: Report, grant: Grant, now: float) -> None:
        self._reported = report.used
        self.elsewhere = max(0.0, grant.used - report.used)
        # Never less than before: what is out has been granted, whatever a ledger that forgot it says.
        self.granted = max(self.granted, grant.granted)
        self.left = grant.left
        if grant.granted - report.used < report.wanted:
            self.denied_until = now + TICK_S

    def _ahead(self, now: float) -> float:
        """What the next second will use, as the last ones did."""
        if now - self.active_at > IDLE_S:
            self.need = self._rate = self._taken = 0.0
        elapsed = now - self._rated_at
        if elapsed >= TICK_S:
            self._rate = max(self._taken / elapsed, self._rate * 0.5**elapsed)
            self._taken, self._rated_at = 0.0, now
        return max(self.need, self._rate * AHEAD_S, 2 * self._taken)
