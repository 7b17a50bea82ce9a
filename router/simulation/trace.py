"""Requests from a file of facts: CSV with a line of names, or one JSON object a line."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from policies.compile import CompiledPolicy
from policies.diff import at_rest
from policies.errors import ConfigurationError, Position, Problem
from policies.facts import UnknownLevel, request_from
from policies.schema import RequestFacts
from policies.sensitivity.labels import Label
from policies.simulation.traffic import Arrival
from policies.source import Document
from policies.validate import validate_as
from router.cli.files import text_of

AT, GENERATED = "at", "generated"
"""When a request came, and how many tokens its answer had. All other names are facts of requests."""
_ALSO = {"timestamp": AT, "contexttokens": "tokens_in", "generatedtokens": GENERATED}
_TIMES = "2026-04-01T09:00:00+09:00, or seconds since 1970"
_MOST_PROBLEMS = 20
_LATEST = 253402300800.0  # the year 10000


def _yes_or_no(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_READ: Mapping[str, Callable[[str], Any]] = {
    "tokens_in": int, "tokens_out": int, "body_bytes": int, GENERATED: int, "deadline_ms": float,
    "stream": _yes_or_no, "no_fallback": _yes_or_no, "entities": str.split,
}  # fmt: skip
"""Facts that a table writes as text and that are none."""


@dataclass(frozen=True, slots=True)
class _Row:
    number: int  # of its line
    data: dict[str, Any]


def read(path: Path, facts: Mapping[str, str], policy: CompiledPolicy) -> list[Arrival]:
    """In order of time, each decided as under `policy`, in a fleet that is healthy and unmeasured. `facts` hold for all
    that say nothing else. Raises ConfigurationError with what is wrong, and where."""
    file, problems, arrivals = str(path), list[Problem](), list[Arrival]()
    text = text_of(path)
    common = _as_read(dict(facts))
    for row in _objects(text, file) if path.suffix in (".jsonl", ".ndjson") else _table(text, file):
        place = Position(row.number, 1, file)
        found = _arrival(common | _as_read(row.data), place, policy)
        if isinstance(found, Arrival):
            arrivals.append(found)
        else:
            problems += found
        if len(problems) > _MOST_PROBLEMS:
            break
    if not arrivals and not problems:
        problems.append(Problem(file, 0, 0, "holds no requests"))
    if problems:
        raise ConfigurationError(problems)
    return sorted(arrivals, key=lambda arrival: arrival.at)


def _table(text: str, file: str) -> Iterator[_Row]:
    lines = csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        written = [name.strip().lower() for name in next(lines, [])]
        names = [_ALSO.get(name, name) for name in written]
        for cells in lines:
            if cells:
                yield _Row(lines.line_num, {name: one.strip() for name, one in zip(names, cells, strict=False) if one})
    except csv.Error as error:
        raise ConfigurationError([Problem(file, lines.line_num, 1, f"not CSV: {error}")]) from None


def _objects(text: str, file: str) -> Iterator[_Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            data = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise ConfigurationError([Problem(file, number, 1, f"not JSON: {error}")]) from None
        if not isinstance(data, dict):
            raise ConfigurationError([Problem(file, number, 1, "must be one JSON object a line")])
        yield _Row(number, {_ALSO.get(str(name).lower(), str(name)): value for name, value in data.items()})


def _as_read(data: dict[str, Any]) -> dict[str, Any]:
    """Texts that stand for numbers and the like, as what they stand for. What is none is left for the schema to say."""
    read = dict(data)
    for name, value in data.items():
        if isinstance(value, str) and name in _READ:
            with contextlib.suppress(ValueError, KeyError):
                read[name] = _READ[name](value)
    return read


def _arrival(data: dict[str, Any], place: Position, policy: CompiledPolicy) -> Arrival | list[Problem]:
    def problem(message: str, hint: str = "") -> list[Problem]:
        return [Problem(place.file, place.line, place.column, message, hint)]

    at, generated = data.pop(AT, None), data.pop(GENERATED, None)
    if at is None:
        return problem(
            "'at' is missing", "say when each request came, as 2026-04-01T09:00:00+09:00 or in seconds since 1970"
        )
    try:
        now = _moment(at)
    except ValueError:
        return problem(f"'at' must be a time, not {at!r}", f"write {_TIMES}")
    if generated is not None and (not isinstance(generated, int) or generated < 0):
        return problem(f"'generated' must be a number of tokens, not {generated!r}")
    data.setdefault("id", f"{Path(place.file).stem}-{place.line}")
    document = Document(place.file, data, {}, {(): place, **{(str(name),): place for name in data}})
    facts, problems = validate_as(document, RequestFacts)
    if facts is None:
        return list(problems)
    try:
        request = request_from(facts, policy, now)
    except UnknownLevel as error:
        return problem(str(error))
    stated = () if facts.label is None else (("stated", policy.rank(facts.label)),)
    return Arrival(
        now,
        policy,
        request,
        Label(request.label, stated, {}),
        at_rest(policy, now),
        tokens=None if generated is None else (request.tokens_in, generated),
    )


def _moment(at: Any) -> float:
    """Without an offset it is UTC. Raises ValueError for what is no time."""
    try:
        seconds = float(at)
    except ValueError:
        found = datetime.fromisoformat(at)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except TypeError:
        raise ValueError from None
    if not 0 <= seconds < _LATEST:
        raise ValueError
    return seconds
