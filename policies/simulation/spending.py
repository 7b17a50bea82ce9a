"""What budgets and limits have used in a simulation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policies.calendar import period_end
from policies.quotas import Quota
from policies.types import Decision, Request, Target


class Spending:
    """Of one policy's quotas. An answer counts when its request arrives."""

    def __init__(self, quotas: tuple[Quota, ...]) -> None:
        self._quotas = quotas
        self._ends = [0.0] * len(quotas)
        self._used: dict[tuple[int, str], float] = {}

    def at(self, now: float) -> Mapping[tuple[int, str], float]:
        """As a snapshot has it: what the period of `now` has used so far."""
        for quota in self._quotas:
            if now >= self._ends[quota.index]:
                self._ends[quota.index] = period_end(quota.per, now)
                for at in [at for at in self._used if at[0] == quota.index]:
                    del self._used[at]
        return self._used

    def begin_with(self, amounts: Iterable[tuple[tuple[int, str], float]]) -> None:
        """What the period had used before the first request that counts against it."""
        for at, amount in amounts:
            self._used.setdefault(at, amount)

    def admit(self, decision: Decision, request: Request) -> None:
        for index in decision.quotas:
            if self._quotas[index].unit == "requests":
                self._add(index, self._quotas[index].key(request, ""), 1.0)

    def charge(self, decision: Decision, request: Request, target: Target, tokens: int, usd: float) -> None:
        for index in decision.quotas:
            quota = self._quotas[index]
            if quota.unit != "requests" and (quota.backends is None or target.backend in quota.backends):
                self._add(index, quota.key(request, target.backend), quota.amount(tokens, usd))

    def _add(self, index: int, key: str, amount: float) -> None:
        self._used[index, key] = self._used.get((index, key), 0.0) + amount
