"""What budgets and limits have used in their current period, by this router process; kept in memory."""

from __future__ import annotations

from collections.abc import Mapping

from policies.calendar import period_end
from policies.compile import CompiledPolicy
from policies.quotas import Quota
from policies.types import Decision, Request

_NOTHING: Mapping[tuple[int, str], float] = {}


class Ledger:
    """Counts by (quota, key), each until its period ends. Belongs to one event loop."""

    def __init__(self, policy: CompiledPolicy, previous: Ledger | None = None) -> None:
        """What `previous` counted for a quota of the same name, unit and period goes on counting."""
        self._quotas = policy.quotas
        self._used: dict[tuple[int, str], tuple[float, float]] = {}  # (used, when the period ends)
        known = {_identity(quota): quota.index for quota in policy.quotas}
        for (index, key), counted in previous._used.items() if previous is not None else ():
            now_at = known.get(_identity(previous._quotas[index])) if previous is not None else None
            if now_at is not None:
                self._used[now_at, key] = counted

    def spent(self, request: Request, policy: CompiledPolicy, now: float) -> Mapping[tuple[int, str], float]:
        """What the quotas that may apply to the request have used; what has used nothing is left out."""
        plan = policy.plan(request)
        if not plan.quotas:
            return _NOTHING
        found: dict[tuple[int, str], float] = {}
        for quota in plan.quotas:
            for target in plan.targets if quota.each == "backend" else plan.targets[:1]:
                at = (quota.index, quota.key(request, target.backend))
                used, end = self._used.get(at, (0.0, 0.0))
                if used and now < end:
                    found[at] = used
        return found

    def admit(self, decision: Decision, request: Request, now: float) -> None:
        """Count a request that is about to be sent."""
        self._add(decision, request, "", {"requests": 1.0}, now)

    def charge(self, decision: Decision, request: Request, backend: str, tokens: int, usd: float, now: float) -> None:
        """Count what an answer used."""
        self._add(decision, request, backend, {"tokens": float(tokens), "usd": usd}, now)

    def _add(
        self, decision: Decision, request: Request, backend: str, amounts: Mapping[str, float], now: float
    ) -> None:
        for index in decision.quotas:
            quota = self._quotas[index]
            amount = amounts.get(quota.unit)
            if amount is None or (quota.backends is not None and backend not in quota.backends):
                continue
            at = (index, quota.key(request, backend))
            used, end = self._used.get(at, (0.0, 0.0))
            if now >= end:
                used, end = 0.0, period_end(quota.per, now)
            self._used[at] = (used + amount, end)


def _identity(quota: Quota) -> tuple[str, str, str]:
    return quota.name, quota.unit, quota.per
