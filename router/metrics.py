"""What Prometheus scrapes. Base units, closed label vocabularies: no label takes a value that a caller can invent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

from router import __version__
from router.tallies import Distribution, Tally

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that nobody reads

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MICRO = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 0.1)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The service's instruments, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._folded: list[Tally | Distribution] = []
        self.requests = self._tally(
            Counter(
                "pointsman_requests",
                "Requests answered or refused; rule, backend and tier are empty where none was reached",
                ["task", "rule", "backend", "tier", "outcome"],
                registry=registry,
            )
        )
        self.attempts = self._tally(
            Counter(
                "pointsman_attempts",
                "Calls to backends: the first for a request, fallbacks, retries, hedges, escalations of a cascade",
                ["backend", "tier", "kind", "outcome"],
                registry=registry,
            )
        )
        self.hedges = Counter(
            "pointsman_hedges",
            "Second attempts made because the first was slow: won where they answered first",
            ["outcome"],
            registry=registry,
        )
        self.spills = self._tally(
            Counter(
                "pointsman_spills",
                "Requests for which another backend came before this one because it was full",
                ["backend"],
                registry=registry,
            )
        )
        self.rejections = self._tally(
            Counter(
                "pointsman_rejections",
                "Backends that a filter removed from a decision",
                ["backend", "filter"],
                registry=registry,
            )
        )
        self.labels = self._tally(
            Counter("pointsman_labels", "Requests by sensitivity label", ["label"], registry=registry)
        )
        self.detector_failures = Counter(
            "pointsman_detector_failures",
            "Scans in which a detector failed, and the request got the top level for that",
            ["detector"],
            registry=registry,
        )
        self.declassified = Counter(
            "pointsman_declassified",
            "Requests whose label an authorised tenant lowered",
            ["tenant", "from_label", "to_label"],
            registry=registry,
        )
        self.unauthorized = Counter(
            "pointsman_unauthorized",
            "Requests refused for want of a good key or token",
            ["reason"],
            registry=registry,
        )
        self.decision_seconds = self._distribution(
            Histogram(
                "pointsman_decision_seconds",
                "Time to label a request and decide where it goes",
                registry=registry,
                buckets=_MICRO,
            ),
            _MICRO,
        )
        self.request_seconds = self._distribution(
            Histogram(
                "pointsman_request_seconds",
                "Time from a request's arrival to the end of its answer",
                ["task", "tier"],
                registry=registry,
                buckets=_SECONDS,
            ),
            _SECONDS,
        )
        self.first_byte_seconds = self._distribution(
            Histogram(
                "pointsman_first_byte_seconds",
                "Time from a streamed request's arrival to the first byte of its answer",
                ["task", "tier"],
                registry=registry,
                buckets=_SECONDS,
            ),
            _SECONDS,
        )
        self.tokens = self._tally(
            Counter("pointsman_tokens", "Tokens as backends counted them", ["backend", "direction"], registry=registry)
        )
        self.cost_usd = self._tally(
            Counter(
                "pointsman_cost_usd",
                "Cost of answered requests at the fleet's prices",
                ["backend", "tier"],
                registry=registry,
            )
        )
        self.egress_blocked = Counter(
            "pointsman_egress_blocked",
            "Calls stopped at the last check because they were above the backend's clearance; must stay 0",
            ["backend"],
            registry=registry,
        )
        self.in_flight = self._tally(
            Gauge(
                "pointsman_in_flight",
                "Requests being served or queued",
                ["backend"],
                registry=registry,
                multiprocess_mode="livesum",
            )
        )
        self.concurrency = Gauge(
            "pointsman_concurrency_limit",
            "Requests that a backend is given at once; moves where `limits.adaptive` is set",
            ["backend"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queued = Gauge(
            "pointsman_queued",
            "Requests that wait for a place at a backend",
            ["backend"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.available = Gauge(
            "pointsman_backend_available",
            "1 where the backend may be used, 0 where health keeps it out",
            ["backend", "tier"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.build_info = Gauge(
            "pointsman_build_info", "Version of the router", ["version"], registry=registry, multiprocess_mode="livemax"
        )
        self.policy_info = Gauge(
            "pointsman_policy_info",
            "Digest of the policy and fleet that decide",
            ["digest"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.shadow_copies = Counter(
            "pointsman_shadow_copies",
            "Copies of requests to backends on trial: answered, failed, or dropped because too many were on their way",
            ["backend", "outcome"],
            registry=registry,
        )
        self.pseudonymised = Counter(
            "pointsman_pseudonymised",
            "Values replaced by placeholders before a request was sent",
            registry=registry,
        )
        self.unrestored = Counter(
            "pointsman_placeholders_unrestored",
            "Placeholders in answers that stand for nothing in their request, so that nothing could be put back",
            registry=registry,
        )
        self.reloads = Counter(
            "pointsman_reloads",
            "Configurations read again: swapped in, unchanged, or refused because something was wrong with them",
            ["outcome"],
            registry=registry,
        )
        self.candidate_decisions = Counter(
            "pointsman_candidate_decisions",
            "Requests decided under the candidate policy as well: who answered, and who would have",
            ["live_backend", "candidate_backend"],
            registry=registry,
        )
        self.decision_log_dropped = Counter(
            "pointsman_decision_log_dropped",
            "Records that the decision log lost because it could not keep up or could not write",
            registry=registry,
        )
        self.quota_used = Gauge(
            "pointsman_quota_used",
            "What a budget or limit has used in this period, over all its keys",
            ["quota", "unit"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.quota_remaining = Gauge(
            "pointsman_quota_remaining",
            "What is neither used nor reserved of it, where it has keys: of the one that has least",
            ["quota", "unit"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.quota_leased = Gauge(
            "pointsman_quota_leased",
            "What router processes hold of it beyond what they have used; 0 where a process is alone",
            ["quota", "unit"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.ledger_errors = Counter(
            "pointsman_ledger_errors",
            "Reports to the ledger of budgets that got no answer",
            registry=registry,
        )
        self.build_info.labels(__version__).set(1)

    def _tally(self, metric: Counter | Gauge) -> Tally:
        tally = Tally(metric)
        self._folded.append(tally)
        return tally

    def _distribution(self, metric: Histogram, bounds: Sequence[float]) -> Distribution:
        distribution = Distribution(metric, bounds)
        self._folded.append(distribution)
        return distribution

    def fold(self) -> None:
        """Hand over what was counted since the last time. Belongs to the thread that counts."""
        for one in self._folded:
            one.fold()

    def render(self) -> bytes:
        """The exposition text: of all replicas on this node where they share a directory, else of this process."""
        self.fold()
        shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if shared:
            _forget_dead(Path(shared))
            together = CollectorRegistry()
            multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
            return generate_latest(together)
        return generate_latest(self.registry)


def _forget_dead(shared: Path) -> None:
    """Gauges of replicas that are gone: what they had in flight is so no more. What they counted stays counted."""
    for file in shared.glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except PermissionError:
            pass  # alive, and another user's
