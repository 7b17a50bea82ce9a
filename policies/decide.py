"""The one place where a choice is made.

Constraints say where a request may go: all that match apply, and they only remove. The first rule that matches
says what to prefer. Filters reject with reasons, scorers score, the picker ranks. The result is the trace.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.compile import CompiledPolicy, CompiledRule
from policies.estimate import estimate
from policies.filters import FILTERS, POLICY_FILTERS, Context
from policies.pickers import best_score
from policies.schema import Fallback
from policies.types import (
    Candidate,
    Decision,
    Refusal,
    RefusalCode,
    Rejection,
    Request,
    Snapshot,
    Target,
)


def decide(request: Request, snapshot: Snapshot, policy: CompiledPolicy, seed: int = 0) -> Decision:
    """Where `request` goes under `policy`, given the fleet's state. The same arguments give the same decision."""
    plan = policy.plan(request)
    # The last rule of a plan needs nothing more to match, so there is always one.
    rule = next(rule for rule in plan.rules if rule.matches.dynamic is None or rule.matches.dynamic(request))
    applying = [c for c in plan.constraints if c.matches.dynamic is None or c.matches.dynamic(request)]
    context = Context(request, snapshot, policy.levels, tuple([c.violations for c in applying]), rule.slo)
    rejected = list(plan.rejections)
    kept: list[Candidate] = []
    for target in plan.targets:
        allowed = True
        for name, check in FILTERS:
            reason = check(target, context)
            if reason is not None:
                rejected.append(Rejection(target.backend, name, reason))
                allowed = False
        if allowed:
            kept.append(_score(target, request, snapshot, rule))
    ranked = best_score(kept, seed, request.id)
    if rule.slo is not None:
        ranked = _meeting_first(ranked, rule.slo.latency_ms)
    return Decision(
        request.id,
        policy.digest,
        seed,
        request.label,
        rule.name,
        rule.objective,
        tuple([constraint.name for constraint in applying]),
        ranked,
        _attempts(ranked, rule.fallback, request.no_fallback),
        tuple(rejected),
        None if ranked else _refusal(request, policy, plan.targets, rejected),
    )


def _score(target: Target, request: Request, snapshot: Snapshot, rule: CompiledRule) -> Candidate:
    expected = estimate(target, request, snapshot)
    values = tuple([scorer(target, expected, snapshot) for scorer in rule.scorers])
    score = sum([weight * value for (_, weight), value in zip(rule.objective, values, strict=True)])
    return Candidate(target, score, values, expected)


def _meeting_first(ranked: Sequence[Candidate], objective_ms: float) -> tuple[Candidate, ...]:
    """Candidates expected to meet the objective before those that are not, each group in its order."""
    meets = [c for c in ranked if c.estimate.latency_ms <= objective_ms]
    misses = [c for c in ranked if c.estimate.latency_ms > objective_ms]
    return (*meets, *misses)


def _attempts(ranked: Sequence[Candidate], fallback: Fallback, no_fallback: bool) -> tuple[Candidate, ...]:
    if not ranked:
        return ()
    first, rest = ranked[0], ranked[1:]
    if no_fallback or fallback.scope == "none":
        return (first,)
    if fallback.scope == "same_tier":
        rest = [c for c in rest if c.target.tier == first.target.tier]
    elif fallback.scope == "same_region":
        rest = [c for c in rest if c.target.region == first.target.region]
    return (first, *rest)[: fallback.attempts]


def _refusal(
    request: Request, policy: CompiledPolicy, targets: Sequence[Target], rejected: Sequence[Rejection]
) -> Refusal:
    """Why nothing is left, in the terms of whoever can change it: the caller, the policy, or time."""
    if not targets:
        return _not_served(request, policy)
    filters: dict[str, set[str]] = {target.backend: set() for target in targets}
    for rejection in rejected:
        if rejection.backend in filters:
            filters[rejection.backend].add(rejection.filter)
    reasons = "; ".join(f"{r.backend}: {r.reason} ({r.filter})" for r in rejected if r.backend in filters)
    permitted = [by for by in filters.values() if not by & POLICY_FILTERS]
    if not permitted:
        return Refusal(
            RefusalCode.POLICY_NO_BACKEND,
            f"policy leaves no backend for model {request.model} at label {policy.levels[request.label]} — {reasons}",
            _what_the_caller_can_do(filters),
        )
    if any(by == {"limits"} for by in permitted):
        code, hint = RefusalCode.OVERLOADED, "try again shortly"
    elif any("health" not in by for by in permitted):
        code, hint = (
            RefusalCode.DEADLINE_EXCEEDED,
            "give more time (x-slo-latency-ms), or try again when load is lower",
        )
    else:
        code, hint = RefusalCode.BACKENDS_UNAVAILABLE, "try again shortly"
    return Refusal(code, f"no backend can take model {request.model} now — {reasons}", hint)


def _not_served(request: Request, policy: CompiledPolicy) -> Refusal:
    serving = [t for t in policy.targets if t.model == request.model]
    if not serving:
        return Refusal(
            RefusalCode.MODEL_NOT_FOUND,
            f"no backend serves model {request.model[:100]!r}",
            f"models here: {', '.join(policy.models)}",
        )
    tasks = sorted({task for target in serving for task in target.tasks})
    return Refusal(
        RefusalCode.MODEL_NOT_FOUND,
        f"model {request.model} is not served for {request.task} over this protocol",
        f"it is served for: {', '.join(tasks)}",
    )


def _what_the_caller_can_do(filters: dict[str, set[str]]) -> str:
    removed_by = set().union(*filters.values())
    advice = []
    if "clearance" in removed_by:
        advice.append("remove or mask what makes the request sensitive")
    if "capability" in removed_by:
        advice.append("send a shorter input")
    advice.append("choose a model that an allowed backend serves, or ask who keeps the policy")
    return "; ".join(advice)
