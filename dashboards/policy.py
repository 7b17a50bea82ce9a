"""What the policy does: rules, rejections, labels, and what another policy or another backend would do."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from dashboards.board import BACKENDS, POLICY, TENANTS, board
from dashboards.panels import (
    COUNT,
    NONE_IS_GOOD,
    PER_SECOND,
    RATIO,
    SECONDS,
    Column,
    Query,
    jump,
    jump_row,
    lines,
    number,
    rows,
)
from dashboards.queries import among, grown, of, or_none, or_zero, quantile, rate, recorded, share, total

_RULE, _BACKEND = among("rule"), among("backend")
_TURNED_AWAY = 'outcome=~"refused|unauthorized|rate_limited|budget_exhausted"'
_MISSED = share(
    total(rate("pointsman_slo_requests_total", 'met="false"', _RULE), "rule"),
    total(rate("pointsman_slo_requests_total", _RULE), "rule"),
)


def dashboard() -> models.Dashboard:
    return board(
        POLICY,
        "Pointsman: policy",
        "Which rules speak, what is rejected and why, how sensitive is what comes, and what would another policy do?",
        [("Which policy decides?", _LIVE), ("Which rules speak, and what do they remove?", _RULES),
         ("How sensitive is what comes?", _LABELS), ("What would another policy, or another backend, do?", _TRIALS)],
        ("rule", "backend"),
    )  # fmt: skip


_LIVE = [
    rows(
        "Which policy is live, and where?",
        "The digest of policy and fleet that decides, and how many routers go by it. Two digests for long: routers are "
        "of two minds.",
        Column("routers", f"count by (digest) ({of('pointsman_policy_info')})"),
        span=6,
        height=4,
    ),
    number(
        "How many routers refuse the files?",
        "Routers that go on with an older configuration, because something is wrong with the files as they were last "
        "read. They would not start again with these.",
        COUNT,
        Query(or_zero(total(of("pointsman_configuration_stale")))),
        steps=NONE_IS_GOOD,
        span=6,
    ),
    number(
        "Does the decision log lose records?",
        "Records that were dropped over the time shown.",
        COUNT,
        Query(or_zero(total(grown("pointsman_decision_log_dropped_total")))),
        steps=NONE_IS_GOOD,
        span=6,
    ),
    number(
        "How many records wait to be written?",
        "Of the decision log; at 10,000 they are dropped.",
        COUNT,
        Query(or_zero(total(of("pointsman_decision_log_queued")))),
        steps=((None, "green"), (1000, "orange"), (9000, "red")),
        span=6,
    ),
    lines(
        "When was the configuration read again?",
        "Reloads by what came of them: swapped in, unchanged, or refused because something was wrong.",
        COUNT,
        Query(total(f"increase({of('pointsman_reloads_total')}[$__rate_interval])", "outcome"), "{{outcome}}"),
        span=12,
    ),
    lines(
        "How long does deciding take?",
        "To label a request and to decide where it goes.",
        SECONDS,
        *(Query(quantile(q, "pointsman_decision_seconds"), f"p{100 * q:g}") for q in (0.5, 0.95, 0.99)),
        span=12,
    ),
]

_RULES = [
    lines(
        "Which rules speak?",
        "Requests by the rule that matched first.",
        PER_SECOND,
        Query(total(rate("pointsman_requests_total", _RULE, 'rule!=""'), "rule"), "{{rule}}"),
        stacked=True,
    ),
    lines(
        "Which rules meet their objectives?",
        "Of the requests of a rule that were to be answered, the share that was, within its slo.",
        RATIO,
        Query(f"1 - {_MISSED}", "{{rule}}"),
        steps=((None, "red"), (0.99, "green")),
    ),
    lines(
        "Which filters remove backends?",
        "Backends that were removed from decisions, by the filter that did it. One request may remove several.",
        PER_SECOND,
        Query(or_none(total(rate("pointsman_rejections_total", _BACKEND), "filter"), "filter"), "{{filter}}"),
        stacked=True,
    ),
    rows(
        "Which backends are removed, and by what?",
        "How often, over the time shown: which backend was removed from a decision, and by which filter.",
        Column("rejections", or_none(
            total(grown("pointsman_rejections_total", _BACKEND), "backend", "filter"), "filter"
        ), gauge=True),
        sort="rejections",
        links=[jump_row(BACKENDS, "This backend", backend="backend")],
    ),
    lines(
        "What is turned away?",
        "Requests that were not answered because policy, a budget or a limit says so, or for want of a good key.",
        PER_SECOND,
        Query(or_none(total(rate("pointsman_tenant_requests_total", _TURNED_AWAY), "outcome"), "outcome"),
              "{{outcome}}"),
        links=[jump(TENANTS, "Whose they were")],
    ),
    lines(
        "Why was nobody let in?",
        "Requests without a good key or token, by what was wrong with it.",
        PER_SECOND,
        Query(total(rate("pointsman_unauthorized_total"), "reason"), "{{reason}}"),
    ),
]  # fmt: skip

_LABELS = [
    lines(
        "How sensitive is what comes?",
        "Requests by label: the highest of default, floors, the caller's word and what detectors found.",
        PER_SECOND,
        Query(total(rate("pointsman_labels_total"), "label"), "{{label}}"),
        stacked=True,
        span=8,
    ),
    lines(
        "What do detectors find?",
        "Values found in requests, by type. What they were is nowhere.",
        PER_SECOND,
        Query(or_none(total(rate("pointsman_entities_total"), "type"), "type") , "{{type}}"),
        span=8,
    ),
    lines(
        "Do detectors fail?",
        "Scans that a detector gave no answer to. The request gets the top label for that.",
        PER_SECOND,
        Query(or_none(total(rate("pointsman_detector_failures_total"), "detector"), "detector"), "{{detector}}"),
        span=8,
        steps=((None, "green"), (0.001, "red")),
    ),
    number(
        "Did anything sensitive nearly leave?",
        "Calls that the last check stopped over the time shown, because they were above a backend's clearance.",
        COUNT,
        Query(or_zero(total(grown("pointsman_egress_blocked_total", _BACKEND)))),
        steps=NONE_IS_GOOD,
        filled=True,
        span=6,
    ),
    number(
        "How many labels did somebody lower?",
        "By authorised tenants, over the time shown. Each is in the decision log.",
        COUNT,
        Query(or_zero(total(grown("pointsman_declassified_total")))),
        span=6,
        links=[jump(TENANTS, "Tenants")],
    ),
    number(
        "How many values were masked?",
        "Replaced by placeholders before a request was sent, over the time shown.",
        COUNT,
        Query(or_zero(total(grown("pointsman_pseudonymised_total")))),
        span=6,
    ),
    number(
        "How many placeholders came back strange?",
        "Placeholders in answers that stand for nothing in their request, over the time shown: the model made them up.",
        COUNT,
        Query(or_zero(total(grown("pointsman_placeholders_unrestored_total")))),
        steps=((None, "green"), (1, "orange")),
        span=6,
    ),
]  # fmt: skip

_TRIALS = [
    lines(
        "How often would the candidate policy do something else?",
        "Of the decisions that the candidate (--candidate) made as well, the share that it made otherwise.",
        RATIO,
        Query(or_zero(f"max({recorded('job:pointsman_candidate_divergence:ratio_rate5m')})"), "otherwise"),
        span=8,
    ),
    rows(
        "Where would the candidate policy send it?",
        "Requests over the time shown: who answered, and who would have.",
        Column("requests", or_none(
            total(grown("pointsman_candidate_decisions_total"), "live_backend", "candidate_backend"), "live_backend"
        ), gauge=True),
        span=8,
        sort="requests",
    ),
    lines(
        "How do backends on trial answer?",
        "Copies of requests (shadow) by what came of them. Callers see nothing of it.",
        PER_SECOND,
        Query(or_none(total(rate("pointsman_shadow_copies_total"), "backend", "outcome"), "backend"),
              "{{backend}} {{outcome}}"),
        span=8,
        links=[jump(BACKENDS, "This backend", backend="backend")],
    ),
]  # fmt: skip
