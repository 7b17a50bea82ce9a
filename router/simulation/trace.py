"""Requests from a file of facts: CSV with a line of names, or one JSON object a line."""

from __future__ import annotations

import contextlib
import csv
import io
from collections import Counter
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
from policies.types import Snapshot
from policies.validate import validate_as
from router.files import text_of

AT, GENERATED = "at", "generated"
"""When a request came, and how many tokens its answer had. All other names are facts of requests."""
_ALSO = {"timestamp": AT, "contexttokens": "tokens_in", "generatedtokens": GENERATED}
_TIMES = "2026-04-01T09:00:00+09:00, or seconds since 1970"
_MOST_PROBLEMS = 20
_LATEST = 253402128000.0  # two days before the year 10000
_MOST = 10**12
_OBJECTS = (".jsonl", ".ndjson", ".json")


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
    rest = at_rest(policy, 0.0)
    for row in _objects(text, file) if path.suffix.lower() in _OBJECTS else _table(text, file):
        place = Position(row.number, 1, file)
        found = _shown(row.data, place) or _arrival(common | _as_read(row.data), place, policy, rest)
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

    def wrong(message: str, hint: str = "") -> ConfigurationError:
        return ConfigurationError([Problem(file, max(lines.line_num, 1), 1, message, hint)])

    try:
        written = [name.strip().lower() for name in next(lines, [])]
        names = [_ALSO.get(name, name) for name in written]
        for name, count in Counter(names).items():
            if count > 1:
                raise wrong(f"{name!r} is named twice")
        for cells in lines:
            if len(cells) > len(names):
                raise wrong(f"{len(cells)} cells, and {len(names)} columns", "put quotes around what holds a comma")
            if cells:
                yield _Row(lines.line_num, {name: one.strip() for name, one in zip(names, cells, strict=False) if one})
    except csv.Error as error:
        raise wrong(f"not CSV: {error}", "name a file of JSON objects .jsonl") from None


def _objects(text: str, file: str) -> Iterator[_Row]:
    def wrong(number: int, message: str) -> ConfigurationError:
        return ConfigurationError([Problem(file, number, 1, message)])

    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            data = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            told = "too deep" if isinstance(error, RecursionError) else error
            raise wrong(number, f"not JSON: {told}") from None
        if not isinstance(data, dict):
            raise wrong(number, "must be one JSON object a line")
        yield _Row(number, {_ALSO.get(str(name).lower(), str(name)): value for name, value in data.items()})


def _shown(data: Mapping[str, Any], place: Position) -> list[Problem]:
    """What could not be written on a terminal again: no fact needs that."""
    texts = [text for pair in data.items() for text in pair if isinstance(text, str)]
    bad = [text for text in texts if not text.isprintable()]
    return [Problem(place.file, place.line, place.column, f"{text!r} cannot be shown") for text in bad[:1]]


def _as_read(data: dict[str, Any]) -> dict[str, Any]:
    """Texts that stand for numbers and the like, as what they stand for. What is none is left for the schema to say."""
    read = dict(data)
    for name, value in data.items():
        if isinstance(value, str) and name in _READ:
            with contextlib.suppress(ValueError, KeyError):
                read[name] = _READ[name](value)
    return read


def _arrival(data: dict[str, Any], place: Position, policy: CompiledPolicy, rest: Snapshot) -> Arrival | list[Problem]:
    def problem(message: str, hint: str = "") -> list[Problem]:
        return [Problem(place.file, place.line, place.column, message, hint)]

    at, generated = data.pop(AT, None), data.pop(GENERATED, None)
    if at is None:
        return problem("'at' is missing", f"say when each request came: {_TIMES}")
    try:
        now = _moment(at)
    except (ValueError, TypeError, OverflowError):
        return problem(f"'at' must be a time, not {_short(at)}", f"write {_TIMES}")
    if generated is not None and (type(generated) is not int or not 0 <= generated <= _MOST):
        return problem(f"'generated' must be a number of tokens, not {_short(generated)}")
    data.setdefault("id", f"{Path(place.file).stem}-{place.line}")
    document = Document(place.file, data, {}, {(): place, **{(str(name),): place for name in data}})
    facts, problems = validate_as(document, RequestFacts)
    if facts is None:
        return list(problems)
    if max(facts.tokens_in, facts.tokens_out, facts.body_bytes) > _MOST:
        return problem(f"more than {_MOST:,} tokens or bytes")
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
        rest,
        tokens=None if generated is None else (request.tokens_in, generated),
    )


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"


def _moment(at: Any) -> float:
    """Without an offset it is UTC. Raises ValueError, TypeError or OverflowError for what is no time."""
    if isinstance(at, bool):
        raise TypeError
    try:
        seconds = float(at)
    except ValueError:
        found = datetime.fromisoformat(at)
        seconds = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    if not 0 <= seconds < _LATEST:
        raise ValueError
    return seconds
