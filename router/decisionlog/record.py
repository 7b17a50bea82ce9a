"""What one line of the decision log holds, and a decision made again from it. Facts and names, never a payload."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace

from policies.accounts import Charge
from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.sensitivity.labels import Label
from policies.types import Decision, Request, Snapshot, Value

UNKNOWN_MODEL = "?"
"""Stands for a model that no backend serves: the name is the caller's text, and could be anything."""
MAX_TRACE = 4096
"""Most characters of a trace in a header: clients and proxies stop at 8 KiB for all headers together."""
TRACE_TOO_LARGE = "too-large"


class Decided(Value, frozen=True, gc=False):
    """A decision with all that it was made from."""

    id: str
    request: Request
    label: Label
    snapshot: Snapshot
    decision: Decision
    policy: CompiledPolicy


class Outcome(Value, frozen=True, gc=False, omit_defaults=True):
    """How a request ended. Times in milliseconds."""

    outcome: str
    attempts: int
    ms: float
    backend: str | None = None
    ttft_ms: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd: float | None = None  # of all attempts
    steps: list[dict[str, Any]] | None = None  # the attempts, where there was more than one
    charges: list[Charge] | None = None  # what `cost_usd` is made of
    baseline_usd: float | None = None  # what the answer would have cost in the cloud, where that has the model
    slo_met: bool | None = None  # whether the rule's objective was; None: not for the service to say

    @property
    def baseline(self) -> float:
        """USD that savings are counted against: without a baseline, its own cost, so that nothing is saved."""
        return (self.cost_usd or 0.0) if self.baseline_usd is None else self.baseline_usd


class State(Value, frozen=True, gc=False, omit_defaults=True):
    """What differs from a fleet that is healthy, idle and unmeasured, as the snapshot has it by position. Left out
    is where nothing differs."""

    unavailable: tuple[str | None, ...] = ()
    in_flight: tuple[int, ...] = ()
    latency_ms: tuple[float | None, ...] = ()
    ttft_ms: tuple[float | None, ...] = ()
    growth: tuple[tuple[float, float] | None, ...] = ()
    back_in_s: tuple[float, ...] = ()
    busy: list[str] | None = None  # names of backends
    spent: list[tuple[str, str, str, float]] | None = None  # (quota, unit, key, amount)
    g_per_kwh: tuple[float, ...] = ()
    ledger_lost: bool = False


class Compact(Value, frozen=True, gc=False, omit_defaults=True):
    """A decision in short, exact to the bit: the same of two decisions means the same decision. What is empty is left
    out."""

    label: str
    rule: str
    sent_label: str | None = None  # None: the same
    attempts: list[tuple[str, float]] = msgspec.field(default_factory=list)  # (backend, score); a replay finds others
    constraints: tuple[str, ...] = ()
    rejected: list[tuple[str, str]] = msgspec.field(default_factory=list)  # (backend, filter)
    refusal: str | None = None
    transform: str | None = None
    shadow: str | None = None
    spilled: tuple[str, ...] = ()
    counts_against: list[str] = msgspec.field(default_factory=list)


class Declassified(Value, frozen=True, gc=False, rename={"before": "from"}):
    """The caller had to give a reason. Its text is not kept: it is free, and could quote what it is about."""

    before: str
    reason: bool = True


class Record(Value, frozen=True, gc=False, omit_defaults=True):
    """One line, but for its place in the chain."""

    at: float  # seconds since 1970
    id: str
    policy: str
    request: Request
    raised_by: list[tuple[str, str]]
    state: State
    decision: Compact
    seed: int = 0
    entities: Mapping[str, int] = msgspec.field(default_factory=dict)
    declassified: Declassified | None = None
    outcome: Outcome | None = None
    candidate: dict[str, Any] | None = None  # what the candidate policy would have done


def as_record(decided: Decided, outcome: Outcome | None, candidate: dict[str, Any] | None = None) -> Record:
    policy, decision, label = decided.policy, decided.decision, decided.label
    levels, before = policy.levels, label.declassified_from
    return Record(
        decided.snapshot.now,
        decided.id,
        decision.policy,
        _stated(decided.request, policy),
        [(source, levels[rank]) for source, rank in label.raised_by],
        _state(decided.snapshot, policy),
        compact(decision, policy),
        decision.seed,
        label.entities,
        None if before is None else Declassified(levels[before]),
        outcome,
        candidate,
    )


def compact(decision: Decision, policy: CompiledPolicy) -> Compact:
    levels, refusal, shadow = policy.levels, decision.refusal, decision.shadow
    return Compact(
        levels[decision.label],
        decision.rule,
        None if decision.sent_label == decision.label else levels[decision.sent_label],
        [(c.target.backend, c.score) for c in decision.attempts],
        decision.constraints,
        [(backend, by) for backend, by, _ in decision.rejected if by != "capability"] if decision.rejected else [],
        None if refusal is None else str(refusal.code),
        decision.transform,
        None if shadow is None else shadow.target.backend,
        decision.spilled,
        [policy.quotas[index].name for index in decision.quotas] if decision.quotas else [],
    )


def shown_model(request: Request, policy: CompiledPolicy) -> str:
    return request.model if request.model in policy.model_names else UNKNOWN_MODEL


def trace(decided: Decided) -> str:
    """The decision for the caller's own eyes, as base64 of JSON in a header: what and which, without the reasons."""
    policy, label = decided.policy, decided.label
    raised = [[source, policy.levels[rank]] for source, rank in label.raised_by]
    shown = {"policy": policy.digest, "raised_by": raised, **msgspec.to_builtins(compact(decided.decision, policy))}
    encoded = base64.b64encode(msgspec.json.encode(shown))
    return encoded.decode() if len(encoded) <= MAX_TRACE else TRACE_TOO_LARGE


def _stated(request: Request, policy: CompiledPolicy) -> Request:
    """Without a name that the caller may have invented."""
    if request.model in policy.model_names:
        return request
    route = "/v2/models/?/infer" if request.protocol == "oip" else request.route
    return replace(request, model=UNKNOWN_MODEL, route=route)


def _state(snapshot: Snapshot, policy: CompiledPolicy) -> State:
    unavailable, in_flight, latency_ms = snapshot.unavailable, snapshot.in_flight, snapshot.latency_ms
    spent = None
    if snapshot.spent:
        quotas, used = policy.quotas, snapshot.spent.items()
        spent = [(quotas[i].name, quotas[i].unit, key, amount) for (i, key), amount in used]
    return State(
        unavailable if any(unavailable) else (),
        in_flight if any(in_flight) else (),
        latency_ms if latency_ms.count(None) < len(latency_ms) else (),
        snapshot.ttft_ms,
        snapshot.growth,
        snapshot.back_in_s,
        _busy(snapshot, policy) if True in snapshot.busy or not snapshot.busy else None,
        spent,
        snapshot.g_per_kwh,
        snapshot.ledger_lost,
    )


def _busy(snapshot: Snapshot, policy: CompiledPolicy) -> list[str] | None:
    return sorted({target.backend for target in policy.targets if snapshot.is_busy(target)}) or None


# --- again --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replay:
    request: Request
    decision: Decision
    differences: tuple[str, ...]  # parts of the logged decision that did not come out again; empty: none


def replay(record: Mapping[str, Any], policy: CompiledPolicy) -> Replay:
    """The decision made again from what the record holds, under the policy that made it."""
    made = restored(record, policy)
    logged, again = record["decision"], msgspec.json.decode(msgspec.json.encode(compact(made.decision, policy)))
    # Rules may have matched the name of a model that nobody serves, which is not kept: that it was refused is certain.
    unknown = made.request.model == UNKNOWN_MODEL
    differences = [
        f"{name}: logged {logged.get(name)}, now {again.get(name)}"
        for name in (("refusal",) if unknown else Compact.__struct_fields__)
        if logged.get(name) != again.get(name)
    ]
    return Replay(made.request, made.decision, tuple(differences))


def restored(record: Mapping[str, Any], policy: CompiledPolicy) -> Decided:
    """The decision of a record, with all that it was made from."""
    request, label, snapshot = situation(record, policy)
    decision = decide(request, snapshot, policy, record.get("seed", 0))
    return Decided(record["id"], request, label, snapshot, decision, policy)


def situation(record: Mapping[str, Any], policy: CompiledPolicy) -> tuple[Request, Label, Snapshot]:
    """What a decision was made from. `policy` is the one that made it."""
    request = msgspec.convert(record["request"], Request)
    raised_by = tuple([(source, policy.rank(level)) for source, level in record["raised_by"]])
    before = record.get("declassified", {}).get("from")
    label = Label(request.label, raised_by, record.get("entities", {}), None if before is None else policy.rank(before))
    return request, label, _snapshot_of(record, policy)


def _snapshot_of(record: Mapping[str, Any], policy: CompiledPolicy) -> Snapshot:
    state = msgspec.convert(record["state"], State)
    names, targets = policy.backend_names, len(policy.targets)
    quotas = {(quota.name, quota.unit): quota.index for quota in policy.quotas}
    busy = state.busy or ()
    return Snapshot(
        state.unavailable or (None,) * len(names),
        state.in_flight or (0,) * len(names),
        state.latency_ms or (None,) * targets,
        state.ttft_ms,
        record["at"],
        {(quotas[name, unit], key): amount for name, unit, key, amount in state.spent or ()},
        state.growth,
        tuple([name in busy for name in names]),
        state.ledger_lost,
        state.back_in_s,
        state.g_per_kwh,
    )
