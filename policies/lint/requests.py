"""Lints that look at what becomes of requests."""

from __future__ import annotations

from collections.abc import Iterator

from policies.compile import CompiledPolicy
from policies.errors import Problem
from policies.lint.context import Linted
from policies.quotas import budget_name, limit_name
from policies.schema import Budget, Match, RateLimit
from policies.types import Decision, RefusalCode, Request


def constraint_leaves_none(linted: Linted) -> Iterator[Problem]:
    told: set[tuple[str, ...]] = set()
    names = [constraint.name for constraint in linted.policy.constraints]
    for _, request, decision in linted.decided:
        blame = _blamed(request, decision, linted.compiled)
        if not blame or blame in told:
            continue
        told.add(blame)
        others = f" together with {', '.join(blame[1:])}" if len(blame) > 1 else ""
        example = ", ".join(
            [
                f"model {request.model}",
                f"label {linted.compiled.levels[request.label]}",
                *([f"tenant {request.tenant}"] if request.tenant != "anonymous" else []),
                *([f"usage {request.usage}"] if request.usage else []),
            ]
        )
        yield linted.in_policy(
            ("constraints", names.index(blame[0]), "require"),
            "PM102",
            f"constraint '{blame[0]}'{others} leaves no backend for some requests, such as {example}",
        )


def _blamed(request: Request, decision: Decision, policy: CompiledPolicy) -> tuple[str, ...]:
    """The constraints that remove every backend which clearance and capability leave; () where they do not."""
    if decision.refusal is None or decision.refusal.code is not RefusalCode.POLICY_NO_BACKEND:
        return ()
    otherwise = {r.backend for r in decision.rejected if r.filter in ("clearance", "capability", "shadow")}
    left = [target for target in policy.plan(request).targets if target.backend not in otherwise]
    applying = [c for c in policy.constraints if c.name in decision.constraints]
    if not left:
        return ()
    for constraint in applying:
        if all(target.index in constraint.violations for target in left):
            return (constraint.name,)
    return tuple(c.name for c in applying if any(target.index in c.violations for target in left))


def quota_matches_nothing(linted: Linted) -> Iterator[Problem]:
    compiled, policy = linted.compiled, linted.policy
    met = {compiled.quotas[index].name for _, _, decision in linted.decided for index in decision.quotas}
    quotas: list[tuple[str, int, str, Budget | RateLimit]] = []
    quotas += [("budgets", i, budget_name(one, i), one) for i, one in enumerate(policy.budgets)]
    quotas += [("limits", i, limit_name(one, i), one) for i, one in enumerate(policy.limits)]
    for kind, i, name, quota in quotas:
        everything = quota.match == Match() and quota.each is None and getattr(quota, "backend", None) is None
        if everything:
            told = "has no match: all requests of everybody share this one cap"
        elif name not in met:
            told = "matches no request that this fleet serves"
        else:
            continue
        yield linted.in_policy((kind, i), "PM109", f"'{name}' {told}", "give it a `match`, or `each: tenant`")
