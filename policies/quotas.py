"""Budgets and limits, compiled: one mechanism. A quota counts something over a period and knows who counts together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policies.match import CompiledMatch, MatchCompiler, text_test
from policies.schema import Budget, Policy, RateLimit
from policies.types import Request, Target

ROUNDING = 1e-9
"""The share of a cap that sums of amounts may be off by, so that ten cents fit ten times into a dollar."""


@dataclass(frozen=True, slots=True)
class Quota:
    """A cap on `unit` (usd | tokens | requests) in every period."""

    index: int
    name: str
    filter: str  # what a rejection by it is called: budget | rate_limit
    matches: CompiledMatch = field(repr=False)
    backends: frozenset[str] | None  # only what is spent there; None: everywhere
    each: str | None
    unit: str
    cap: float
    per: str
    rejects: bool
    on_loss: str  # of the ledger that is shared: reject | local

    def key(self, request: Request, backend: str) -> str:
        """Who counts together: "" for all."""
        match self.each:
            case "tenant":
                return request.tenant
            case "model":
                return request.model
            case "backend":
                return backend
            case _:
                return ""

    def covers(self, backend: str) -> bool:
        """Whether what is spent there counts."""
        return self.backends is None or backend in self.backends

    def amount(self, tokens: int, cost_usd: float) -> float:
        """What one request uses of it."""
        return cost_usd if self.unit == "usd" else float(tokens) if self.unit == "tokens" else 1.0

    def exhausted(
        self,
        request: Request,
        target: Target,
        cost_usd: float,
        spent: Mapping[tuple[int, str], float],
        ledger_lost: bool = False,
    ) -> str | None:
        """Why the target may not take the request under this quota, or None."""
        if not self.covers(target.backend):
            return None
        used = spent.get((self.index, self.key(request, target.backend)), 0.0)
        if used + self.amount(request.tokens_in + request.tokens_out, cost_usd) <= self.cap * (1 + ROUNDING):
            return None
        if ledger_lost and self.on_loss == "reject":
            return f"{self.name}: the ledger does not answer, and too little is leased here"
        return f"{self.name}: {_shown(used, self.unit)} of {_shown(self.cap, self.unit)} used in this {self.per}"


def _shown(amount: float, unit: str) -> str:
    return f"${amount:.6g}" if unit == "usd" else f"{amount:.0f} {unit}"


def budget_name(budget: Budget, index: int) -> str:
    return budget.name or f"budgets[{index}]"


def limit_name(limit: RateLimit, index: int) -> str:
    return limit.name or f"limits[{index}]"


def compile_quotas(policy: Policy, backends: Sequence[str], compiler: MatchCompiler) -> tuple[Quota, ...]:
    quotas: list[Quota] = []
    for i, budget in enumerate(policy.budgets):
        covered = None
        if budget.backend is not None:
            covers = text_test(budget.backend)
            covered = frozenset(name for name in backends if covers(name))
        unit, cap = ("usd", budget.usd) if budget.usd is not None else ("tokens", budget.tokens)
        quotas.append(
            Quota(
                len(quotas), budget_name(budget, i), "budget", compiler.match(budget.match), covered,
                budget.each, unit, float(cap or 0), budget.per, budget.on_exhausted == "reject",
                budget.on_ledger_loss,
            )
        )  # fmt: skip
    for i, limit in enumerate(policy.limits):
        for unit, most in (("requests", limit.requests), ("tokens", limit.tokens)):
            if most is not None:
                quotas.append(
                    Quota(
                        len(quotas), limit_name(limit, i), "rate_limit", compiler.match(limit.match), None,
                        limit.each, unit, float(most), limit.per, True, limit.on_ledger_loss,
                    )
                )  # fmt: skip
    return tuple(quotas)
