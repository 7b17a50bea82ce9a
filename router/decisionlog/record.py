"""What one line of the decision log holds, and a decision made again from it. Facts and names, never a payload."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict

from policies.accounts import Charge
from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.sensitivity.labels import Label
from policies.types import Decision, Request, Snapshot, Value

T = TypeVar("T")

UNKNOWN_MODEL = "?"
"""Stands for a model that no backend serves: the name is the caller's text, and could be anything."""
MAX_TRACE = 4096
"""Most characters of a trace in a header: clients and proxies stop at 8 KiB for all headers together."""
TRACE_TOO_LARGE = "too-large"
_RANKED = 4
"""How many candidates a record has the scores of. In a large fleet all of them would be most of it."""


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


class Stated(Value, frozen=True, gc=False, omit_defaults=True):
    """A request: what differs from one about which nothing is known. Levels by their names."""

    id: str
    model: str
    task: str
    label: str
    protocol: str = "openai"
    tenant: str = "anonymous"
    usage: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    body_bytes: int = 0
    deadline_ms: float | None = None
    stream: bool = False
    no_fallback: bool = False
    route: str = ""
    session: str = ""
    caller_region: str = ""
    masked_label: str | None = None
    entities: list[str] | None = None
    headers: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None


class State(Value, frozen=True, gc=False, omit_defaults=True):
    """What differs from a fleet that is healthy, idle and unmeasured. By names of backends, or of targets."""

    unavailable: dict[str, str] | None = None
    in_flight: dict[str, int] | None = None
    latency_ms: dict[str, float] | None = None
    ttft_ms: dict[str, float] | None = None
    growth: dict[str, tuple[float, float]] | None = None
    back_in_s: dict[str, float] | None = None
    busy: list[str] | None = None
    spent: list[tuple[str, str, str, float]] | None = None  # (quota, unit, key, amount)
    g_per_kwh: dict[str, float] | None = None
    ledger_lost: bool = False


class Compact(Value, frozen=True, gc=False):
    """A decision in short, exact to the bit: the same of two decisions means the same decision."""

    label: str
    sent_label: str
    rule: str
    constraints: tuple[str, ...]
    ranked: list[tuple[str, float]]  # (backend, score) of the best; a replay finds the others
    attempts: list[str]
    spilled: tuple[str, ...]
    rejected: list[tuple[str, str]]  # (backend, filter)
    refusal: str | None
    transform: str | None
    shadow: str | None
    counts_against: list[str]


class Declassified(Value, frozen=True, gc=False, rename={"before": "from"}):
    """The caller had to give a reason. Its text is not kept: it is free, and could quote what it is about."""

    before: str
    reason: bool = True


class Record(Value, frozen=True, gc=False, omit_defaults=True):
    """One line, but for its place in the chain."""

    at: float  # seconds since 1970
    id: str
    policy: str
    seed: int
    request: Stated
    raised_by: list[tuple[str, str]]
    entities: Mapping[str, int]
    state: State
    decision: Compact
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
        decision.seed,
        _stated(decided.request, policy),
        [(source, levels[rank]) for source, rank in label.raised_by],
        label.entities,
        _state(decided.snapshot, policy),
        compact(decision, policy),
        None if before is None else Declassified(levels[before]),
        outcome,
        candidate,
    )


def compact(decision: Decision, policy: CompiledPolicy) -> Compact:
    levels, refusal, shadow = policy.levels, decision.refusal, decision.shadow
    return Compact(
        levels[decision.label],
        levels[decision.sent_label],
        decision.rule,
        decision.constraints,
        [(c.target.backend, c.score) for c in decision.ranked[:_RANKED]],
        [c.target.backend for c in decision.attempts],
        decision.spilled,
        [(backend, by) for backend, by, _ in decision.rejected if by != "capability"] if decision.rejected else [],
        None if refusal is None else str(refusal.code),
        decision.transform,
        None if shadow is None else shadow.target.backend,
        [policy.quotas[index].name for index in decision.quotas] if decision.quotas else [],
    )


def shown_model(request: Request, policy: CompiledPolicy) -> str:
    return request.model if request.model in policy.model_names else UNKNOWN_MODEL


def trace(decided: Decided) -> str:
    """The decision for the caller's own eyes, as base64 of JSON in a header: what and which, without the reasons."""
    policy, label = decided.policy, decided.label
    raised = [[source, policy.levels[rank]] for source, rank in label.raised_by]
    shown = {"policy": policy.digest, "raised_by": raised, **asdict(compact(decided.decision, policy))}
    encoded = base64.b64encode(msgspec.json.encode(shown))
    return encoded.decode() if len(encoded) <= MAX_TRACE else TRACE_TOO_LARGE


def _stated(request: Request, policy: CompiledPolicy) -> Stated:
    known = request.model in policy.model_names
    masked, levels = request.masked_label, policy.levels
    return Stated(
        request.id,
        request.model if known else UNKNOWN_MODEL,
        request.task,
        levels[request.label],
        request.protocol,
        request.tenant,
        request.usage,
        request.tokens_in,
        request.tokens_out,
        request.body_bytes,
        request.deadline_ms,
        request.stream,
        request.no_fallback,
        "/v2/models/?/infer" if not known and request.protocol == "oip" else request.route,
        request.session,
        request.caller_region,
        None if masked is None else levels[masked],
        sorted(request.entities) if request.entities else None,
        dict(request.headers) if request.headers else None,
        dict(request.labels) if request.labels else None,
    )


def _state(snapshot: Snapshot, policy: CompiledPolicy) -> State:
    backends, targets, emits, spent = policy.backend_names, policy.target_names, snapshot.g_per_kwh, None
    latency_ms, ttft_ms, growth = snapshot.latency_ms, snapshot.ttft_ms, snapshot.growth
    if snapshot.spent:
        quotas, used = policy.quotas, snapshot.spent.items()
        spent = [(quotas[i].name, quotas[i].unit, key, amount) for (i, key), amount in used]
    return State(
        _named(backends, snapshot.unavailable) if any(snapshot.unavailable) else None,
        _named(backends, snapshot.in_flight) if any(snapshot.in_flight) else None,
        _named(targets, latency_ms) if any(latency_ms) else None,
        _named(targets, ttft_ms) if any(ttft_ms) else None,
        _named(targets, growth) if any(growth) else None,
        _named(backends, snapshot.back_in_s) if any(snapshot.back_in_s) else None,
        _busy(snapshot, policy) if True in snapshot.busy or not snapshot.busy else None,
        spent,
        dict(zip(backends, emits, strict=True)) if emits else None,
        snapshot.ledger_lost,
    )


def _named(names: Sequence[str], values: Sequence[T | None]) -> dict[str, T]:
    """What is not usual: neither None nor 0."""
    return {name: value for name, value in zip(names, values, strict=True) if value}


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
    request = _request_of(record["request"], policy)
    decision = decide(request, _snapshot_of(record, policy), policy, record["seed"])
    logged, again = record["decision"], msgspec.json.decode(msgspec.json.encode(compact(decision, policy)))
    # What an older version did not log yet is no difference.
    told = [name for name in again if name in logged]
    differences = [f"{name}: logged {logged[name]}, now {again[name]}" for name in told if logged[name] != again[name]]
    return Replay(request, decision, tuple(differences))


def restored(record: Mapping[str, Any], policy: CompiledPolicy) -> Decided:
    """The decision of a record, with all that it was made from."""
    request, snapshot = _request_of(record["request"], policy), _snapshot_of(record, policy)
    decision = decide(request, snapshot, policy, record["seed"])
    raised_by = tuple((source, policy.rank(level)) for source, level in record["raised_by"])
    before = record.get("declassified", {}).get("from")
    label = Label(request.label, raised_by, record["entities"], None if before is None else policy.rank(before))
    return Decided(record["id"], request, label, snapshot, decision, policy)


def _request_of(stated: Mapping[str, Any], policy: CompiledPolicy) -> Request:
    known = dict(stated)
    known["label"] = policy.rank(known["label"])
    if "masked_label" in known:
        known["masked_label"] = policy.rank(known["masked_label"])
    known["entities"] = frozenset(known.get("entities", ()))
    return Request(**known)


def _snapshot_of(record: Mapping[str, Any], policy: CompiledPolicy) -> Snapshot:
    state = record["state"]
    names = [backend.name for backend in policy.fleet.backends]
    targets = [f"{target.backend}/{target.model}" for target in policy.targets]

    def of(kind: str, keys: list[str], absent: Any) -> tuple[Any, ...]:
        found = state.get(kind, {})
        return tuple(found.get(key, absent) for key in keys)

    quotas = {(quota.name, quota.unit): quota.index for quota in policy.quotas}
    spent = {(quotas[name, unit], key): amount for name, unit, key, amount in state.get("spent", ())}
    return Snapshot(
        of("unavailable", names, None),
        of("in_flight", names, 0),
        of("latency_ms", targets, None),
        of("ttft_ms", targets, None),
        record["at"],
        spent,
        tuple(tuple(line) if line is not None else None for line in of("growth", targets, None)),
        tuple(name in state.get("busy", ()) for name in names),
        state.get("ledger_lost", False),
        of("back_in_s", names, 0.0),
        of("g_per_kwh", names, 0.0) if "g_per_kwh" in state else (),
    )
