"""Numbers as people read them, and the report as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table

from router.report.summary import OwnHardware, Report, Row
from router.report.tally import NOBODY

_TITLES = {
    "tier": "Where traffic went",
    "backend": "Backends",
    "model": "Models",
    "tenant": "Tenants",
    "rule": "Rules",
}
_MOST = 15


def usd(amount: float | None) -> str:
    if amount is None:
        return "–"
    digits = 2 if abs(amount) >= 1 or amount == 0 else 4 if abs(amount) >= 0.01 else 7
    return f"{'-' if amount < 0 else ''}${abs(amount):,.{digits}f}"


def count(number: float) -> str:
    return f"{number:,.0f}"


def share(part: float | None, digits: int = 1) -> str:
    return "–" if part is None else f"{100 * part:.{digits}f} %"


def amount(number: float | None) -> str:
    """Three digits that count."""
    return "–" if number is None else f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def grams(number: float) -> str:
    return f"{number / 1000:,.2f} kg" if number >= 1000 else f"{number:.3g} g"


def text(report: Report) -> Sequence[RenderableType]:
    total = report.total
    when = [
        datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M %Z") for at in (report.since, report.until)
    ]
    yields: list[RenderableType] = [f"{when[0]} to {when[1]}: {count(total.requests)} requests"]
    if not total.requests:
        return [*yields, *_broken(report)]
    outcomes = ", ".join(f"{name} {count(number)}" for name, number in report.outcomes.items())
    yields.append(f"outcomes     {outcomes}")
    yields.append(f"objectives   {share(total.slo_attained, 2)} met")
    purposes = ", ".join(f"{name} {usd(spent)}" for name, spent in report.purposes.items() if spent)
    yields.append(f"cost         {usd(total.usd)}" + (f" ({purposes})" if len(report.purposes) > 1 else ""))
    if report.own:
        yields.append(
            f"             {usd(report.amortised_usd)} with every hour of own hardware: {usd(report.reserved_usd)} by "
            f"the hour and {usd(total.marginal_usd)} that answers have added"
        )
    yields.append(f"all cloud    {usd(total.baseline_usd)} for the same answers")
    saved = report.saved_usd if report.own else total.savings_usd
    yields.append(f"{'saved' if saved >= 0 else 'lost':<12} {usd(abs(saved))}{_of(saved, total.baseline_usd)}")
    yields.append(f"energy       {amount(total.energy_kwh)} kWh, {grams(total.carbon_g)} CO2e for answers (modelled)")
    if report.idle_kwh:
        idle = f"{amount(report.idle_kwh)} kWh, {grams(report.idle_carbon_g)} CO2e"
        yields.append(f"             {idle} that backends draw while they wait, as the fleet says")
    for name, title in _TITLES.items():
        yields.append(_table(title, name, report.by[name]))
    yields.append(_labels(report))
    if report.own:
        yields.append(_own(report.own))
    if report.uncharged:
        yields.append(f"{count(report.uncharged)} records of an older version: their cost is in the total only")
    return [*yields, *_broken(report)]


def _broken(report: Report) -> list[str]:
    return [f"NOT AS IT WAS WRITTEN: {chain} (see `pointsman log verify`)" for chain in report.broken]


def named(name: str) -> str:
    return "none answered" if name == NOBODY else name


def _of(saved: float, baseline: float) -> str:
    return f", {share(abs(saved) / baseline)} of it" if baseline else ""


def _table(title: str, name: str, rows: Sequence[Row]) -> Table:
    table = Table(
        name, "requests", "met", "p50 ms", "p95 ms", "tokens", "cost", "all cloud", "saved", "CO2e", title=title
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows[:_MOST]:
        table.add_row(
            named(row.name), count(row.requests), share(row.slo_attained), amount(row.p50_ms), amount(row.p95_ms),
            count(row.tokens_in + row.tokens_out), usd(row.usd), usd(row.baseline_usd), usd(row.savings_usd),
            grams(row.carbon_g),
        )  # fmt: skip
    if len(rows) > _MOST:
        table.caption = f"and {len(rows) - _MOST} more; --json has all"
    return table


def _labels(report: Report) -> Table:
    tiers = sorted({tier for row in report.labels.values() for tier in row})
    table = Table("label of what was sent", *map(named, tiers), title="What went where")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, row in report.labels.items():
        table.add_row(label, *(count(row.get(tier, 0)) for tier in tiers))
    return table


def _own(owned: Sequence[OwnHardware]) -> Table:
    table = Table(
        "backend", "by the hour", "used", "a request", "at full load", "in the cloud", "pays from", "it had",
        title="Own hardware",
    )  # fmt: skip
    for own in owned:
        table.add_row(
            own.backend, usd(own.usd_per_hour), share(own.utilisation), usd(own.usd_per_request),
            usd(own.usd_per_request_full), usd(own.cloud_usd_per_request), verdict(own), f"{amount(own.rps)}/s",
        )  # fmt: skip
    return table


def verdict(own: OwnHardware) -> str:
    """From which load on it is cheaper than the cloud."""
    if own.cloud_usd_per_request is None:
        return "nothing to compare"
    return f"{amount(own.break_even_rps)}/s" if own.break_even_rps is not None else "never"
