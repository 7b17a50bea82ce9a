"""What each tenant asks, gets and costs."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from dashboards.board import COSTS, POLICY, TENANTS, board
from dashboards.costs import budgets_left
from dashboards.panels import (
    PER_SECOND,
    RATIO,
    SECONDS,
    TOKENS_PER_SECOND,
    USD,
    USD_PER_HOUR,
    Column,
    Query,
    bars,
    jump,
    lines,
    number,
    rows,
)
from dashboards.queries import among, grown, or_none, quantile, rate, share, total

_TENANT = among("tenant")
_FAULTS = 'outcome=~"overloaded|unavailable|deadline|upstream_error|stream_broken|internal"'
_STOPPED = 'outcome=~"refused|rate_limited|budget_exhausted"'


def _grown(name: str) -> str:
    return total(grown(name, _TENANT), "tenant")


def dashboard() -> models.Dashboard:
    return board(
        TENANTS,
        "Pointsman: tenants",
        "What does each tenant ask, what does it get, what does it cost, and what stops it?",
        [("Who asks, and what do they get?", _TRAFFIC), ("What does it cost?", _COST), ("What stops them?", _LIMITS)],
        ("tenant",),
    )


_TRAFFIC = [
    rows(
        "Who asks how much, and for what money?",
        "Over the time shown. Nobody's name: requests without a good key. Cost: at full use, of all answers, used or "
        "not.",
        Column("requests", _grown("pointsman_tenant_requests_total"), gauge=True),
        Column("cost", _grown("pointsman_tenant_cost_usd_total"), USD),
        Column("all cloud", _grown("pointsman_tenant_baseline_cost_usd_total"), USD),
        span=24,
        sort="requests",
        links=[jump(COSTS, "Cost and carbon")],
    ),
    lines(
        "Who asks how much?",
        "Requests by tenant; without a name: nobody knew whose.",
        PER_SECOND,
        Query(total(rate("pointsman_tenant_requests_total", _TENANT), "tenant"), "{{tenant}}"),
        stacked=True,
        span=8,
        links=[jump(TENANTS, "Only this tenant", tenant="tenant")],
    ),
    lines(
        "How do their requests end?",
        "By outcome; the words are explained in docs/metrics.md.",
        PER_SECOND,
        Query(total(rate("pointsman_tenant_requests_total", _TENANT), "tenant", "outcome"), "{{tenant}} {{outcome}}"),
        span=8,
    ),
    lines(
        "How long do their answers take?",
        "From arrival to the end of the answer, of good answers.",
        SECONDS,
        *(Query(quantile(q, "pointsman_tenant_request_seconds", _TENANT, by=("tenant",)),
                f"{{{{tenant}}}} p{100 * q:g}", exemplars=True) for q in (0.5, 0.95, 0.99)),
        span=8,
    ),
    bars(
        "Whom does the service fail?",
        "Of a tenant's requests over the time shown, the share that the service failed at.",
        RATIO,
        Query(share(total(grown("pointsman_tenant_requests_total", _FAULTS, _TENANT), "tenant"),
                    _grown("pointsman_tenant_requests_total")), "{{tenant}}"),
        steps=((None, "green"), (0.001, "orange"), (0.01, "red")),
        most=1,
    ),
]  # fmt: skip

_COST = [
    lines(
        "What do they cost?",
        "At the fleet's prices, own hardware with its share at full capacity; all answers, used or not.",
        USD_PER_HOUR,
        Query(f"3600 * {total(rate('pointsman_tenant_cost_usd_total', _TENANT), 'tenant')}", "{{tenant}}"),
        stacked=True,
        span=8,
        links=[jump(COSTS, "Cost and carbon")],
    ),
    lines(
        "What do they save?",
        "All cloud for the same answers, less that cost. Own hardware that waits is on nobody's account.",
        USD_PER_HOUR,
        Query(f"3600 * ({total(rate('pointsman_tenant_baseline_cost_usd_total', _TENANT), 'tenant')} - "
              f"{total(rate('pointsman_tenant_cost_usd_total', _TENANT), 'tenant')})", "{{tenant}}"),
        span=8,
        least=None,
    ),
    lines(
        "How many tokens do they use?",
        "In and out, told by backends or estimated.",
        TOKENS_PER_SECOND,
        Query(or_none(total(rate("pointsman_tenant_tokens_total", _TENANT), "tenant", "direction"), "tenant"),
              "{{tenant}} {{direction}}"),
        span=8,
    ),
    number(
        "What does a thousand requests of theirs cost?",
        "Over the time shown, by all their requests.",
        USD,
        Query(f"1000 * {share(_grown('pointsman_tenant_cost_usd_total'), _grown('pointsman_tenant_requests_total'))}",
              "{{tenant}}"),
        span=24,
        names=True,
    ),
]  # fmt: skip

_LIMITS = [
    lines(
        "Whom do policy, budgets and limits stop?",
        "Requests that were refused, by tenant and reason.",
        PER_SECOND,
        Query(or_none(total(rate("pointsman_tenant_requests_total", _STOPPED, _TENANT), "tenant", "outcome"), "tenant"),
              "{{tenant}} {{outcome}}"),
        span=8,
        links=[jump(POLICY, "Which filters remove backends")],
    ),
    budgets_left("Of its cap; where it has keys, such as tenants, of the one that has least."),
    rows(
        "Who lowered labels, from what to what?",
        "Over the time shown, by tenants that may. Each is in the decision log.",
        Column("requests", or_none(
            total(grown("pointsman_declassified_total", _TENANT), "tenant", "from_label", "to_label"), "tenant"
        )),
        span=8,
        links=[jump(POLICY, "Labels")],
    ),
]  # fmt: skip
