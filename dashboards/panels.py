"""Panels with the same look, so that a dashboard is a list of questions and queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

P = TypeVar("P")
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
Steps = Sequence[tuple[float | None, str]]
"""From which value on which colour; the first begins at None."""

USD, USD_PER_HOUR, PER_SECOND, RATIO, SECONDS, COUNT = (
    "currencyUSD",
    "suffix: USD/h",
    "reqps",
    "percentunit",
    "s",
    "short",
)
GRAMS, GRAMS_PER_HOUR, WATTS, TOKENS_PER_SECOND = "massg", "suffix: g/h", "watt", "suffix: tokens/s"
BYTES = "bytes"
NONE_IS_GOOD: Steps = ((None, "green"), (1e-9, "red"))
MORE_IS_GOOD: Steps = ((None, "red"), (0, "green"))
PLAIN: Steps = ((None, "blue"),)


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """Of a table: one query. Its series become rows, which are joined with those of the other columns by label."""

    name: str
    expr: str
    unit: str = COUNT
    gauge: bool = False


def jump(uid: str, title: str, **variables: str) -> builders.DashboardLink:
    """From a series to another dashboard, with what was chosen here, and with labels of the series as variables."""
    return _link(uid, title, {name: f"${{__field.labels.{label}}}" for name, label in variables.items()})


def jump_row(uid: str, title: str, **variables: str) -> builders.DashboardLink:
    """The same from a row of a table, whose labels are fields."""
    return _link(uid, title, {name: f"${{__data.fields.{label}}}" for name, label in variables.items()})


def _link(uid: str, title: str, variables: dict[str, str]) -> builders.DashboardLink:
    given = "&".join(f"var-{name}={value}" for name, value in variables.items())
    kept = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"
    return builders.DashboardLink(title).url(f"/d/{uid}?{given}&{kept}" if given else f"/d/{uid}?{kept}")


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    span: int = 12,
    links: Sequence[builders.DashboardLink] = (),
    least: float | None = 0,
    steps: Steps | None = None,
) -> timeseries.Panel:
    panel = (
        _framed(timeseries.Panel(), title, description, span, 8)
        .unit(unit)
        .legend(common.VizLegendOptions().show_legend(True).display_mode(look.LegendDisplayMode.TABLE)
                .placement(look.LegendPlacement.BOTTOM).calcs(["mean", "max", "lastNotNull"]))
        .tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
        .line_width(1)
        .fill_opacity(50 if stacked else 8)
        .show_points(look.VisibilityMode.NEVER)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .data_links(list(links))
    )  # fmt: skip
    if least is not None:
        panel.min(least)
    if stacked:
        panel.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL).group("A"))
    if steps is not None:
        panel.thresholds(_steps(steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(look.GraphTresholdsStyleMode.DASHED)
        )
    for at, query in enumerate(queries):
        panel.with_target(_target(at, query).range())
    return panel


def number(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    steps: Steps = PLAIN,
    span: int = 4,
    filled: bool = False,
    names: bool = False,
    links: Sequence[builders.DashboardLink] = (),
) -> stat.Panel:
    """One value as it is now; `filled` colours all of the panel; `names` shows legends."""
    panel = (
        _framed(stat.Panel(), title, description, span, 4)
        .unit(unit)
        .thresholds(_steps(steps))
        .color_mode(look.BigValueColorMode.BACKGROUND if filled else look.BigValueColorMode.VALUE)
        .graph_mode(look.BigValueGraphMode.NONE)
        .text_mode(look.BigValueTextMode.VALUE_AND_NAME if names else look.BigValueTextMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .data_links(list(links))
    )
    for at, query in enumerate(queries):
        panel.with_target(_target(at, query).instant())
    return panel


def bars(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    steps: Steps = PLAIN,
    span: int = 8,
    most: float | None = None,
    links: Sequence[builders.DashboardLink] = (),
) -> bargauge.Panel:
    """A bar for each series, as it is now."""
    panel = (
        _framed(bargauge.Panel(), title, description, span, 8)
        .unit(unit)
        .min(0)
        .thresholds(_steps(steps))
        .display_mode(look.BarGaugeDisplayMode.BASIC)
        .orientation(look.VizOrientation.HORIZONTAL)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .data_links(list(links))
    )
    if most is not None:
        panel.max(most)
    for at, query in enumerate(queries):
        panel.with_target(_target(at, query).instant())
    return panel


def rows(
    title: str,
    description: str,
    *columns: Column,
    span: int = 12,
    height: int = 8,
    sort: str = "",
    links: Sequence[builders.DashboardLink] = (),
) -> table.Panel:
    """A table: a row for each set of labels, a column for each query."""
    names = {f"Value #{_ref(at)}": column.name for at, column in enumerate(columns)}
    if len(columns) == 1:
        names = {"Value": columns[0].name}
    panel = (
        _framed(table.Panel(), title, description, span, height)
        .show_header(True)
        .data_links(list(links))
        .transformations([
            models.DataTransformerConfig(id_val="merge", options={}),
            models.DataTransformerConfig(
                id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": names}
            ),
        ])
    )  # fmt: skip
    if sort:
        panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    for at, column in enumerate(columns):
        panel.with_target(_target(at, Query(column.expr)).instant().format(PromQueryFormat.TABLE))
        properties = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.gauge:
            properties += [
                models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "gauge", "mode": "basic"}),
                models.DynamicConfigValue(id_val="color", value={"mode": "continuous-BlPu"}),
            ]
        panel.override_by_name(column.name, properties)
    return panel


def states(
    title: str, description: str, texts: dict[str, tuple[str, str]], *queries: Query, span: int = 12
) -> statetimeline.Panel:
    """How each series stood over time; `texts` says what a value means, and its colour."""
    shown: dict[str, models.ValueMappingResult] = {
        value: models.ValueMappingResult(text=text, color=colour) for value, (text, colour) in texts.items()
    }
    panel = (
        _framed(statetimeline.Panel(), title, description, span, 8)
        .mappings([models.ValueMap(options=shown)])
        .merge_values(True)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(70)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    )
    for at, query in enumerate(queries):
        panel.with_target(_target(at, query).range())
    return panel


def heat(title: str, description: str, unit: str, query: Query, span: int = 12) -> heatmap.Panel:
    """The buckets of a histogram over time."""
    return (
        _framed(heatmap.Panel(), title, description, span, 8)
        .calculate(False)
        .show_tooltip()
        .scale_distribution(common.ScaleDistributionConfig().type(look.ScaleDistribution.LINEAR))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .exemplars_color("rgba(255,0,255,0.7)")
        .with_target(_target(0, query).range().format(PromQueryFormat.HEATMAP))
    )


def _framed(panel: P, title: str, description: str, span: int, height: int) -> P:
    """What every panel has. (The SDK's builders have it in common, but no class that says so.)"""
    framed: Any = panel
    framed.title(title).description(description).datasource(SOURCE).height(height).span(span)
    return panel


def _target(at: int, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(_ref(at)).datasource(SOURCE)
    if query.legend:
        target.legend_format(query.legend)
    if query.exemplars:
        target.exemplar(True)
    return target


def _ref(at: int) -> str:
    return chr(ord("A") + at)


def _steps(steps: Steps) -> builders.ThresholdsConfig:
    found: list[Any] = [models.Threshold(value=value, color=colour) for value, colour in steps]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(found)
