"""What the power of each backend emits: as the fleet says, as a table of zones says, or as a series says for the hour.

Pure: whoever compiles brings the texts of the files. What is read here is checked to the last row, because a wrong
number would move requests without anybody seeing why.
"""

from __future__ import annotations

import csv
import difflib
import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from policies.errors import Problem
from policies.schema import Carbon, Fleet
from policies.source import Document, Include, Path

DAY_S = 86400.0
_SHOWN = 5
"""Most problems that are told of one file: the others are usually the same again."""
_TABLE = "a table is JSON ({ZONE: {carbon_intensity: 485}, …}) or CSV with the columns zone,g_per_kwh"
_SERIES = "a series is CSV: a row of names, then rows of a time and a value, as in `2026-04-01T09:00:00Z,412.5`"
_TIME = "write it as 2026-04-01T09:00:00Z, or as 09:00 for every day; times are UTC unless they say otherwise"
_VALUE = "write grams of CO2 equivalent per kWh, 0 or more"
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


@dataclass(frozen=True, slots=True)
class Series:
    """A scheduled intensity in g/kWh: each value holds from its time to the next one's."""

    times: tuple[float, ...]  # ascending; seconds since 1970, or since midnight UTC where it is daily
    values: tuple[float, ...]
    daily: bool

    def at(self, now: float) -> float | None:
        """The value at `now`, in seconds since 1970. None before the first row, and later than a day after the last.
        One that is daily always speaks: until its first time of day, what held last on the day before holds."""
        if self.daily:
            return self.values[bisect_right(self.times, now % DAY_S) - 1]
        found = bisect_right(self.times, now) - 1
        if found < 0 or now > self.times[-1] + DAY_S:
            return None
        return self.values[found]


@dataclass(frozen=True, slots=True)
class Intensity:
    """What the power of one backend emits, and who says so."""

    standing: float  # g/kWh of the table, else of the fleet: where no series speaks
    standing_source: str
    series: Series | None = field(default=None, repr=False)
    series_source: str = ""

    @property
    def source(self) -> str:
        """Who says so as a rule: the series where there is one."""
        return self.standing_source if self.series is None else self.series_source

    def at(self, now: float) -> float:
        """In g/kWh, at `now` in seconds since 1970."""
        scheduled = None if self.series is None else self.series.at(now)
        return self.standing if scheduled is None else scheduled

    def source_at(self, now: float) -> str:
        """Who says what `at` says."""
        silent = self.series is None or self.series.at(now) is None
        return self.standing_source if silent else self.series_source


@dataclass(frozen=True, slots=True)
class Table:
    """Intensities in g/kWh by zone, with the names of the zones as far as the file has them."""

    values: Mapping[str, float]
    names: Mapping[str, str]


def intensities(
    fleet: Fleet, document: Document, include: Include | None = None
) -> tuple[tuple[Intensity, ...], list[Problem]]:
    """Of each backend, with everything that is wrong with what its `carbon` says and with the files that it names.
    `include` reads those, as it does for documents; without it none is read, and the fleet's own numbers hold."""
    reader = _Reader(document, include)
    found = tuple(
        reader.intensity(backend.carbon, ("backends", i, "carbon")) for i, backend in enumerate(fleet.backends)
    )
    return found, list(dict.fromkeys(reader.problems))


class _Reader:
    """Reads each file once, however many backends name it."""

    def __init__(self, document: Document, include: Include | None) -> None:
        self.problems: list[Problem] = []
        self._document, self._include = document, include
        self._tables: dict[str, Table] = {}
        self._series: dict[tuple[str, str | None], Series | None] = {}

    def intensity(self, carbon: Carbon, path: Path) -> Intensity:
        standing, source = carbon.g_per_kwh, "fleet"
        if carbon.table is not None:
            standing, source = self._of_zone(carbon, carbon.table, path), f"table {carbon.table} zone {carbon.zone}"
        if carbon.series is None:
            if carbon.series_column is not None:
                self._complain((*path, "series_column"), "'series_column' needs 'series'", "name the file: `series: …`")
            return Intensity(standing, carbon.source or source)
        series = self._scheduled(carbon.series, carbon.series_column, path)
        return Intensity(standing, source, series, carbon.source or f"file {carbon.series}")

    def _of_zone(self, carbon: Carbon, file: str, path: Path) -> float:
        if carbon.zone is None:
            self._complain((*path, "table"), "'table' needs 'zone': which of its zones?", "add `zone: …`")
            return carbon.g_per_kwh
        if file not in self._tables:
            text = self._text(file, (*path, "table"))
            table, problems = read_table(text[1], text[0]) if text else (Table({}, {}), [])
            self.problems += problems
            self._tables[file] = table
        table = self._tables[file]
        if table.values and carbon.zone not in table.values:
            self._complain((*path, "zone"), f"{file} has no zone '{carbon.zone}'", _zones_like(carbon.zone, table))
        return table.values.get(carbon.zone, carbon.g_per_kwh)

    def _scheduled(self, file: str, column: str | None, path: Path) -> Series | None:
        if (file, column) not in self._series:
            text = self._text(file, (*path, "series"))
            series, problems = read_series(text[1], text[0], column) if text else (None, [])
            self.problems += problems
            self._series[file, column] = series
        return self._series[file, column]

    def _text(self, file: str, path: Path) -> tuple[str, str] | None:
        """(name of the file, what it holds)."""
        if self._include is None:
            return None
        try:
            return self._include(self._document.file, file)
        except OSError as error:
            why = error.strerror or type(error).__name__
            self._complain(path, f"cannot read '{file}': {why}", "paths start from the fleet file's folder")
        except UnicodeDecodeError:
            self._complain(path, f"cannot read '{file}': not UTF-8", "save it as UTF-8")
        return None

    def _complain(self, path: Path, message: str, hint: str) -> None:
        self.problems.append(self._document.problem(path, message, hint))


def _zones_like(zone: str, table: Table) -> str:
    """A hint with the zones that may have been meant, by their codes or by their names."""
    codes = {code.upper(): code for code in table.values}
    names = {name.casefold(): code for code, name in table.names.items()}
    close = [names[one] for one in difflib.get_close_matches(zone.casefold(), names, 2, 0.8)]
    alike = [codes[one] for one in difflib.get_close_matches(zone.upper(), codes, 20, 0.6)]
    close += sorted(alike, key=lambda code: not code.startswith(zone.upper()))[:4]  # GB is rather GBR than VGB
    if close:
        shown = [f"{code} ({table.names[code]})" if code in table.names else code for code in dict.fromkeys(close)]
        return f"close to it: {', '.join(shown)}"
    return f"it has {len(table.values)}, such as {', '.join(sorted(table.values)[:4])}"


# --- tables -------------------------------------------------------------------------------------------------------


def read_table(text: str, file: str) -> tuple[Table, list[Problem]]:
    """Intensities by zone: JSON in the shape of codecarbon's energy mixes, or CSV with the columns zone and g_per_kwh.
    What else is in the file is passed over. Empty where anything is wrong."""
    text = text.removeprefix("\ufeff")
    table, problems = (_json_table if text.lstrip().startswith(("{", "[")) else _csv_table)(text, file)
    if not problems and not table.values:
        problems = [Problem(file, 0, 0, "the table has no zones", _TABLE)]
    return (Table({}, {}) if problems else table), _few(problems)


def _json_table(text: str, file: str) -> tuple[Table, list[Problem]]:
    values: dict[str, float] = {}
    names: dict[str, str] = {}
    problems: list[Problem] = []
    try:
        data: Any = json.loads(text)
    except json.JSONDecodeError as error:
        return Table({}, {}), [Problem(file, error.lineno, error.colno, f"not JSON: {error.msg}", _TABLE)]
    except (ValueError, RecursionError):
        return Table({}, {}), [Problem(file, 0, 0, "not JSON that can be read", _TABLE)]
    if not isinstance(data, dict) or not all(isinstance(zone, dict) for zone in data.values()):
        return Table({}, {}), [Problem(file, 0, 0, "must be an object of zones, each an object", _TABLE)]
    for zone, stated in data.items():
        value = stated.get("carbon_intensity")
        if value is None:  # not known of this zone: whoever names it is told that it is not there
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not _good(value):
            problems.append(Problem(file, 0, 0, f"zone {zone}: {_short(json.dumps(value))} is no intensity", _VALUE))
            continue
        values[zone] = float(value)
        if isinstance(stated.get("country_name"), str):
            names[zone] = stated["country_name"]
    return Table(values, names), problems


def _csv_table(text: str, file: str) -> tuple[Table, list[Problem]]:
    rows = _Rows(text, file, _TABLE)
    places = [rows.place(name) for name in ("zone", "g_per_kwh")]
    values: dict[str, float] = {}
    if None not in places:
        at_zone, at_value = (place for place in places if place is not None)
        for line, cells in rows.cells(max(at_zone, at_value)):
            zone, value = cells[at_zone], rows.value(line, cells[at_value])
            if not zone:
                rows.complain(line, "the zone is empty", "name it, or take the row out")
            elif zone in values:
                rows.complain(line, f"a second row of zone {zone}", "keep one")
            elif value is not None:
                values[zone] = value
    return Table(values, {}), rows.problems


# --- series -------------------------------------------------------------------------------------------------------


def read_series(text: str, file: str, column: str | None = None) -> tuple[Series | None, list[Problem]]:
    """CSV with a row of names, times in the first column and intensities in `column` (absent: the second). None where
    anything is wrong."""
    rows = _Rows(text.removeprefix("\ufeff"), file, _SERIES)
    if rows.names and _seconds(rows.names[0]) is not None:
        rows.complain(1, "the first row holds values", "put a row of names before it, such as `time,g_per_kwh`")
    at_value = 1 if column is None else rows.place(column)
    if at_value == 0:
        rows.complain(1, f"'{column}' is the column of the times", "name one of the others")
    if len(rows.names) == 1 and not rows.problems:
        rows.complain(1, "there is one column only", _SERIES)
    times: list[float] = []
    values: list[float] = []
    kinds: set[bool] = set()
    last = -math.inf
    for line, cells in rows.cells(at_value) if at_value and not rows.problems else ():
        found, value = _seconds(cells[0]), rows.value(line, cells[at_value or 1])
        if found is None:
            rows.complain(line, f"{_short(cells[0])} is no time", _TIME)
            continue
        seconds, daily = found
        kinds.add(daily)
        if len(kinds) > 1:
            rows.complain(line, "times of day and dates are mixed", "write all of them the same way")
            break
        if seconds <= last:
            rows.complain(line, f"{_short(cells[0])} is not after the time of the row before", "sort the rows by time")
            continue
        last = seconds
        if value is not None:
            times.append(seconds)
            values.append(value)
    if not times and not rows.problems:
        rows.complain(0, "the series has no rows", _SERIES)
    if rows.problems:
        return None, _few(rows.problems)
    return Series(tuple(times), tuple(values), kinds == {True}), []


def _seconds(text: str) -> tuple[float, bool] | None:
    """(since midnight, True) of a time of day; (since 1970, False) of a date and time, in UTC where no offset is said;
    None for anything else."""
    of_day = _TIME_OF_DAY.fullmatch(text)
    if of_day is not None:
        hours, minutes, seconds = (int(part or 0) for part in of_day.groups())
        real = hours < 24 and minutes < 60 and seconds < 60
        return (hours * 3600.0 + minutes * 60 + seconds, True) if real else None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), False
    except (ValueError, OverflowError):
        return None


# --- rows ---------------------------------------------------------------------------------------------------------


class _Rows:
    """A CSV file's names and rows, with everything that is wrong with them."""

    def __init__(self, text: str, file: str, shape: str) -> None:
        self.problems: list[Problem] = []
        self.names: list[str] = []
        self._file, self._shape = file, shape
        self._reader = csv.reader(text.splitlines(keepends=True), strict=True)
        for _, cells in self._read():
            self.names = cells
            break
        if not self.names and not self.problems:
            self.complain(0, "the file is empty", shape)

    def place(self, name: str) -> int | None:
        """Of the column of that name."""
        if name in self.names:
            return self.names.index(name)
        if len(self.names) > 1:
            self.complain(1, f"no column '{name}'", f"there are: {', '.join(self.names)}")
        elif self.names:  # not quoted: what has no columns may be any file, also one with a secret in it
            self.complain(1, f"no column '{name}'", self._shape)
        return None

    def cells(self, last: int) -> Iterator[tuple[int, list[str]]]:
        """(its line, its cells) of every row that has a column `last`; of the others a problem."""
        for line, cells in self._read():
            if len(cells) > last:
                yield line, cells
            else:
                self.complain(line, f"there is no column {last + 1} in it", self._shape)

    def value(self, line: int, text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if _good(value):
            return value
        self.complain(line, f"{_short(text)} is no intensity", _VALUE)
        return None

    def complain(self, line: int, message: str, hint: str) -> None:
        told = f"row {line}: {message}" if line else message
        self.problems.append(Problem(self._file, line, 1 if line else 0, told, hint))

    def _read(self) -> Iterator[tuple[int, list[str]]]:
        """Rows that are not blank. A row's number is that of its line, as an editor counts."""
        try:
            for cells in self._reader:
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield self._reader.line_num, stripped
        except csv.Error as error:
            self.complain(self._reader.line_num, f"not CSV: {error}", self._shape)


def _good(value: float) -> bool:
    try:
        return math.isfinite(value) and value >= 0
    except OverflowError:  # an integer beyond all floats
        return False


def _short(text: str) -> str:
    shown = f"'{text}'"
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _few(problems: Sequence[Problem]) -> list[Problem]:
    """The first of them, and how many more there are."""
    if len(problems) <= _SHOWN:
        return list(problems)
    file, line, column = problems[_SHOWN].file, problems[_SHOWN].line, problems[_SHOWN].column
    rest = Problem(file, line, column, f"{len(problems) - _SHOWN} more problem(s) of this file are not shown")
    return [*problems[:_SHOWN], rest]
