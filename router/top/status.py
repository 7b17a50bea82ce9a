"""What `pointsman top` shows, as values."""

from __future__ import annotations

from dataclasses import dataclass

from policies.outcomes import SERVICE_FAULTS
from router.report.tally import TIERS, nearness
from router.top.readings import Between, Reading


@dataclass(frozen=True, slots=True)
class BackendRow:
    backend: str
    tier: str
    state: str
    per_second: float  # calls
    failed_per_second: float
    in_flight: int
    limit: int
    queued: int
    p50_ms: float | None
    p95_ms: float | None
    usd_per_hour: float  # marginal, and what is paid by the hour
    ejections: int


@dataclass(frozen=True, slots=True)
class RuleRow:
    rule: str
    per_second: float
    met: float | None  # share, since the router began


@dataclass(frozen=True, slots=True)
class QuotaRow:
    quota: str
    unit: str
    cap: float
    used: float
    left: float  # share of the cap


@dataclass(frozen=True, slots=True)
class Status:
    version: str
    policy: str
    per_second: float  # requests
    failed_per_second: float  # by the service's fault
    refused_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    overhead_us: float | None  # median
    usd_per_hour: float
    baseline_usd_per_hour: float
    egress_blocked: int
    detector_failures: int
    tiers: dict[str, float]  # share of the answers
    backends: tuple[BackendRow, ...]
    rules: tuple[RuleRow, ...]
    quotas: tuple[QuotaRow, ...]
    warnings: tuple[str, ...]


def status(between: Between) -> Status:
    now, rate = between.after, between.rate
    requests = "pointsman_requests_total"
    answers = {tier: between.rise(requests, tier=tier, outcome="ok") for tier in TIERS}
    all_answers = sum(answers.values())
    overhead = between.quantile(0.5, "pointsman_overhead_seconds")
    reserved = now.total("pointsman_reserved_usd_per_hour")
    return Status(
        next((found["version"] for found, _ in now.series("pointsman_build_info")), "?"),
        next((found["digest"] for found, _ in now.series("pointsman_policy_info")), "?"),
        rate(requests),
        sum(rate(requests, outcome=one) for one in SERVICE_FAULTS),
        rate(requests, outcome="refused"),
        _ms(between.quantile(0.5, "pointsman_request_seconds")),
        _ms(between.quantile(0.95, "pointsman_request_seconds")),
        None if overhead is None else overhead * 1e6,
        rate("pointsman_marginal_cost_usd_total") * 3600 + reserved,
        rate("pointsman_baseline_cost_usd_total") * 3600,
        int(now.total("pointsman_egress_blocked_total")),
        int(now.total("pointsman_detector_failures_total")),
        {tier: count / all_answers for tier, count in answers.items() if count},
        tuple(_backends(between)),
        tuple(_rules(between)),
        tuple(_quotas(now)),
        tuple(_warnings(now)),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _backends(between: Between) -> list[BackendRow]:
    now, rows = between.after, []
    places = [(found["tier"], found["backend"]) for found, _ in now.series("pointsman_backend_available")]
    for tier, backend in sorted(places, key=lambda one: (nearness(one[0]), one[1])):
        calls = between.rate("pointsman_attempts_total", backend=backend)
        good = between.rate("pointsman_attempts_total", backend=backend, outcome="ok")
        given_up = between.rate("pointsman_attempts_total", backend=backend, outcome="cancelled")
        marginal = between.rate("pointsman_marginal_cost_usd_total", backend=backend) * 3600
        states = [found["state"] for found, v in now.series("pointsman_backend_state", backend=backend) if v == 1]
        rows.append(
            BackendRow(
                backend,
                tier,
                "+".join(states) or "?",  # of several replicas, not all may see the same
                calls,
                max(calls - good - given_up, 0.0),
                int(now.total("pointsman_in_flight", backend=backend)),
                int(now.total("pointsman_concurrency_limit", backend=backend)),
                int(now.total("pointsman_queued", backend=backend)),
                _ms(between.quantile(0.5, "pointsman_attempt_seconds", backend=backend)),
                _ms(between.quantile(0.95, "pointsman_attempt_seconds", backend=backend)),
                marginal + now.total("pointsman_reserved_usd_per_hour", backend=backend),
                int(now.total("pointsman_ejections_total", backend=backend)),
            )
        )
    return rows


def _rules(between: Between) -> list[RuleRow]:
    now, rows = between.after, []
    for rule in now.values("pointsman_slo_requests_total", "rule"):
        met, missed = (now.total("pointsman_slo_requests_total", rule=rule, met=one) for one in ("true", "false"))
        share = met / (met + missed) if met + missed else None
        rows.append(RuleRow(rule, between.rate("pointsman_requests_total", rule=rule), share))
    return sorted(rows, key=lambda row: (-row.per_second, row.rule))


def _quotas(now: Reading) -> list[QuotaRow]:
    rows = []
    for found, cap in now.series("pointsman_quota_cap"):
        at = {"quota": found["quota"], "unit": found["unit"]}
        left = now.total("pointsman_quota_remaining", **at) / cap if cap else 0.0
        rows.append(QuotaRow(found["quota"], found["unit"], cap, now.total("pointsman_quota_used", **at), left))
    return sorted(rows, key=lambda row: (row.left, row.quota))


def _warnings(now: Reading) -> list[str]:
    found = []
    for name, text in (
        ("pointsman_egress_blocked_total", "calls above a backend's clearance were stopped at the last check"),
        ("pointsman_detector_failures_total", "scans in which a detector failed"),
        ("pointsman_decision_log_dropped_total", "records lost to the decision log"),
        ("pointsman_ledger_errors_total", "reports to the ledger without an answer"),
    ):
        count = int(now.total(name))
        if count:
            found.append(f"{count} {text}")
    if now.total("pointsman_configuration_stale"):
        found.append("the files are refused; an older configuration is live")
    return found
