"""What ended requests add to the metrics: gathered under one key while requests are served, told apart into the
instruments when somebody looks, or a moment later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from policies.accounts import Charge
from policies.types import Decision
from router.telemetry.energy import MeasuredEnergy
from router.telemetry.metrics import Metrics

SERVICE_FAULTS = ("overloaded", "unavailable", "deadline", "upstream_error", "stream_broken", "internal")
"""Outcomes that count against an objective. All others but "ok" are the caller's doing, or what the policy wants."""
OPERATIONS = {
    "chat": "chat",
    "completion": "text_completion",
    "embedding": "embeddings",
}
"""Tasks as OpenTelemetry names them. Those that are not here (tensors) are no generative AI."""


class EndedKey(NamedTuple):
    """What ended requests have in common. Every part is a name of the configuration, or empty."""

    route: str
    task: str
    model: str
    tenant: str
    rule: str
    backend: str
    tier: str
    outcome: str


class Measured(NamedTuple):
    """Of a request that is over. Times in seconds; None where there is none."""

    seconds: float
    overhead_s: float | None
    first_s: float | None  # to the first piece of a stream
    per_token_s: float | None
    met: bool | None  # as of `slo_met`
    charges: Sequence[Charge]
    baseline_usd: float | None  # what the answer would have cost in the cloud, where that has the model
    trace_id: str | None = None


def slo_met(outcome: str, decision: Decision, ms: float, ttft_ms: float | None) -> bool | None:
    """Whether the objective of the request's rule was met, without one: whether it was answered at all; None where
    that is not the service's doing."""
    if outcome != "ok":
        return False if outcome in SERVICE_FAULTS else None
    slo = decision.slo
    if slo is None:
        return True
    late = slo.latency_ms is not None and ms > slo.latency_ms
    return not late and (slo.ttft_ms is None or ttft_ms is None or ttft_ms <= slo.ttft_ms)


@dataclass(slots=True)
class _Ended:
    seconds: list[float] = field(default_factory=list)
    overhead: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    per_token: list[float] = field(default_factory=list)
    met: int = 0
    missed: int = 0
    cost_usd: float = 0.0
    baseline_usd: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(slots=True)
class _Spent:
    usd: float = 0.0
    marginal_usd: float = 0.0
    energy_j: float = 0.0
    carbon_g: float = 0.0
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0


class Accounts:
    """Belongs to one thread."""

    def __init__(self, metrics: Metrics, energy: MeasuredEnergy | None = None) -> None:
        """`energy` is told of what is measured rather than modelled."""
        self._metrics = metrics
        self._energy = energy or MeasuredEnergy(metrics)
        self._ended: dict[EndedKey, _Ended] = {}
        self._spent: dict[tuple[str, str, str, str, bool], _Spent] = {}
        metrics.fold_first(self)

    def count(self, key: EndedKey) -> None:
        """A request's answer is about to leave."""
        at = key.route, key.task, key.model, key.rule, key.backend, key.tier, key.outcome
        self._metrics.requests.add(at)

    def ended(self, key: EndedKey, measured: Measured) -> None:
        """It is over."""
        group = self._ended.get(key)
        if group is None:
            group = self._ended[key] = _Ended()
        seconds, overhead_s, first_s, per_token_s, met, charges, baseline_usd, trace_id = measured
        group.seconds.append(seconds)
        if overhead_s is not None:
            group.overhead.append(overhead_s)
        if first_s is not None:
            group.first.append(first_s)
        if per_token_s is not None:
            group.per_token.append(per_token_s)
        if met:
            group.met += 1
        elif met is not None:
            group.missed += 1
        usd = 0.0
        for charge in charges:
            usd += charge.usd
            group.tokens_in += charge.tokens_in
            group.tokens_out += charge.tokens_out
        group.cost_usd += usd
        if key.outcome != "ok":
            return
        group.baseline_usd += usd if baseline_usd is None else baseline_usd
        if trace_id is not None:
            at = key.task, key.model, key.backend, key.tier
            self._metrics.request_seconds.exemplify(at, seconds, trace_id)
            if first_s is not None:
                self._metrics.ttft_seconds.exemplify(at, first_s, trace_id)

    def charged(self, charge: Charge) -> None:
        at = charge.backend, charge.tier, charge.model, charge.purpose, charge.estimated
        spent = self._spent.get(at)
        if spent is None:
            spent = self._spent[at] = _Spent()
        spent.usd += charge.usd
        spent.marginal_usd += charge.marginal_usd
        spent.energy_j += charge.energy_j
        spent.carbon_g += charge.carbon_g
        spent.seconds += charge.seconds
        spent.tokens_in += charge.tokens_in
        spent.tokens_out += charge.tokens_out

    def fold(self) -> None:
        ended, self._ended = self._ended, {}
        for key, group in ended.items():
            self._tell_ended(key, group)
        charged, self._spent = self._spent, {}
        for (backend, tier, model, purpose, estimated), spent in charged.items():
            metrics, at = self._metrics, (backend, tier, model, purpose)
            metrics.cost_usd.add(at, spent.usd)
            metrics.marginal_usd.add(at, spent.marginal_usd)
            if self._energy.measures(backend):
                self._energy.served(backend, tier, spent.seconds)
            else:
                metrics.energy_joules.add((backend, tier, "modelled"), spent.energy_j)
                metrics.carbon_grams.add((backend, tier), spent.carbon_g)
            source = "estimated" if estimated else "told"
            metrics.tokens.add((backend, model, "in", source), spent.tokens_in)
            metrics.tokens.add((backend, model, "out", source), spent.tokens_out)
        self._energy.fold()

    def _tell_ended(self, key: EndedKey, group: _Ended) -> None:
        metrics, ok = self._metrics, key.outcome == "ok"
        at = key.task, key.model, key.backend, key.tier
        metrics.tenant_requests.add((key.tenant, key.outcome), len(group.seconds))
        if ok:
            metrics.request_seconds.observe_all(at, group.seconds)
            metrics.tenant_seconds.observe_all((key.tenant,), group.seconds)
            metrics.overhead_seconds.observe_all((key.task,), group.overhead)
            metrics.baseline_usd.add((key.backend, key.tier, key.model), group.baseline_usd)
            metrics.tenant_baseline_usd.add((key.tenant,), group.baseline_usd)
        if group.first:
            metrics.ttft_seconds.observe_all(at, group.first)
        if group.per_token:
            metrics.tpot_seconds.observe_all(at, group.per_token)
        if group.met:
            metrics.slo.add((key.rule, "true"), group.met)
        if group.missed:
            metrics.slo.add((key.rule, "false"), group.missed)
        if group.cost_usd or group.tokens_in or group.tokens_out:
            metrics.tenant_cost_usd.add((key.tenant,), group.cost_usd)
            metrics.tenant_tokens.add((key.tenant, "in"), group.tokens_in)
            metrics.tenant_tokens.add((key.tenant, "out"), group.tokens_out)
        operation = OPERATIONS.get(key.task)
        if operation is not None:
            gen_ai = operation, key.backend, key.model
            metrics.gen_ai_duration.observe_all((*gen_ai, "" if ok else key.outcome), group.seconds)
            metrics.gen_ai_first.observe_all(gen_ai, group.first)
            metrics.gen_ai_token.observe_all(gen_ai, group.per_token)
