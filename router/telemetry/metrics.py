"""The instruments that Prometheus scrapes. Base units, closed label vocabularies: no label takes a value that a caller
can invent, so the number of series is bounded by the configuration.

Replicas on one node add up: counters and histograms sum; of a gauge, its help says what becomes of several values.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from router import __version__
from router.telemetry.tallies import Distribution, Tally

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that nobody reads

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that prometheus-client reads: where the replicas of a node add up their metrics."""

_MICRO = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 0.1)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# What OpenTelemetry's semantic conventions for generative AI advise.
_GEN_AI_DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_GEN_AI_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_GEN_AI_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

_MODES: dict[str, Literal["livesum", "livemin", "livemax"]] = {
    "sum": "livesum", "lowest": "livemin", "highest": "livemax"
}  # fmt: skip


class Folded(Protocol):
    def fold(self) -> None:
        """Hand over what was counted since the last time."""


class Metrics:
    """The service's instruments, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.shared = bool(os.environ.get(SHARED))
        self.distributions: dict[str, Distribution] = {}  # by the metric's name
        self._folded: list[Folded] = []

        # --- requests: counted as they end
        self.requests = self._tally(
            "requests",
            "Requests answered or refused. rule, backend and tier are empty where none was reached",
            "route", "task", "model", "rule", "backend", "tier", "outcome",
            at_once=self.shared,
        )  # fmt: skip
        self.request_seconds = self._distribution(
            "request_seconds", "Time from a request's arrival to the end of its answer, of good answers",
            _SECONDS, "task", "model", "backend", "tier",
        )  # fmt: skip
        self.ttft_seconds = self._distribution(
            "time_to_first_token_seconds", "Time from a streamed request's arrival to the first piece of its answer",
            _SECONDS, "task", "model", "backend", "tier",
        )  # fmt: skip
        self.tpot_seconds = self._distribution(
            "time_per_output_token_seconds", "Of a streamed answer, the time between two of its tokens on average",
            _TOKEN, "task", "model", "backend", "tier",
        )  # fmt: skip
        self.overhead_seconds = self._distribution(
            "overhead_seconds",
            "Time that an answered request took in the router itself: all but waiting for places and backends",
            _MICRO, "task",
        )  # fmt: skip
        self.slo = self._tally(
            "slo_requests",
            "Requests that were to be answered, by rule, and whether they were, within its slo where it has one",
            "rule", "met",
        )  # fmt: skip
        self.tenant_requests = self._tally(
            "tenant_requests", "Requests by tenant; tenant is empty where nobody knew whose it was",
            "tenant", "outcome",
        )  # fmt: skip
        self.tenant_seconds = self._distribution(
            "tenant_request_seconds", "Time from arrival to the end of the answer, of good answers, by tenant",
            _SECONDS, "tenant",
        )  # fmt: skip
        self.gen_ai_duration = self._distribution(
            "gen_ai_server_request_duration_seconds", "Duration of generative AI requests (OpenTelemetry's name)",
            _GEN_AI_DURATION, "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type",
        )  # fmt: skip
        self.gen_ai_first = self._distribution(
            "gen_ai_server_time_to_first_token_seconds", "Time to the first token (OpenTelemetry's name)",
            _GEN_AI_FIRST, "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model",
        )  # fmt: skip
        self.gen_ai_token = self._distribution(
            "gen_ai_server_time_per_output_token_seconds", "Time per token after the first (OpenTelemetry's name)",
            _GEN_AI_TOKEN, "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model",
        )  # fmt: skip

        # --- decisions
        self.decision_seconds = self._distribution(
            "decision_seconds", "Time to label a request and decide where it goes", _MICRO
        )
        self.rejections = self._tally(
            "rejections", "Backends that a filter removed from a decision", "backend", "filter"
        )
        self.spills = self._tally(
            "spills", "Requests for which another backend came before this one because it was full", "backend"
        )
        self.candidate_decisions = self._counter(
            "candidate_decisions",
            "Requests decided under the candidate policy as well: who answered, and who would have",
            "live_backend", "candidate_backend",
        )  # fmt: skip

        # --- sensitivity
        self.labels = self._tally("labels", "Requests by sensitivity label", "label")
        self.entities = self._tally("entities", "Values that detectors found in requests, by type", "type")
        self.detector_failures = self._counter(
            "detector_failures", "Scans in which a detector failed, and the request got the top level for that",
            "detector",
        )  # fmt: skip
        self.declassified = self._counter(
            "declassified", "Requests whose label an authorised tenant lowered", "tenant", "from_label", "to_label"
        )
        self.egress_blocked = self._counter(
            "egress_blocked",
            "Calls stopped at the last check because they were above the backend's clearance; must stay 0", "backend",
        )  # fmt: skip
        self.unauthorized = self._counter("unauthorized", "Requests refused for want of a good key or token", "reason")
        self.pseudonymised = self._counter("pseudonymised", "Values replaced by placeholders before a request was sent")
        self.unrestored = self._counter(
            "placeholders_unrestored",
            "Placeholders in answers that stand for nothing in their request, so that nothing could be put back",
        )

        # --- calls to backends
        self.attempts = self._tally(
            "attempts",
            "Calls to backends: the first for a request, fallbacks, retries, hedges, escalations of a cascade",
            "backend", "tier", "kind", "outcome",
        )  # fmt: skip
        self.attempt_seconds = self._distribution(
            "attempt_seconds",
            "Time that a backend took until its answer, or the first piece of a stream, was there; of good ones",
            _SECONDS, "backend", "tier",
        )  # fmt: skip
        self.queue_seconds = self._distribution(
            "queue_seconds", "Time that requests waited for a place at a backend, of those that waited",
            _SECONDS, "backend",
        )  # fmt: skip
        self.hedges = self._counter(
            "hedges", "Second attempts made because the first was slow: won where they answered first", "outcome"
        )
        self.shadow_copies = self._counter(
            "shadow_copies",
            "Copies of requests to backends on trial: answered, failed, or dropped because too many were on their way",
            "backend", "outcome",
        )  # fmt: skip
        self.batch_size = self._distribution(
            "batch_size", "Requests that a model in the router's process ran together, as each of them saw it",
            _ROWS, "backend",
        )  # fmt: skip
        self.streams_broken = self._counter(
            "streams_broken", "Streams that a backend broke off; also those that another backend went on with",
            "backend", "tier",
        )  # fmt: skip
        self.ejections = self._counter(
            "ejections", "Times that a backend was kept out for failing, as each replica counted", "backend"
        )

        # --- what it costs
        spent = ("backend", "tier", "model", "purpose")
        self.tokens = self._tally(
            "tokens", "Tokens, as backends counted them (source=told) or as we must guess (source=estimated)",
            "backend", "model", "direction", "source",
        )  # fmt: skip
        self.cost_usd = self._tally(
            "cost_usd",
            "Cost at the fleet's prices, of all answers, used or not; own hardware with its share at full capacity",
            *spent,
        )
        self.marginal_usd = self._tally(
            "marginal_cost_usd", "Cost without what is paid by the hour: what the answers themselves have added", *spent
        )
        self.baseline_usd = self._tally(
            "baseline_cost_usd",
            "What the answered requests would have cost in the cloud; where it has no such model, what they did cost",
            "backend", "tier", "model",
        )  # fmt: skip
        self.energy_joules = self._tally(
            "energy_joules",
            "Energy of answers: modelled from watts and service time, or measured for models in the router's process",
            "backend", "tier", "source",
        )  # fmt: skip
        self.carbon_grams = self._tally(
            "carbon_grams", "CO2 equivalent of that energy, by the intensity of the backend's zone; modelled",
            "backend", "tier",
        )  # fmt: skip
        self.tenant_cost_usd = self._tally(
            "tenant_cost_usd", "Cost of all answers at the fleet's prices, by tenant", "tenant"
        )
        self.tenant_baseline_usd = self._tally(
            "tenant_baseline_cost_usd", "What the answered requests would have cost in the cloud, by tenant", "tenant"
        )
        self.tenant_tokens = self._tally(
            "tenant_tokens", "Tokens in and out, told or estimated, by tenant", "tenant", "direction"
        )
        self.host_joules = self._counter(
            "host_energy_joules", "Energy that this machine's processors drew, measured (RAPL); 0 where unreadable"
        )
        self.reserved_usd = self._gauge(
            "reserved_usd_per_hour", "What a backend costs by the hour, used or not", "highest", "backend", "tier"
        )
        self.idle_watts = self._gauge(
            "idle_watts", "Power that a backend draws while it waits, as the fleet says", "highest", "backend", "tier"
        )
        self.carbon_intensity = self._gauge(
            "carbon_intensity_grams_per_kwh", "CO2 equivalent of the power of a backend now, and where that is from",
            "highest", "backend", "source",
        )  # fmt: skip

        # --- the fleet now
        self.in_flight = self._gauge("in_flight", "Requests being served or queued", "sum", "backend")
        self.queued = self._gauge("queued", "Requests that wait for a place at a backend", "sum", "backend")
        self.queue_limit = self._gauge("queue_limit", "Requests that may wait for a backend", "sum", "backend")
        self.concurrency = self._gauge(
            "concurrency_limit", "Requests that a backend is given at once; moves where `limits.adaptive` is set",
            "sum", "backend",
        )  # fmt: skip
        self.available = self._gauge(
            "backend_available", "1 where the backend may be used, 0 where health keeps it out", "lowest",
            "backend", "tier",
        )  # fmt: skip
        self.backend_state = self._gauge(
            "backend_state", "1 for the state that the backend is in, 0 for the others", "highest", "backend", "state"
        )
        self.latency_estimate = self._gauge(
            "latency_estimate_seconds", "Time to the whole answer that decisions go by, where it was measured",
            "highest", "backend", "model",
        )  # fmt: skip
        self.latency_age = self._gauge(
            "latency_estimate_age_seconds", "Time since that was last measured", "lowest", "backend", "model"
        )

        # --- budgets
        quota = ("quota", "unit")
        self.quota_used = self._gauge(
            "quota_used", "What a budget or limit has used in this period, over all its keys", "highest", *quota
        )
        self.quota_remaining = self._gauge(
            "quota_remaining", "What is neither used nor reserved of it; where it has keys, of the one that has least",
            "lowest", *quota,
        )  # fmt: skip
        self.quota_cap = self._gauge("quota_cap", "Its cap, of each key where it has keys", "highest", *quota)
        self.quota_leased = self._gauge(
            "quota_leased", "What processes hold of it beyond what they have used; 0 where one is alone", "sum", *quota
        )
        self.ledger_errors = self._counter("ledger_errors", "Reports to the ledger of budgets that got no answer")

        # --- the router itself
        self.reloads = self._counter(
            "reloads",
            "Configurations read again: swapped in, unchanged, or refused because something was wrong with them",
            "outcome",
        )
        self.configuration_stale = self._gauge(
            "configuration_stale", "1 while the files, as last read, are refused and older ones stay live",
            "highest",
        )  # fmt: skip
        self.configuration_stale.set(0)
        self.policy_info = self._gauge("policy_info", "Digest of the policy and fleet that decide", "highest", "digest")
        self.build_info = self._gauge("build_info", "Versions of router and Python", "highest", "version", "python")
        self.cpu_seconds = self._counter(
            "cpu_seconds",
            "CPU time of the router's processes, with the models that run in them; without the process of `use: ner`",
        )
        self.resident_bytes = self._gauge(
            "resident_memory_bytes", "Memory that the router's processes hold; without the process of `use: ner`", "sum"
        )
        self.decision_log_dropped = self._counter(
            "decision_log_dropped", "Records that the decision log lost because it could not keep up or could not write"
        )
        self.decision_log_queued = self._gauge(
            "decision_log_queued", "Records that wait to be written to the decision log", "sum"
        )
        self.build_info.labels(__version__, platform.python_version()).set(1)

    def fold(self) -> None:
        """Hand over what was counted since the last time. Belongs to the thread that counts."""
        for one in self._folded:
            one.fold()

    def fold_first(self, one: Folded) -> None:
        """What is handed over to the instruments themselves, before they are."""
        self._folded.insert(0, one)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"pointsman_{name}", help, labels, registry=self.registry)

    def _tally(self, name: str, help: str, *labels: str, at_once: bool = False) -> Tally:
        tally = Tally(self._counter(name, help, *labels), at_once)
        self._folded.append(tally)
        return tally

    def _gauge(self, name: str, help: str, of_replicas: str, *labels: str) -> Gauge:
        told = f"{help} (of several replicas: {'their sum' if of_replicas == 'sum' else f'the {of_replicas}'})"
        mode = _MODES[of_replicas]
        return Gauge(f"pointsman_{name}", told, labels, registry=self.registry, multiprocess_mode=mode)

    def _distribution(self, name: str, help: str, bounds: Sequence[float], *labels: str) -> Distribution:
        full = name if name.startswith("gen_ai_") else f"pointsman_{name}"
        distribution = Distribution(Histogram(full, help, labels, registry=self.registry, buckets=bounds), bounds)
        self.distributions[full] = distribution
        self._folded.append(distribution)
        return distribution
