"""A comparison as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table

from policies.simulation.moves import Moves
from router.report.show import amount, count, grams, share, usd
from router.report.summary import Report, Row
from router.simulation.compared import Comparison

_MOST = 20

Write = Callable[[float | None], str]
Figure = tuple[str, Callable[[Report], float | None], Write]
"""Its name, where it stands, and how it is written."""


def _amount_of(write: Callable[[float], str]) -> Write:
    return lambda value: "–" if value is None else write(value)


_COUNT, _GRAMS = _amount_of(count), _amount_of(grams)


def _met(value: float | None) -> str:
    return share(value, 2)


_FIGURES: Sequence[Figure] = (
    ("met their objective", lambda r: r.total.slo_attained, _met),
    ("p50 ms", lambda r: r.total.p50_ms, amount),
    ("p95 ms", lambda r: r.total.p95_ms, amount),
    ("cost", lambda r: r.total.usd, usd),
    ("all cloud", lambda r: r.total.baseline_usd, usd),
    ("saved", lambda r: r.total.savings_usd, usd),
    ("with hours of own hardware", lambda r: r.amortised_usd if r.own else None, usd),
    ("CO2e", lambda r: r.total.carbon_g, _GRAMS),
)


def text(comparison: Comparison, reports: Mapping[str, Report]) -> Sequence[RenderableType]:
    """`reports` by what heads their columns, the old one before the new one."""
    found = list(reports.values())
    ends = (datetime.fromtimestamp(at).astimezone() for at in (found[0].since, found[0].until))
    begin, end = (moment.strftime("%Y-%m-%d %H:%M:%S") for moment in ends)
    old, new = comparison.old.simulation.policy, comparison.new
    policies = old.digest if new is None else f"{old.digest} -> {new.simulation.policy.digest}"
    yields: list[RenderableType] = [
        f"policy {policies}, {count(comparison.requests)} requests from {begin} to {end}",
        _figures(reports, new is not None),
    ]
    if comparison.as_it_was is not None:
        same = share(comparison.as_it_was)
        yields.append(f"the simulation of the old policy sends {same} of the answered requests where they went")
    last = comparison.old if new is None else new
    yields += [f"{outcome}, the first: {message}" for outcome, message in last.first.items()]
    if comparison.moves is not None:
        yields += _moved(comparison.moves, comparison.requests)
    return yields


def _figures(reports: Mapping[str, Report], compared: bool) -> Table:
    table = Table("", *reports, *(["change"] if compared else []))
    for column in table.columns[1:]:
        column.justify = "right"
    found = list(reports.values())

    def row(name: str, values: Sequence[float | None], write: Write) -> None:
        table.add_row(name, *map(write, values), *([_change(values[-2], values[-1], write)] if compared else []))

    for outcome in dict.fromkeys(name for report in found for name in report.outcomes):
        name = "answered" if outcome == "ok" else outcome
        row(name, [float(report.outcomes.get(outcome, 0)) for report in found], _COUNT)
    for name, where, write in _FIGURES:
        values = [where(report) for report in found]
        if any(values):
            row(name, values, write)
    for dimension in ("tier", "backend"):
        table.add_section()
        rows: list[Mapping[str, Row]] = [{one.name: one for one in report.by[dimension]} for report in found]
        for name in sorted({name for one in rows for name, row in one.items() if row.answered}):
            row(f"{dimension} {name}", [float(one[name].answered) if name in one else 0.0 for one in rows], _COUNT)
    return table


def _change(old: float | None, new: float | None, write: Write) -> str:
    """Nothing where it is less than what rounding makes of it."""
    if old is None or new is None:
        return "–"
    more = new - old
    if abs(more) < (0.5 if write is _COUNT else 5e-4 * abs(old)):
        return ""
    part = f" ({100 * more / old:+.1f} %)" if old and write is not _met else ""
    return f"{'+' if more > 0 else '-'}{write(abs(more))}{part}"


def _moved(moves: Moves, requests: int) -> list[RenderableType]:
    if not moves.kinds:
        return ["nothing moves"]
    table = Table("", "requests", "from", "to", "labels", "cost", "why, of the first")
    ordered = sorted(moves.kinds.items(), key=lambda item: (not item[1].losing_trust, -item[1].requests))
    for (before, after), kind in ordered[:_MOST]:
        labels = ", ".join(f"{label} {count(number)}" for label, number in kind.labels.most_common())
        less = f"LESS TRUSTED {count(kind.losing_trust)}" if kind.losing_trust else ""
        more = f"{'+' if kind.usd > 0 else ''}{usd(kind.usd)}"
        table.add_row(less, count(kind.requests), before, after, labels, more, kind.why)
    if len(ordered) > _MOST:
        table.caption = f"and {len(ordered) - _MOST} more; --json has all"
    told = f"{count(moves.requests)} of {count(requests)} requests move; "
    return [table, told + f"{count(moves.losing_trust)} to where they are trusted less"]
