"""Every query that we ship: of panels, variables, recording rules and alerts; and the metrics that they may name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from dashboards.board import plain
from dashboards.files import dashboards
from router.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "configs" / "prometheus"
RECORDING, ALERTS = RULES / "recording.yaml", RULES / "alerts.yaml"
OF_PROMETHEUS = frozenset({"ALERTS", "up"})


@dataclass(frozen=True, slots=True)
class PanelQuery:
    dashboard: str
    panel: str
    ref: str
    expr: str  # with Grafana's variables
    unit: str  # of the panel, or of the column
    over_time: bool

    def __str__(self) -> str:
        return f"{self.dashboard} · {self.panel} · {self.ref}"

    def with_values(self, seconds: int, rate_s: int, **chosen: str) -> str:
        """As Grafana sends it. What is not chosen is "All"."""
        return with_values(self.expr, seconds, rate_s, **chosen)


def with_values(expr: str, seconds: int = 3600, rate_s: int = 60, **chosen: str) -> str:
    expr = expr.replace("$__rate_interval", f"{rate_s}s")
    expr = expr.replace("$__range", f"{seconds}s")
    step_s = max(1, seconds // 1000)
    expr = expr.replace("$__interval_ms", str(1000 * step_s)).replace("$__interval", f"{step_s}s")
    return re.sub(r"\$(\w+)", lambda name: chosen.get(name[1], ".*"), expr)


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each with its dashboard's file; rows are panels too."""
    for file, made in dashboards().items():
        for panel in plain(made)["panels"]:
            yield file, panel


def panel_queries() -> list[PanelQuery]:
    return [
        PanelQuery(
            file.removesuffix(".json"),
            panel["title"],
            target["refId"],
            target["expr"],
            _unit(panel, at),
            target["range"],
        )
        for file, panel in panels()
        for at, target in enumerate(panel.get("targets", ()))
    ]


def _unit(panel: dict[str, Any], at: int) -> str:
    config = panel["fieldConfig"]
    columns = [p["value"] for one in config["overrides"] for p in one["properties"] if p["id"] == "unit"]
    return str(columns[at] if columns else config["defaults"].get("unit", ""))


def variable_queries() -> dict[str, str]:
    """What fills the variables of dashboards: label and metric, by name."""
    found = {}
    for made in dashboards().values():
        for one in plain(made)["templating"]["list"]:
            if one["type"] == "query":
                found[one["name"]] = one["query"]["query"]
    return found


def rules(file: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def recorded() -> dict[str, str]:
    """Recording rules: name and expression."""
    return {rule["record"]: rule["expr"] for rule in rules(RECORDING)}


def samples() -> dict[str, set[str]]:
    """Every series that the router has, and its labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        one = getattr(metric, "metric", metric)
        if not hasattr(one, "_labelnames"):
            continue
        labels = set(one._labelnames)
        match one._type:
            case "counter":
                found[f"{one._name}_total"] = labels
            case "histogram":
                found |= {f"{one._name}_{end}": labels for end in ("sum", "count")}
                found[f"{one._name}_bucket"] = labels | {"le"}
            case _:
                found[one._name] = labels
    return found


def selectors(expr: str) -> list[tuple[str, set[str]]]:
    """The names of metrics in an expression, and the labels that it matches on. Raises ValueError for one that does not
    parse."""
    found = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


def grouped(expr: str) -> set[str]:
    """The labels that aggregations keep and that operators match on."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        modifier = getattr(node, "modifier", None)
        if isinstance(node, promql_parser.AggregateExpr) and modifier is not None:
            found.update(modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and modifier is not None and modifier.matching is not None:
            found.update(modifier.matching.labels)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found
