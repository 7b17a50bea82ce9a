"""Every expression that we ship parses, and names metrics and labels that exist. Needs no Prometheus."""

from __future__ import annotations

import re

import pytest

from tests.prometheus.expressions import (
    ALERTS,
    OF_PROMETHEUS,
    RECORDING,
    grouped,
    panel_queries,
    recorded,
    rules,
    samples,
    selectors,
    with_values,
)

EXPRESSIONS = {
    **{str(query): with_values(query.expr) for query in panel_queries()},
    **{rule["record"]: rule["expr"] for rule in rules(RECORDING)},
    **{f"{rule['alert']} {rule['labels'].get('window', '')}": rule["expr"] for rule in rules(ALERTS)},
}
SAMPLES = samples()
TARGET = {"job", "instance"}
"""Labels that Prometheus adds to everything that it scrapes."""
MADE = {"pair"}
"""Labels that an expression makes itself."""


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_it_parses_and_names_what_exists(name):
    found = selectors(EXPRESSIONS[name])
    assert found or EXPRESSIONS[name].startswith("vector(")
    for metric, labels in found:
        if metric not in OF_PROMETHEUS:
            assert labels <= kept(metric), f"{metric} has no label {labels - kept(metric)}"
    everything = {label for metric, _ in found for label in kept(metric)} | MADE
    assert grouped(EXPRESSIONS[name]) <= everything


def kept(metric):
    """Its labels; of a recording rule, as its name says."""
    if metric in SAMPLES:
        return SAMPLES[metric] | TARGET
    assert metric in recorded() or metric in OF_PROMETHEUS, f"nobody makes {metric}"
    level = metric.partition(":")[0]
    return set() if level == "pointsman" else set(level.split("_"))


def test_the_names_of_recording_rules_are_level_metric_operations():
    for name, expr in recorded().items():
        assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", name), name
        if name.partition(":")[0] != "pointsman" and grouped(expr):
            assert kept(name) <= grouped(expr), f"{name} says that it keeps other labels"


def test_a_metric_that_is_not_there_would_be_noticed():
    assert selectors('sum(rate(pointsman_requests_totl{job="x"}[5m]))') == [("pointsman_requests_totl", {"job"})]
    with pytest.raises(ValueError):
        selectors("sum(rate(pointsman_requests_total[5m])")


def test_the_objective_stands_in_one_place():
    numbers = [rule["expr"] for rule in rules(RECORDING) if rule["record"] == "pointsman:slo_objective:ratio"]
    assert numbers == ["vector(0.99)"]
    assert not [name for name, expr in EXPRESSIONS.items() if "0.99" in expr and "quantile" not in expr
                and name != "pointsman:slo_objective:ratio"]  # fmt: skip


def test_every_instrument_can_be_seen_somewhere():
    """Or is named here, with the reason."""
    unseen = {
        "gen_ai_server_request_duration_seconds": "the same as pointsman_request_seconds, by OpenTelemetry's name",
        "gen_ai_server_time_to_first_token_seconds": "likewise",
        "gen_ai_server_time_per_output_token_seconds": "likewise",
    }
    shown = {metric for query in panel_queries() for metric, _ in selectors(with_values(query.expr))}
    shown |= {m for name, expr in recorded().items() if name in shown for m, _ in selectors(expr)}
    base = {re.sub(r"_(bucket|sum|count)$", "", name) for name in SAMPLES}
    missing = {name for name in base if not {one for one in shown if re.sub(r"_(bucket|sum|count)$", "", one) == name}}
    assert missing == set(unseen)
