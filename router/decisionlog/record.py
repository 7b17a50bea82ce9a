"""What one line of the decision log holds, and a decision made again from it. Facts and names, never a payload."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import fields

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


_NAMED = frozenset({"label", "entities", "masked_label", "headers", "labels"})
"""Fields of a request that are not logged as they are."""
_USUAL = tuple((f.name, f.default) for f in fields(Request) if f.name not in _NAMED)


def as_record(decided: Decided, outcome: Outcome | None) -> dict[str, Any]:
    policy, decision, label = decided.policy, decided.decision, decided.label
    record: dict[str, Any] = {
        "at": decided.snapshot.now,
        "id": decided.id,
        "policy": decision.policy,
        "seed": decision.seed,
        "request": _request(decided.request, policy),
        "raised_by": [[source, policy.levels[rank]] for source, rank in label.raised_by],
        "entities": dict(label.entities),
        "state": _state(decided.snapshot, policy),
        "decision": compact(decision, policy),
    }
    if label.declassified_from is not None:
        # The caller had to give a reason. Its text is not kept: it is free, and could quote what it is about.
        record["declassified"] = {"from": policy.levels[label.declassified_from], "reason": True}
    if outcome is not None:
        record["outcome"] = outcome
    return record


def compact(decision: Decision, policy: CompiledPolicy) -> dict[str, Any]:
    """The decision in short, exact to the bit: the same record of two decisions means the same decision."""
    return {
        "label": policy.levels[decision.label],
        "sent_label": policy.levels[decision.sent_label],
        "rule": decision.rule,
        "constraints": list(decision.constraints),
        "ranked": [[c.target.backend, c.score] for c in decision.ranked],
        "attempts": [c.target.backend for c in decision.attempts],
        "spilled": list(decision.spilled),
        "rejected": [[r.backend, r.filter] for r in decision.rejected if r.filter != "capability"],
        "refusal": str(decision.refusal.code) if decision.refusal else None,
        "transform": decision.transform,
        "shadow": decision.shadow.target.backend if decision.shadow else None,
        "counts_against": [policy.quotas[index].name for index in decision.quotas],
    }


def shown_model(request: Request, policy: CompiledPolicy) -> str:
    return request.model if request.model in policy.model_names else UNKNOWN_MODEL


def trace(decided: Decided) -> str:
    """The decision for the caller's own eyes, as base64 of JSON in a header: what and which, without the reasons."""
    policy, label = decided.policy, decided.label
    raised = [[source, policy.levels[rank]] for source, rank in label.raised_by]
    shown = {"policy": policy.digest, "raised_by": raised, **compact(decided.decision, policy)}
    encoded = base64.b64encode(msgspec.json.encode(shown))
    return encoded.decode() if len(encoded) <= MAX_TRACE else TRACE_TOO_LARGE


def _request(request: Request, policy: CompiledPolicy) -> dict[str, Any]:
    """What differs from a request about which nothing is known."""
    stated = {name: value for name, usual in _USUAL if (value := getattr(request, name)) != usual}
    if request.model not in policy.model_names:
        stated["model"] = UNKNOWN_MODEL
        stated["route"] = "/v2/models/?/infer" if request.protocol == "oip" else request.route
    stated["label"] = policy.levels[request.label]
    if request.entities:
        stated["entities"] = sorted(request.entities)
    if request.masked_label is not None:
        stated["masked_label"] = policy.levels[request.masked_label]
    if request.headers:
        stated["headers"] = dict(request.headers)
    if request.labels:
        stated["labels"] = dict(request.labels)
    return stated


def _state(snapshot: Snapshot, policy: CompiledPolicy) -> dict[str, Any]:
    """What differs from a fleet that is healthy, idle and unmeasured."""
    backends, targets = policy.backend_names, policy.target_names
    found: dict[str, Any] = {}
    for name, names, values in (
        ("unavailable", backends, snapshot.unavailable),
        ("in_flight", backends, snapshot.in_flight),
        ("latency_ms", targets, snapshot.latency_ms),
        ("ttft_ms", targets, snapshot.ttft_ms),
        ("growth", targets, snapshot.growth),
        ("back_in_s", backends, snapshot.back_in_s),
    ):
        if any(values):
            absent = (None, 0) if names is backends else (None,)
            found[name] = {n: value for n, value in zip(names, values, strict=True) if value not in absent}
    busy = snapshot.busy or [snapshot.is_busy(target) for target in policy.targets]
    if True in busy:
        found["busy"] = sorted({t.backend for t in policy.targets if snapshot.is_busy(t)})
    if snapshot.spent:
        found["spent"] = [
            [policy.quotas[i].name, policy.quotas[i].unit, key, amount] for (i, key), amount in snapshot.spent.items()
        ]
    if snapshot.g_per_kwh:
        found["g_per_kwh"] = dict(zip(backends, snapshot.g_per_kwh, strict=True))
    if snapshot.ledger_lost:
        found["ledger_lost"] = True
    return found


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
    logged, again = record["decision"], compact(decision, policy)
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
