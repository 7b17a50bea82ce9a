"""A dashboard: variables, rows of panels, links to the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.panels import SOURCE

TAG = "pointsman"
OVERVIEW, POLICY, BACKENDS, COSTS, TENANTS = (
    f"pointsman-{name}" for name in ("overview", "policy", "backends", "costs", "tenants")
)
"""The dashboards by uid: an address that does not change when they are imported anew."""

_VALUES: Final[Mapping[str, str]] = {
    "job": "label_values(pointsman_build_info, job)",
    "instance": 'label_values(pointsman_build_info{job=~"$job"}, instance)',
    "tier": 'label_values(pointsman_backend_available{job=~"$job"}, tier)',
    "backend": 'label_values(pointsman_backend_available{job=~"$job"}, backend)',
    "model": 'label_values(pointsman_cost_usd_total{job=~"$job"}, model)',
    "rule": 'label_values(pointsman_slo_requests_total{job=~"$job"}, rule)',
    "tenant": 'label_values(pointsman_tenant_requests_total{job=~"$job"}, tenant)',
}
"""Where the choices of each variable come from."""

Rows = Sequence[tuple[str, Sequence[Builder[models.Panel]]]]


def board(uid: str, title: str, description: str, rows: Rows, variables: Sequence[str] = ()) -> models.Dashboard:
    made = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("Pointsman")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for name in ("job", "instance", *variables):
        made.with_variable(_variable(name))
    for row, panels in rows:
        made.with_row(builders.Row(row))
        for panel in panels:
            made.with_panel(panel)
    found = made.build()
    for number, one in enumerate(found.panels or (), start=1):
        one.id_val = number  # so that an address with viewPanel=… leads to the same panel tomorrow
    return found


def _variable(name: str) -> builders.QueryVariable:
    """Several may be chosen. "All" matches series without the label, too: a refused request has no backend."""
    return (
        builders.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query({"query": _VALUES[name], "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def text(made: models.Dashboard) -> str:
    return json.dumps(made, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def plain(made: models.Dashboard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text(made))
    return found
