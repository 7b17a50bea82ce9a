"""Why nothing is left, in the terms of whoever can change it: the caller, the policy, or time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from policies.calendar import period_end
from policies.compile import CompiledPolicy
from policies.filters import POLICY_FILTERS
from policies.quotas import Quota
from policies.tenants import Barred
from policies.types import Refusal, RefusalCode, Rejection, Request, Snapshot, Target

_SHORTLY_S = 1.0
_LATER = "try again shortly"
_TEMPORARY: tuple[tuple[frozenset[str], RefusalCode, str], ...] = (
    (frozenset({"limits"}), RefusalCode.OVERLOADED, _LATER),
    (frozenset({"limits", "rate_limit"}), RefusalCode.RATE_LIMITED, "send fewer requests, or try again later"),
    (
        frozenset({"limits", "rate_limit", "budget"}),
        RefusalCode.BUDGET_EXHAUSTED,
        "try again in the next period, or ask who keeps the policy",
    ),
    (
        frozenset({"limits", "rate_limit", "budget", "deadline", "slo"}),
        RefusalCode.DEADLINE_EXCEEDED,
        "give more time (x-slo-latency-ms), or try again when load is lower",
    ),
)
"""Filters that time undoes, the first that explains some backend's removal wholly: the code and what to do."""


def refusal(
    request: Request,
    sent_label: int,
    policy: CompiledPolicy,
    targets: Sequence[Target],
    rejected: Sequence[Rejection],
    quotas: Sequence[Quota],
    snapshot: Snapshot,
    barred: Barred | None,
) -> Refusal:
    """`targets` are the ones that serve the model, `quotas` those that apply."""
    # That a tenant may not use a model is told only of models that there are: of any other the answer is 404.
    if barred is not None and (request.model in policy.models or barred.code is RefusalCode.UNAUTHORIZED):
        return Refusal(*barred)
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
            f"policy leaves no backend for model {request.model} at label {policy.levels[sent_label]} — {reasons}",
            _what_the_caller_can_do(filters),
        )
    code, hint = _temporary(permitted)
    wait: float | None = None
    if code in (RefusalCode.RATE_LIMITED, RefusalCode.BUDGET_EXHAUSTED):
        names = {r.filter for r in rejected} & {"budget", "rate_limit"}
        now = snapshot.now
        ends = [period_end(q.per, now) - now for q in quotas if q.rejects and q.filter in names]
        wait = min(ends, default=_SHORTLY_S) if not snapshot.ledger_lost else _SHORTLY_S
    elif code in (RefusalCode.OVERLOADED, RefusalCode.BACKENDS_UNAVAILABLE) and snapshot.back_in_s:
        permits = (t for t in targets if not filters[t.backend] & POLICY_FILTERS)
        wait = max(_SHORTLY_S, min(snapshot.back_in_s[t.backend_index] for t in permits))
    elif code in (RefusalCode.OVERLOADED, RefusalCode.BACKENDS_UNAVAILABLE):
        wait = _SHORTLY_S
    return Refusal(code, f"no backend can take model {request.model} now — {reasons}", hint, wait)


def _temporary(permitted: Collection[Collection[str]]) -> tuple[RefusalCode, str]:
    for undone, code, hint in _TEMPORARY:
        if any(undone.issuperset(by) for by in permitted):
            return code, hint
    return RefusalCode.BACKENDS_UNAVAILABLE, _LATER


def _not_served(request: Request, policy: CompiledPolicy) -> Refusal:
    serving = [t for t in policy.targets if t.model == request.model]
    if not serving:
        return Refusal(
            RefusalCode.MODEL_NOT_FOUND,
            f"no backend serves model {request.model[:100]!r}",
            f"models here: {', '.join(filter(policy.tenant(request.tenant).may_use, policy.models))}",
        )
    tasks = sorted({task for target in serving for task in target.tasks})
    return Refusal(
        RefusalCode.MODEL_NOT_FOUND,
        f"model {request.model} is not served for {request.task} over this protocol",
        f"it is served for: {', '.join(tasks)}",
    )


def _what_the_caller_can_do(filters: Mapping[str, set[str]]) -> str:
    removed_by = set().union(*filters.values())
    advice = []
    if "clearance" in removed_by:
        advice.append("remove or mask what makes the request sensitive")
    if "capability" in removed_by:
        advice.append("send a shorter input")
    advice.append("choose a model that an allowed backend serves, or ask who keeps the policy")
    return "; ".join(advice)
