"""Where traffic goes and why, what it costs, whether objectives hold, and that nothing left that may not."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from dashboards.board import BACKENDS, COSTS, OVERVIEW, POLICY, board
from dashboards.panels import (
    BYTES,
    COUNT,
    MORE_IS_GOOD,
    NONE_IS_GOOD,
    PER_SECOND,
    RATIO,
    SECONDS,
    USD_PER_HOUR,
    Column,
    Query,
    jump,
    jump_row,
    lines,
    number,
    rows,
)
from dashboards.queries import grown, of, or_zero, quantile, rate, recorded, share, total

_OBJECTIVE = "scalar(pointsman:slo_objective:ratio)"
_MISSED = share(
    total(grown("pointsman_slo_requests_total", 'met="false"')), total(grown("pointsman_slo_requests_total"))
)


def dashboard() -> models.Dashboard:
    return board(
        OVERVIEW,
        "Pointsman: overview",
        "Where does traffic go, and why; what does it cost; do objectives hold; did anything leave that may not?",
        [("Is everything all right?", _GLANCE), ("Where does traffic go, and why?", _FLOW),
         ("What does it cost, and how long does it take?", _RESULT),
         ("What does the router itself take?", _ITSELF)],
    )  # fmt: skip


_GLANCE = [
    number(
        "Did anything sensitive nearly leave?",
        "Calls that the last check stopped in front of a backend because they were above its clearance. The decision "
        "checks the same before, so this is 0 unless the router has a defect. Nothing left even where it is not.",
        COUNT,
        Query(or_zero(total(grown("pointsman_egress_blocked_total")))),
        steps=NONE_IS_GOOD,
        filled=True,
        span=5,
        links=[jump(POLICY, "Labels, detectors and rejections")],
    ),
    number(
        "Are objectives met?",
        "Of the requests that were to be answered, the share that was, within the slo of its rule. Over the time "
        "shown.",
        RATIO,
        Query(f"1 - {_MISSED}"),
        steps=((None, "red"), (0.98, "orange"), (0.99, "green")),
        span=5,
        links=[jump(POLICY, "By rule")],
    ),
    number(
        "How much of the error budget is left?",
        "What the objective (pointsman:slo_objective:ratio) allows to fail, less what has failed over the time shown. "
        "Below 0: more has failed than it allows.",
        RATIO,
        Query(f"1 - ({_MISSED}) / (1 - {_OBJECTIVE})"),
        steps=((None, "red"), (0, "orange"), (0.25, "green")),
        span=5,
    ),
    number(
        "How much do we save?",
        "What the same answers would have cost in the cloud, less all that is spent, own hardware that waits included. "
        "Below 0: own hardware has too little to do to pay for itself.",
        USD_PER_HOUR,
        Query(f"sum({recorded('job:pointsman_savings_usd_per_hour:rate5m')})"),
        steps=MORE_IS_GOOD,
        span=5,
        links=[jump(COSTS, "Cost and carbon")],
    ),
    number(
        "How many alerts fire?",
        "Alerts of configs/prometheus/alerts.yaml that fire now. Each has a page in docs/runbooks/.",
        COUNT,
        Query(or_zero('count(ALERTS{alertname=~"Pointsman.*", alertstate="firing"})')),
        steps=NONE_IS_GOOD,
        span=4,
    ),
    number(
        "How many requests come?",
        "All of them, also those that are refused.",
        PER_SECOND,
        Query(total(rate("pointsman_tenant_requests_total"))),
        span=5,
    ),
    number(
        "How many fail that should not?",
        "Requests that the service itself failed at, of all: overloaded, unavailable, too late, broken. What callers "
        "did wrong, policy refuses or a budget stops is not among them.",
        RATIO,
        Query(f"1 - min({recorded('job:pointsman_requests_success:ratio_rate5m')})"),
        steps=((None, "green"), (0.001, "orange"), (0.01, "red")),
        span=5,
    ),
    number(
        "What is spent an hour?",
        "What answers add, and what is paid by the hour, used or not.",
        USD_PER_HOUR,
        Query(f"sum({recorded('job:pointsman_spend_usd_per_hour:rate5m')})"),
        span=5,
        links=[jump(COSTS, "Cost and carbon")],
    ),
    number(
        "How many backends are out?",
        "Backends that health keeps out at one router or more.",
        COUNT,
        Query(f"sum(1 - min by (backend) ({of('pointsman_backend_available')}))"),
        steps=((None, "green"), (1, "orange")),
        span=5,
        links=[jump(BACKENDS, "Backends")],
    ),
    number(
        "How many routers run?",
        "Routers that Prometheus can scrape; one may stand for several replicas on its node.",
        COUNT,
        Query(or_zero(f"count({of('pointsman_build_info')})")),
        steps=((None, "red"), (1, "green")),
        span=4,
    ),
]

_FLOW = [
    lines(
        "Which tiers answer?",
        "Requests by the tier of the backend that answered, or was the last to fail.",
        PER_SECOND,
        Query(total(rate("pointsman_requests_total", 'tier!=""'), "tier"), "{{tier}}"),
        stacked=True,
        span=8,
        links=[jump(BACKENDS, "Backends of this tier", tier="tier")],
    ),
    lines(
        "Which rules send it there?",
        "Requests by the first rule of the policy that matched. Those without a rule were refused before.",
        PER_SECOND,
        Query(total(rate("pointsman_requests_total", 'rule!=""'), "rule"), "{{rule}}"),
        stacked=True,
        span=8,
        links=[jump(POLICY, "This rule", rule="rule")],
    ),
    lines(
        "How sensitive is it?",
        "Requests by label: the highest of default, floors, the caller's word and what detectors found.",
        PER_SECOND,
        Query(total(rate("pointsman_labels_total"), "label"), "{{label}}"),
        stacked=True,
        span=8,
        links=[jump(POLICY, "Labels and detectors")],
    ),
    rows(
        "Which way did requests take?",
        "Requests over the time shown, from rule to tier, backend and model, and how they ended. An empty cell: it was "
        "refused before it got there.",
        Column("requests", total(grown("pointsman_requests_total"), "rule", "tier", "backend", "model", "outcome")
               + " > 0", gauge=True),
        span=16,
        height=10,
        sort="requests",
        links=[jump_row(BACKENDS, "This backend", backend="backend")],
    ),
    lines(
        "How do requests end?",
        "ok, or why not. The words are explained in docs/metrics.md.",
        PER_SECOND,
        Query(total(rate("pointsman_tenant_requests_total"), "outcome"), "{{outcome}}"),
        stacked=True,
        span=8,
    ),
]  # fmt: skip

_RESULT = [
    lines(
        "What does it cost against all cloud?",
        "Spent: what answers add, and what is paid by the hour. At full use: the same with own hardware charged by its "
        "share at full capacity. All cloud: the same answers at the cheapest cloud price that the fleet names.",
        USD_PER_HOUR,
        Query(f"sum({recorded('job:pointsman_spend_usd_per_hour:rate5m')})", "spent"),
        Query(f"3600 * {total(rate('pointsman_cost_usd_total'))}", "at full use"),
        Query(f"3600 * {total(rate('pointsman_baseline_cost_usd_total'))}", "all cloud"),
        links=[jump(COSTS, "Cost and carbon")],
    ),
    lines(
        "How long do answers take?",
        "From a request's arrival to the end of its answer, of good answers. Dots are traces, where they are sampled.",
        SECONDS,
        *(Query(quantile(q, "pointsman_request_seconds"), f"p{100 * q:g}", exemplars=True) for q in (0.5, 0.95, 0.99)),
        links=[jump(BACKENDS, "By backend")],
    ),
    lines(
        "How much of that is the router's own?",
        "Time in the router itself: all but waiting for places and backends; and deciding alone.",
        SECONDS,
        Query(quantile(0.5, "pointsman_overhead_seconds"), "overhead, p50"),
        Query(quantile(0.99, "pointsman_overhead_seconds"), "overhead, p99"),
        Query(quantile(0.99, "pointsman_decision_seconds"), "deciding, p99"),
    ),
    lines(
        "How fast is the error budget used?",
        "1: as fast as the objective allows over its whole period. Alerts begin at 14.4 (an hour), 6 (six hours), "
        "3 (a day) and 1 (three days).",
        COUNT,
        Query(f"max by (rule) ({recorded('job_rule:pointsman_slo_errors:ratio_rate1h')}) / (1 - {_OBJECTIVE})",
              "{{rule}}, over 1 h"),
        steps=((None, "green"), (1, "orange"), (6, "red")),
        links=[jump(POLICY, "This rule", rule="rule")],
    ),
]  # fmt: skip

_ITSELF = [
    lines(
        "How much CPU time does a request take here?",
        "CPU time of the router's processes for each request, with that of the models that run in them.",
        SECONDS,
        Query(f"{total(rate('pointsman_cpu_seconds_total'))} / ({total(rate('pointsman_tenant_requests_total'))} > 0)",
              "a request"),
        span=8,
    ),
    lines(
        "How many processors do the routers keep busy?",
        "By instance, all its replicas together, with scans and models that run in them. A replica's event loop alone "
        "keeps at most one busy: where it has little else to do, more replicas are needed at nearly 1 for each.",
        COUNT,
        Query(total(rate("pointsman_cpu_seconds_total"), "instance"), "{{instance}}"),
        span=8,
    ),
    lines(
        "How much memory do the routers hold?",
        "Resident memory of their processes, all replicas of an instance together.",
        BYTES,
        Query(total(of("pointsman_resident_memory_bytes"), "instance"), "{{instance}}"),
        span=8,
    ),
]  # fmt: skip
