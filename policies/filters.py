"""Filters: may this target take this request? None keeps it; a sentence rejects it and says why.

To add one: write the function, put it in FILTERS. A filter looks at one target only, never at the others, so
that adding or removing a backend cannot change what another may do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from policies import estimate
from policies.generated import function
from policies.quotas import Quota
from policies.schema import Slo
from policies.types import Bounds, Request, Snapshot, Target, Value


class Context(Value, frozen=True, gc=False):
    """What a filter may look at besides the target."""

    request: Request
    label: int  # of what will leave
    snapshot: Snapshot
    levels: tuple[str, ...]
    violations: tuple[Mapping[int, str], ...]  # of each constraint that applies: target index -> why not
    slo: Slo | None
    quotas: tuple[Quota, ...]  # budgets and limits that apply
    bounds: Bounds  # of the targets that are asked
    barred: str | None = None  # why the tenant may not make such a request at all
    batch: bool = False  # may wait, and leaves room for those that may not


class Filter(Protocol):
    def __call__(self, target: Target, context: Context, /) -> str | None: ...


# The first sentence of each is what the reference says of it.
def tenant(target: Target, context: Context) -> str | None:
    """The tenant may not use the model, or state this use."""
    return context.barred


def capability(target: Target, context: Context) -> str | None:
    """It does not serve the model for this task over this API, or takes fewer tokens than input and answer have."""
    request, limit = context.request, target.context_tokens
    if limit is not None and request.tokens_in + request.tokens_out > limit:
        return f"about {request.tokens_in} input tokens and {request.tokens_out} to answer, it takes {limit} together"
    return None


def clearance(target: Target, context: Context) -> str | None:
    """The request's label is above its clearance."""
    label = context.label
    if label > target.clearance:
        levels = context.levels
        return f"label {levels[label]} is above its clearance {levels[target.clearance]}"
    return None


def constraint(target: Target, context: Context) -> str | None:
    """A constraint that applies requires something else of it."""
    found = [violated[target.index] for violated in context.violations if target.index in violated]
    return "; ".join(found) if found else None


def health(target: Target, context: Context) -> str | None:
    """It failed too often or does not answer probes, and is kept out for a time."""
    return context.snapshot.unavailable[target.backend_index]


def limits(target: Target, context: Context) -> str | None:
    """It is full: `max_in_flight` requests are being served and `max_queued` (half of it for a batch) are waiting; or
    it said that it has too much to do, and for how long (`retry-after`)."""
    in_flight = context.snapshot.in_flight[target.backend_index]
    queued = target.max_queued // 2 if context.batch else target.max_queued
    snapshot = context.snapshot
    if snapshot.back_in_s and snapshot.unavailable[target.backend_index] is None:
        held_s = snapshot.back_in_s[target.backend_index]
        if held_s > 0:
            return f"asked not to be asked for {held_s:.0f} s more"
    if in_flight >= target.max_in_flight + queued:
        return f"full: {target.max_in_flight} in flight and {queued} queued"
    return None


def budget(target: Target, context: Context) -> str | None:
    """A budget with `on_exhausted: reject` covers it, and has too little left for this request."""
    return _exhausted("budget", target, context)


def rate_limit(target: Target, context: Context) -> str | None:
    """A limit of requests or tokens is reached."""
    return _exhausted("rate_limit", target, context)


def _exhausted(kind: str, target: Target, context: Context) -> str | None:
    if not context.quotas:
        return None
    request, spent, lost = context.request, context.snapshot.spent, context.snapshot.ledger_lost
    cost = estimate.cost_usd(target, request.tokens_in, request.tokens_out)
    found = [
        reason
        for quota in context.quotas
        if quota.filter == kind and quota.rejects and (reason := quota.exhausted(request, target, cost, spent, lost))
    ]
    return "; ".join(found) if found else None


def deadline(target: Target, context: Context) -> str | None:
    """It is expected to answer after the deadline: the first token of a stream, the whole of any other answer."""
    given = context.request.deadline_ms
    if given is None:
        return None
    request, snapshot = context.request, context.snapshot
    expected = estimate.ttft_ms(target, snapshot) if request.stream else estimate.latency_ms(target, request, snapshot)
    return f"expected {expected:.0f} ms, the deadline is {given:.0f} ms" if expected > given else None


def slo(target: Target, context: Context) -> str | None:
    """The rule's `slo` says `on_miss: reject`, and it is expected to miss the objective."""
    wanted = context.slo
    if wanted is None or wanted.on_miss != "reject":
        return None
    return slo_missed(
        wanted,
        context.request.stream,
        estimate.latency_ms(target, context.request, context.snapshot),
        estimate.ttft_ms(target, context.snapshot),
    )


def slo_missed(wanted: Slo, stream: bool, latency_ms: float, ttft_ms: float) -> str | None:
    """Which part of the objective these estimates miss, or None. Time to first token is asked of streams only."""
    if wanted.latency_ms is not None and latency_ms > wanted.latency_ms:
        return f"expected {latency_ms:.0f} ms, the objective is {wanted.latency_ms:.0f} ms"
    if stream and wanted.ttft_ms is not None and ttft_ms > wanted.ttft_ms:
        return f"expected first token after {ttft_ms:.0f} ms, the objective is {wanted.ttft_ms:.0f} ms"
    return None


FILTERS: tuple[tuple[str, Filter], ...] = (
    ("tenant", tenant),
    ("capability", capability),
    ("clearance", clearance),
    ("constraint", constraint),
    ("health", health),
    ("limits", limits),
    ("budget", budget),
    ("rate_limit", rate_limit),
    ("deadline", deadline),
    ("slo", slo),
)
"""Every filter, in the order their reasons are told. All of them run: one removal does not hide another."""

SILENT: Mapping[str, str] = {
    "tenant": "context.barred is None",
    "capability": "context.bounds.context_tokens is None"
    " or context.request.tokens_in + context.request.tokens_out <= context.bounds.context_tokens",
    "clearance": "context.label <= context.bounds.clearance",
    "constraint": "not context.violations",
    "health": "not any(context.snapshot.unavailable)",
    "limits": "not any(context.snapshot.back_in_s) and max(context.snapshot.in_flight, default=0)"
    " < (context.bounds.batch_places if context.batch else context.bounds.places)",
    "budget": "not context.quotas",
    "rate_limit": "not context.quotas",
    "deadline": "context.request.deadline_ms is None",
    "slo": "context.slo is None or context.slo.on_miss != 'reject'",
}
"""Filters of which it can be told without asking for each target that they reject none: where this holds, in Python
over `context`. Only time is saved by it: a filter that is not here is always asked."""
_COVERED = SILENT.keys() == {name for name, _ in FILTERS}
_silent = {name: function(name, "context", f"return {holds}", {}) for name, holds in SILENT.items()}
_all_silent = function("all_silent", "context", f"return {' and '.join(f'({one})' for one in SILENT.values())}", {})


def asked(context: Context) -> Sequence[tuple[str, Filter]]:
    """The filters that may reject something. Nearly always none, which takes one look."""
    if _COVERED and _all_silent(context):
        return ()
    return [(name, check) for name, check in FILTERS if name not in SILENT or not _silent[name](context)]


POLICY_FILTERS = frozenset({"tenant", "capability", "clearance", "constraint", "shadow"})
"""What the policy decides and waiting or trying again will not change."""
