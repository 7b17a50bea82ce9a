"""Gauges: how things stand now. They are read off the live state when somebody looks, and four times a second for the
other replicas of the node."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

from prometheus_client import Gauge

from policies.compile import CompiledPolicy
from policies.outcomes import SERVICE_FAULTS, TURNED_AWAY
from policies.sensitivity.entities import ENTITIES
from router.health import STATES
from router.live import Live
from router.telemetry.metrics import Metrics
from router.telemetry.tallies import Series

_STATM = Path("/proc/self/statm")
GONE = math.nan
"""The value of a gauge whose subject is there no more: a reload took it away. It is not shown (`exposition`), since
the files that replicas share cannot forget a series."""


KINDS = ("first", "fallback", "retry", "hedge", "escalation")
FAILURES = ("unreachable", "timeout", "overloaded", "bad_answer", "failed", "internal")
"""Of attempts: what they are made for, and how they fail."""


class Gauges:
    """Belongs to one event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._shown: dict[Gauge, set[tuple[str, ...]]] = {}
        self._now: dict[Gauge, set[tuple[str, ...]]] = {}
        self._series: dict[Gauge, Series[Gauge]] = {}
        self._ejections: dict[str, int] = {}  # that have been counted
        self._cpu_s = 0.0  # likewise

    def publish(self, live: Live, log_queued: int | None) -> None:
        metrics, policy, state, now = self._metrics, live.policy, live.state, time.monotonic()
        self._now = {}
        self._set(metrics.policy_info, (policy.digest,), 1)
        wall = time.time()
        intensities, sources = live.intensities.at(wall), live.intensities.sources_at(wall)
        for spec, backend, intensity, source in zip(
            policy.fleet.backends, state.backends, intensities, sources, strict=True
        ):
            name, placed = spec.name, (spec.name, spec.tier)
            self._set(metrics.in_flight, (name,), backend.in_flight)
            self._set(metrics.queued, (name,), backend.places.waiting)
            self._set(metrics.queue_limit, (name,), spec.limits.max_queued)
            self._set(metrics.concurrency, (name,), backend.places.capacity)
            self._set(metrics.reserved_usd, placed, spec.price.reserved_per_hour)
            self._set(metrics.idle_watts, placed, spec.energy.idle_w)
            self._set(metrics.carbon_intensity, (name, source), intensity)
            condition = state.condition(backend, now)
            self._set(metrics.available, placed, condition not in ("ejected", "unreachable", "held"))
            for one in STATES:
                self._set(metrics.backend_state, (name, one), one == condition)
            more = backend.times_ejected - self._ejections.get(name, 0)
            self._ejections[name] = backend.times_ejected
            metrics.ejections.labels(name).inc(max(more, 0))  # fewer: it is another backend of that name
        for target, (average_ms, at) in zip(policy.targets, state.measured(), strict=True):
            if average_ms is not None:
                self._set(metrics.latency_estimate, (target.backend, target.model), average_ms / 1000)
                self._set(metrics.latency_age, (target.backend, target.model), now - at)
        before, self._cpu_s = self._cpu_s, time.process_time()
        metrics.cpu_seconds.inc(self._cpu_s - before)
        self._set(metrics.resident_bytes, (), _resident_bytes())
        if log_queued is not None:
            self._set(metrics.decision_log_queued, (), log_queued)
        live.ledger.publish(self._set, metrics, wall)
        for gauge, shown in self._shown.items():
            for labels in shown - self._now.get(gauge, set()):
                self._series_of(gauge)[labels].set(GONE)
        self._shown = self._now

    def _series_of(self, gauge: Gauge) -> Series[Gauge]:
        series = self._series.get(gauge)
        if series is None:
            series = self._series[gauge] = Series(gauge)
        return series

    def _set(self, gauge: Gauge, labels: tuple[str, ...], value: float) -> None:
        self._series_of(gauge)[labels].set(value)
        self._now.setdefault(gauge, set()).add(labels)


def _resident_bytes() -> float:
    try:
        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):  # the kernel does not say
        return GONE


def expect(metrics: Metrics, policy: CompiledPolicy) -> None:
    """Series that should stay at 0 are there from the start, so that the first event of all is a rise that Prometheus
    sees, and a panel shows 0 rather than nothing."""
    for target in policy.targets:
        at = target.backend, target.tier, target.model
        for tally in (metrics.cost_usd, metrics.marginal_usd):
            for purpose in ("answer", "unused", "broken"):
                tally.add((*at, purpose), 0)
        metrics.baseline_usd.add(at, 0)
    for spec in policy.fleet.backends:
        metrics.egress_blocked.labels(spec.name).inc(0)
        metrics.ejections.labels(spec.name).inc(0)
        metrics.streams_broken.labels(spec.name, spec.tier).inc(0)
        metrics.spills.add((spec.name,), 0)
        metrics.carbon_grams.add((spec.name, spec.tier), 0)
        metrics.energy_joules.add((spec.name, spec.tier, "modelled"), 0)
        for kind in KINDS:
            metrics.attempts.add((spec.name, spec.tier, kind, "ok"), 0)
        for outcome in FAILURES:
            metrics.attempts.add((spec.name, spec.tier, "first", outcome), 0)
    for level in policy.levels:
        metrics.labels.add((level,), 0)
    for name in policy.detectors.names:
        metrics.detector_failures.labels(name).inc(0)
    for kind in ENTITIES if policy.detectors.names else ():
        metrics.entities.add((kind,), 0)
    for rule in policy.rules:
        for met in ("true", "false"):
            metrics.slo.add((rule.name, met), 0)
        if rule.shadow is not None:
            _zero(metrics.shadow_copies, [(rule.shadow.backend, one) for one in ("ok", "failed", "dropped")])
    _zero(metrics.reloads, [("swapped",), ("unchanged",), ("refused",)])
    _zero(metrics.hedges, [("won",), ("lost",)])
    _zero(metrics.unauthorized, [("missing",), ("unknown",), ("token",), ("malformed",), ("unavailable",)])
    for name in policy.tenants or ("anonymous",):
        metrics.tenant_cost_usd.add((name,), 0)
        metrics.tenant_baseline_usd.add((name,), 0)
        for outcome in ("ok", *sorted(SERVICE_FAULTS), *TURNED_AWAY):
            metrics.tenant_requests.add((name, outcome), 0)
    for tenant in (policy.tenants or {}).values():
        if tenant.may_declassify:
            pairs = combinations(reversed(policy.levels), 2)  # each level, and one below it
            _zero(metrics.declassified, [(tenant.name, *pair) for pair in pairs])


def _zero(counter: object, labels: Iterable[tuple[str, ...]]) -> None:
    for one in labels:
        counter.labels(*one).inc(0)  # type: ignore[attr-defined]
