"""What must hold of the answer to every query of every panel, and of every rule."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tests.prometheus.expressions import PanelQuery, panel_queries, recorded, selectors, variable_queries, with_values
from tests.prometheus.server import Prometheus, Series

BELOW_0 = frozenset({
    "How much of the error budget is left?", "How much do we save?", "How much was saved?", "What do they save?",
    "job:pointsman_savings_usd_per_hour:rate5m",
})  # fmt: skip
"""Differences. Nothing else is ever negative."""
ABOVE_1 = frozenset({
    "How well is own hardware used?", "job_backend_tier:pointsman_reserved_utilisation:ratio_rate5m",
})  # fmt: skip
"""Shares of what somebody wrote into the fleet; it may be that hardware can do more."""
STILL = frozenset({
    "Did anything sensitive nearly leave?", "Does the decision log lose records?", "Did the ledger not answer?",
    "Do detectors fail?",
})  # fmt: skip
"""What must be 0 in every healthy run."""
ROUNDING = 1e-9
RATE_S = 10


@dataclass(frozen=True, slots=True)
class Answer:
    name: str  # of the query
    panel: str  # or of the recording rule
    unit: str
    series: Series
    waits: bool = False  # none of the metrics it needs is filled yet, so it has nothing to say

    def values(self) -> Iterator[float]:
        for _, values in self.series:
            yield from values

    @property
    def last(self) -> list[float]:
        return [values[-1] for _, values in self.series if values]


def ask_all(server: Prometheus, seconds: int, **chosen: str) -> list[Answer]:
    """Every query of every panel as Grafana would send it, over the latest `seconds`."""
    answers = []
    for query in panel_queries():
        expr = query.with_values(seconds, RATE_S, **chosen)
        series = server.over(expr, min(seconds, 15)) if query.over_time else server.now(expr)
        waits = not series and _waits(server, query)
        answers.append(Answer(str(query), query.panel, query.unit, series, waits))
    return answers


def ask_rules(server: Prometheus) -> list[Answer]:
    return [Answer(name, name, "ratio" if ":ratio" in name else "", server.now(name)) for name in recorded()]


def _waits(server: Prometheus, query: PanelQuery) -> bool:
    """Whether no series exists at all of what it names: the router does not fill that metric (yet)."""
    names = {name for name, _ in selectors(with_values(query.expr))}
    return names <= NOT_FILLED and not any(server.now(f"count({name})") for name in names)


NOT_FILLED = frozenset({"pointsman_carbon_intensity_grams_per_kwh"})
"""Metrics that exist but that nothing sets today. A panel of them is checked as soon as something does."""


def problems(answers: list[Answer], at_rest: Collection[str], still: Collection[str] = STILL) -> list[str]:
    """What is wrong with them. `still` names panels that must be 0, `at_rest` panels (or one query of them) and rules
    that may be; of every other, something must have moved."""
    found = []
    for one in answers:
        if one.waits:
            continue
        values = list(one.values())
        if not values:
            found.append(f"{one.name}: no data")
            continue
        if not all(math.isfinite(value) for value in values):
            found.append(f"{one.name}: not a number, or no end to it: {values[-5:]}")
        if min(values) < -ROUNDING and one.panel not in BELOW_0:
            found.append(f"{one.name}: below 0: {min(values)}")
        if one.unit in ("percentunit", "ratio") and max(values) > 1 + ROUNDING and one.panel not in ABOVE_1:
            found.append(f"{one.name}: a share above 1: {max(values)}")
        names = {one.panel, one.name.partition(" · ")[2]}
        if any(values) and names & set(still):
            found.append(f"{one.name}: not 0: {max(values)}")
        if not any(values) and not names & (set(still) | set(at_rest)):
            found.append(f"{one.name}: nothing but 0")
    return found


def check_rules(server: Prometheus) -> list[str]:
    return [f"{rule['name']}: {rule.get('lastError')}" for rule in server.rules() if rule["health"] != "ok"]


def check_variables(server: Prometheus) -> list[str]:
    return [f"${name}: nothing to choose" for name, query in variable_queries().items()
            if not server.label_values(with_values(query))]  # fmt: skip


def escaped(value: str) -> str:
    """As Grafana writes a chosen value into a regular expression in a query."""
    return re.escape(value).replace("\\", "\\\\")
