"""The one place where a choice is made.

Constraints say where a request may go: all that match apply, and they only remove. The first rule that matches
says what to prefer. Filters reject with reasons, scorers score, the picker ranks. The result is the trace.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.compile import CompiledConstraint, CompiledPolicy, CompiledRule
from policies.estimate import estimates
from policies.filters import Context, asked, slo_missed
from policies.pickers import best_score, drawn, weighted_split
from policies.refusals import refusal
from policies.schema import Fallback, Shadow, Slo
from policies.types import Candidate, Decision, Rejection, Request, Snapshot, Target


def decide(request: Request, snapshot: Snapshot, policy: CompiledPolicy, seed: int = 0) -> Decision:
    """Where `request` goes under `policy`, given the fleet's state. The same arguments give the same decision."""
    plan, now = policy.plan(request), snapshot.now
    # The last rule of a plan needs nothing more to match, so there is always one.
    for rule in plan.rules:
        holds = rule.matches.dynamic
        if holds is None or holds(request, now):
            break
    applying = [c for c in plan.constraints if c.matches.dynamic is None or c.matches.dynamic(request, now)]
    quotas = tuple([q for q in plan.quotas if q.matches.dynamic is None or q.matches.dynamic(request, now)])
    barred = policy.tenant(request.tenant).barred(request)
    masked = rule.transform is not None and request.masked_label is not None
    label = min(request.label, request.masked_label or 0) if masked else request.label
    context = Context(
        request,
        label,
        snapshot,
        policy.levels,
        tuple([c.violations for c in applying]),
        rule.slo,
        quotas,
        plan.bounds,
        barred.reason if barred is not None else None,
        rule.priority == "batch",
    )
    rejected = list(plan.rejections)
    allowed = _allowed(plan.targets, context, rejected)
    kept = rule.score(allowed, estimates(allowed, request, snapshot), snapshot)
    copied = None
    if rule.shadow is not None:
        copied = _set_aside(rule.shadow, rule.name, kept, rejected)
        if not drawn(rule.shadow.share, seed, request.id, rule.shadow.backend):
            copied = None
    ranked, spilled = _spill(_rank(kept, rule, request, snapshot, seed), rule, snapshot)
    return Decision(
        request.id,
        policy.digest,
        seed,
        request.label,
        label,
        rule.name,
        rule.objective,
        tuple([constraint.name for constraint in applying]),
        "score" if rule.split is None else "split",
        ranked,
        _attempts(ranked, rule.fallback, request.no_fallback),
        tuple(rejected),
        None if ranked else refusal(request, label, policy, plan.targets, rejected, quotas, snapshot, barred),
        rule.transform if masked else None,
        rule.strategy,
        copied,
        tuple([quota.index for quota in quotas]),
        _notices(rule, applying, plan.targets),
        rule.priority,
        spilled,
        rule.fallback.resume,
        rule.slo,
        rule.fallback.retry_share,
        plan.baselines,
    )


def _allowed(targets: Sequence[Target], context: Context, rejected: list[Rejection]) -> Sequence[Target]:
    """The targets that every filter keeps. Why the others are not among them is added to `rejected`."""
    filters = asked(context)
    if not filters:
        return targets
    allowed: list[Target] = []
    for target in targets:
        before = len(rejected)
        for name, check in filters:
            reason = check(target, context)
            if reason is not None:
                rejected.append(Rejection(target.backend, name, reason))
        if len(rejected) == before:
            allowed.append(target)
    return allowed


def _set_aside(shadow: Shadow, rule: str, kept: list[Candidate], rejected: list[Rejection]) -> Candidate | None:
    """Take the backend that gets copies out of those that may answer; it has passed every filter, or is not there."""
    for candidate in kept:
        if candidate.target.backend == shadow.backend:
            kept.remove(candidate)
            rejected.append(Rejection(shadow.backend, "shadow", f"gets copies only, as rule {rule} says"))
            return candidate
    return None


def _rank(
    kept: Sequence[Candidate], rule: CompiledRule, request: Request, snapshot: Snapshot, seed: int
) -> tuple[Candidate, ...]:
    ranked = best_score(kept, seed, request.id)
    if rule.split is not None:
        sticky = {"session": request.session, "tenant": request.tenant}.get(rule.split.sticky) or request.id
        ranked = weighted_split(ranked, rule.split.weights, seed, sticky)
    if rule.slo is not None:
        ranked = _meeting_first(ranked, rule.slo, request.stream, snapshot)
    return ranked


def _spill(
    ranked: tuple[Candidate, ...], rule: CompiledRule, snapshot: Snapshot
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Those with room before those that are full, where the rule wants that; and who was moved behind."""
    if rule.spill == "never" or rule.split is not None or not ranked or not snapshot.is_busy(ranked[0].target):
        return ranked, ()
    free = [candidate for candidate in ranked if not snapshot.is_busy(candidate.target)]
    if not free:
        return ranked, ()
    full = [candidate for candidate in ranked if snapshot.is_busy(candidate.target)]
    ahead = ranked.index(free[0])
    return (*free, *full), tuple([candidate.target.backend for candidate in ranked[:ahead]])


_RELIEVED = 0.8


def _meeting_first(ranked: Sequence[Candidate], slo: Slo, stream: bool, snapshot: Snapshot) -> tuple[Candidate, ...]:
    """Candidates expected to meet the objective before those that are not, each group in its order. One that has been
    full must meet it with some room to spare, or requests would swing to and fro."""
    meets: list[Candidate] = []
    misses: list[Candidate] = []
    for candidate in ranked:
        expected = candidate.estimate
        slack = _RELIEVED if snapshot.is_busy(candidate.target) else 1.0
        missed = slo_missed(slo, stream, expected.latency_ms / slack, expected.ttft_ms / slack)
        (meets if missed is None else misses).append(candidate)
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


def _notices(rule: CompiledRule, applying: Sequence[CompiledConstraint], targets: Sequence[Target]) -> tuple[str, ...]:
    """What the caller is told: by the rule, and by the constraints that kept the request from some backend."""
    if rule.notice is None and not applying:
        return ()
    told = [rule.notice] if rule.notice is not None else []
    for constraint in applying:
        if constraint.notice is not None and any(target.index in constraint.violations for target in targets):
            told.append(constraint.notice)
    return tuple(told)
