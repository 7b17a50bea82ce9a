"""The status as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from router.report.show import amount, share, usd
from router.top.status import Status

_STATE = {"available": "green", "slow_start": "yellow", "on_trial": "yellow", "held": "yellow"}
_MOST_RULES = 10
_WIDE = 100
"""Columns of a terminal that shows every column of a backend."""
_ALWAYS = ("backend", "state", "calls/s", "failed/s", "in flight", "p50", "p95")


class View:
    """As wide as the terminal allows; what must not be missed comes first."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        status = self._status
        yield _head(status)
        for warning in status.warnings:
            yield Text(f"! {warning}", style="bold red")
        yield _backends(status, options.max_width >= _WIDE)
        if status.rules:
            yield _rules(status)
        if status.quotas:
            yield _quotas(status)


def _head(status: Status) -> Text:
    tiers = "  ".join(f"{tier} {share(part, 0)}" for tier, part in status.tiers.items()) or "no answers"
    saved = status.baseline_usd_per_hour - status.usd_per_hour
    text = Text()
    text.append(f"pointsman {status.version}  policy {status.policy}\n", style="bold")
    text.append(f"{amount(status.per_second)} requests/s   failed ")
    text.append(f"{amount(status.failed_per_second)}/s", style="red" if status.failed_per_second else "")
    text.append(f"   refused by policy {amount(status.refused_per_second)}/s   p50 {_ms(status.p50_ms)}")
    text.append(f"   p95 {_ms(status.p95_ms)}   router itself {amount(status.overhead_us)} µs\n")
    text.append(f"{tiers}   spends {usd(status.usd_per_hour)}/h, all cloud {usd(status.baseline_usd_per_hour)}/h, ")
    text.append(f"{'saves' if saved >= 0 else 'loses'} {usd(abs(saved))}/h", style="green" if saved >= 0 else "yellow")
    text.append("   stopped at the last check: ")
    text.append(str(status.egress_blocked), style="bold red" if status.egress_blocked else "bold green")
    return text


def _backends(status: Status, wide: bool) -> Table:
    table = Table()
    for row in status.backends:
        cells: dict[str, str | Text] = {
            "backend": row.backend,
            "tier": row.tier,
            "state": Text(row.state, style=_STATE.get(row.state, "bold red")),
            "calls/s": amount(row.per_second),
            "failed/s": Text(amount(row.failed_per_second), style="red" if row.failed_per_second else ""),
            "in flight": f"{row.in_flight} of {row.limit}",
            "queued": str(row.queued),
            "p50": _ms(row.p50_ms),
            "p95": _ms(row.p95_ms),
            "USD/h": usd(row.usd_per_hour),
            "ejected": str(row.ejections),
        }
        shown = {name: cell for name, cell in cells.items() if wide or name in _ALWAYS}
        if not table.columns:
            for name in shown:
                left = name in ("backend", "tier", "state")
                table.add_column(name, justify="left" if left else "right", no_wrap=True)
        table.add_row(*shown.values())
    return table


def _rules(status: Status) -> Table:
    table = Table("rule", "requests/s", "objective met")
    for row in status.rules[:_MOST_RULES]:
        good = row.met is None or row.met >= 0.99
        table.add_row(row.rule, amount(row.per_second), Text(share(row.met, 2), style="" if good else "yellow"))
    if len(status.rules) > _MOST_RULES:
        table.caption = f"and {len(status.rules) - _MOST_RULES} more; --json has all"
    return table


def _quotas(status: Status) -> Table:
    table = Table("budget or limit", "used", "cap", "left")
    for row in status.quotas:
        style = "red" if row.left < 0.1 else "yellow" if row.left < 0.25 else ""
        shown = [usd(one) if row.unit == "usd" else f"{amount(one)} {row.unit}" for one in (row.used, row.cap)]
        table.add_row(row.quota, *shown, Text(share(row.left, 0), style=style))
    return table


def _ms(ms: float | None) -> str:
    return "–" if ms is None else f"{amount(ms)} ms"
