"""The report's plots, as SVG to stand in the page: no script, no font, nothing to fetch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib
import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from router.report.summary import OwnHardware, Row, Series
from router.report.tally import NOBODY

COLOURS = {"edge": "#2a9d8f", "onprem": "#3d6fb4", "cloud": "#e08e33", NOBODY: "#9aa3ad"}
_GOOD, _BAD, _INK, _QUIET = "#2e9e5b", "#c8453b", "#26303a", "#8a949e"
_LONGEST = 24
"""Characters of a name in a plot."""
_STYLE = {
    "svg.fonttype": "none",  # text stays text: the reader's fonts have Japanese, ours may not
    "svg.hashsalt": "pointsman",  # the same numbers give the same page
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # names may hold a $
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#c9d0d6",
    "axes.labelcolor": _INK,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ecef",
    "legend.frameon": False,
}


def traffic(series: Series) -> str:
    """Answers a minute over time, by tier."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(8.2, 2.7)
        tiers = list(series.tiers)
        per_minute = [np.array(series.tiers[tier]) * 60 / series.step_s for tier in tiers]
        if tiers:
            edges = _times([*series.at, series.at[-1] + series.step_s])
            colours = [COLOURS.get(tier, _QUIET) for tier in tiers]
            steps = [np.append(counts, counts[-1]) for counts in per_minute]
            axes.stackplot(edges, steps, labels=tiers, colors=colours, step="post", alpha=0.9)
            _legend(axes)
        _over_time(axes)
        axes.set_ylabel("answers a minute")
        axes.set_ylim(bottom=0)
        return _svg(figure)


def spending(series: Series) -> str:
    """What it cost so far, beside what the cloud would have."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(8.2, 2.7)
        edges = _times([*series.at, series.at[-1] + series.step_s])
        baseline = np.append(0, np.cumsum(series.baseline_usd))
        usd = np.append(0, np.cumsum(series.usd))
        axes.plot(edges, baseline, color=COLOURS["cloud"], linestyle="--", label="everything in the cloud")
        axes.plot(edges, usd, color=COLOURS["onprem"], label="spent")
        better = usd <= baseline
        axes.fill_between(edges, usd, baseline, where=better, color=_GOOD, alpha=0.15, linewidth=0, interpolate=True)
        axes.fill_between(edges, usd, baseline, where=~better, color=_BAD, alpha=0.15, linewidth=0, interpolate=True)
        _over_time(axes)
        axes.set_ylabel("USD")
        axes.set_ylim(bottom=0)
        _legend(axes)
        return _svg(figure)


def objectives(rows: Sequence[Row]) -> str:
    """The share of requests that met their rule's objective."""
    with matplotlib.rc_context(_STYLE):
        known = [row for row in rows if row.slo_attained is not None][:12][::-1]
        figure, axes = _axes(4.0, 0.7 + 0.32 * max(len(known), 1))
        shares = [100 * (row.slo_attained or 0) for row in known]
        colours = [_GOOD if share >= 99 else COLOURS["cloud"] if share >= 95 else _BAD for share in shares]
        axes.barh(range(len(known)), shares, color=colours, height=0.62)
        axes.set_yticks(range(len(known)), [_short(row.name) for row in known])  # two may look alike now
        for i, share in enumerate(shares):
            axes.text(min(share, 100) - 1, i, f"{share:.2f} %", va="center", ha="right", color="white", fontsize=9)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of requests that met it")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", colors=_INK, length=0)
        return _svg(figure)


def break_even(own: OwnHardware) -> str:
    """The cost of a request by load, beside the cloud's."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(4.0, 2.7)
        least = min(own.capacity_rps / 300, own.rps or own.capacity_rps)
        loads = np.geomspace(max(least / 2, own.capacity_rps / 1e6), own.capacity_rps, 200)
        hourly = own.usd_per_hour / 3600
        marginal = own.usd_per_request_full - hourly / own.capacity_rps
        axes.plot(loads, marginal + hourly / loads, color=COLOURS["onprem"], label="here")
        if own.cloud_usd_per_request is not None:
            axes.axhline(own.cloud_usd_per_request, color=COLOURS["cloud"], linestyle="--", label="in the cloud")
        if own.break_even_rps is not None:
            axes.axvline(own.break_even_rps, color=_QUIET, linestyle=":", linewidth=1)
        if own.usd_per_request is not None:
            axes.plot([own.rps], [own.usd_per_request], "o", color=_GOOD if own.pays else _BAD, label="as it was")
        _logarithmic(axes)
        axes.set_xlabel("requests a second")
        axes.set_ylabel("USD a request")
        _legend(axes)
        return _svg(figure)


def _short(name: str) -> str:
    """The names stand in the plot's width; the page's table has them whole."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _logarithmic(axes: Any) -> None:
    """Both axes, with a few plain numbers on each."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: np.format_float_positional(value, trim="-")))
        axis.set_minor_formatter(NullFormatter())


def _legend(axes: Any) -> None:
    """Above the plot, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0, handlelength=1.2, columnspacing=1.2)


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _times(seconds: Sequence[float]) -> Any:
    return np.array([datetime.fromtimestamp(one, UTC) for one in seconds])


def _over_time(axes: Any) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=9, tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.margins(x=0)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
