"""The report as one page that needs nothing else. Wants matplotlib and Jinja2 (the extra `report`)."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from router import __version__
from router.report import charts
from router.report.show import amount, count, grams, named, share, usd
from router.report.summary import Report


def page(report: Report) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"usd": usd, "count": count, "share": share, "amount": amount}
    environment.filters |= {"grams": grams, "named": named}
    template = environment.from_string(files("router.report").joinpath("page.html.jinja").read_text("utf-8"))
    return template.render(
        report=report,
        version=__version__,
        since=_time(report.since),
        until=_time(report.until),
        traffic=charts.traffic(report.series),
        spending=charts.spending(report.series),
        objectives=charts.objectives(report.by["rule"]),
        break_even=[(own, charts.break_even(own)) for own in report.own],
        tiers=sorted({tier for row in report.labels.values() for tier in row}),
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
