"""What budgets and limits have used in a simulation."""

from __future__ import annotations

from collections.abc import Mapping

from policies.calendar import period_end
from policies.compile import CompiledPolicy
from policies.quotas import Quota
from policies.types import Decision, Request, Target


class Spending:
    """Of one policy's quotas. An answer counts when its request arrives."""

    def __init__(self, quotas: tuple[Quota, ...]) -> None:
        self._quotas = quotas
        self._ends = [0.0] * len(quotas)
        self._used: dict[tuple[int, str], float] = {}

    @property
    def used(self) -> Mapping[tuple[int, str], float]:
        """As a snapshot has it, for one decision: it goes on changing."""
        return self._used

    def begin(self, now: float) -> None:
        """Forget what earlier periods have used."""
        for quota in self._quotas:
            if now >= self._ends[quota.index]:
                self._ends[quota.index] = period_end(quota.per, now)
                for at in [at for at in self._used if at[0] == quota.index]:
                    del self._used[at]

    def know(
        self, request: Request, policy: CompiledPolicy, amounts: Mapping[tuple[int, str], float], then: float
    ) -> None:
        """What had been used `then`, when the first request came that counts against it in its period; what came after
        it, the simulation counts itself."""
        for quota in policy.plan(request).quotas:
            known = then < self._ends[quota.index] and period_end(quota.per, then) == self._ends[quota.index]
            for name in policy.backend_names if quota.each == "backend" else ("",):
                at = quota.index, quota.key(request, name)
                if at not in self._used:
                    self._used[at] = amounts.get(at, 0.0) if known else 0.0

    def admit(self, decision: Decision, request: Request) -> None:
        for index in decision.quotas:
            if self._quotas[index].unit == "requests":
                self._add(index, self._quotas[index].key(request, ""), 1.0)

    def charge(self, decision: Decision, request: Request, target: Target, tokens: int, usd: float) -> None:
        for index in decision.quotas:
            quota = self._quotas[index]
            if quota.unit != "requests" and quota.covers(target.backend):
                self._add(index, quota.key(request, target.backend), quota.amount(tokens, usd))

    def _add(self, index: int, key: str, amount: float) -> None:
        self._used[index, key] = self._used.get((index, key), 0.0) + amount
