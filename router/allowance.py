"""What may be sent beyond the requests themselves, as a share of them: retries and hedges. Never a count per request:
when everything fails, that many times the load is what would keep it failing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Allowance:
    """Every request adds `share`; every extra attempt takes one. What is not used is kept up to `burst`."""

    share: float
    burst: float = 10.0
    left: float = 1.0  # the first requests, too, may have one extra attempt

    def earn(self) -> None:
        self.left = min(self.left + self.share, self.burst)

    @property
    def available(self) -> bool:
        return self.share > 0 and self.left >= 1.0

    def take(self) -> bool:
        """Whether there is one; it is gone then."""
        if not self.available:
            return False
        self.left -= 1.0
        return True
