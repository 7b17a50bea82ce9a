"""`pointsman diff`: what changed in meaning between two configurations. Exit 1 where something loses trust."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from policies.compile import CompiledPolicy
from policies.diff import Move, compare, weakened
from policies.errors import ConfigurationError, Problem
from policies.grid import MONDAY_NOON, Probe, probes
from policies.schema import RequestFacts
from policies.source import parse
from policies.validate import validate_as
from router.configuration import policy_from
from router.files import text_of

MOST_PROBES = 20_000
_SHOWN = 20


def run(arguments: argparse.Namespace) -> int:
    try:
        old, new = (policy_from([Path(one)], os.environ) for one in (arguments.old, arguments.new))
        asked = list(_requests(Path(arguments.requests))) if arguments.requests else _grid(old, new)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    moves = compare(old, new, asked, arguments.seed)
    losing = [move for move in moves if move.loses_trust]
    blinder = weakened(old.source.sensitivity, new.source.sensitivity)
    if arguments.json:
        report = _as_json(old, new, asked, moves) | {"detectors_find_less": blinder}
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        _show(old, new, asked, moves, blinder)
    return 1 if losing or blinder else 0


def _grid(old: CompiledPolicy, new: CompiledPolicy) -> list[Probe]:
    return probes([old, new], MOST_PROBES, ZoneInfo)


def _requests(path: Path) -> Iterator[Probe]:
    """Facts of requests: a YAML or JSON list of them, or one JSON object a line."""
    text = text_of(path)
    if path.suffix == ".jsonl":
        text = "".join(f"---\n{line}\n" for line in text.splitlines() if line.strip())
    documents, problems = parse(text, str(path), os.environ)
    for document in documents:
        listed = isinstance(document.data, list)
        for part in [document.part((i,)) for i in range(len(document.data))] if listed else [document]:
            facts, wrong = validate_as(part, RequestFacts)
            problems += wrong
            if facts is not None:
                yield Probe(facts, MONDAY_NOON)
    if problems:
        raise ConfigurationError(problems)
    if not documents:
        raise ConfigurationError([Problem(str(path), 0, 0, "holds no requests")])


def _facts(probe: Probe) -> dict[str, Any]:
    shown = probe.facts.model_dump(exclude_defaults=True, exclude={"id", "protocol"})
    if probe.now == MONDAY_NOON:
        return shown
    return shown | {"now": datetime.fromtimestamp(probe.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def _plain(value: Any) -> str:
    """A fact for a person: `batch=true` for labels, names one after the other for a list."""
    if isinstance(value, dict):
        return " ".join(f"{name}={one}" for name, one in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _as_json(old: CompiledPolicy, new: CompiledPolicy, asked: list[Probe], moves: list[Move]) -> dict[str, Any]:
    return {
        "old": old.digest,
        "new": new.digest,
        "requests": len(asked),
        "moved": len(moves),
        "losing_trust": sum(move.loses_trust for move in moves),
        "moves": [
            {
                "request": _facts(move.probe),
                "before": {"rule": move.before.rule, "label": move.before.label, "goes_to": str(move.before)},
                "after": {"rule": move.after.rule, "label": move.after.label, "goes_to": str(move.after)},
                "why": move.why,
                "loses_trust": move.loses_trust,
            }
            for move in moves
        ],
    }


def _show(old: CompiledPolicy, new: CompiledPolicy, asked: list[Probe], moves: list[Move], blinder: list[str]) -> None:
    from rich.table import Table

    from router.cli.output import console

    out = console()
    print(f"policy {old.digest} -> {new.digest}, {len(asked)} requests compared", flush=True)
    for sentence in blinder:
        print(f"LESS IS FOUND: {sentence}")
    if not moves:
        print("nothing else moves" if blinder else "nothing moves")
        if old.digest != new.digest:
            told = "shares of a split, budgets, limits, load, and what detectors find in texts"
            print(f"the fleet is taken at rest, and no text is read; not compared: {told}")
        return
    kinds = Counter((m.loses_trust, str(m.before), str(m.after), m.why) for m in moves)
    examples = {(m.loses_trust, str(m.before), str(m.after), m.why): m for m in reversed(moves)}
    table = Table("", "requests", "from", "to", "why", "for example")
    ordered = sorted(kinds.items(), key=lambda item: (not item[0][0], -item[1]))
    for kind, count in ordered[:_SHOWN]:
        loses, before, after, why = kind
        move = examples[kind]
        if before == after:
            before, after = f"rule {move.before.rule}", f"rule {move.after.rule}, same backends"
        example = ", ".join(f"{name} {_plain(value)}" for name, value in _facts(move.probe).items())
        table.add_row("LESS TRUSTED" if loses else "", str(count), before, after, why, example)
    out.print(table)
    if len(ordered) > _SHOWN:
        print(f"and {len(ordered) - _SHOWN} more kinds of moves: --json lists every request")
    losing = sum(move.loses_trust for move in moves)
    print(f"{len(moves)} of {len(asked)} requests move; {losing} to where they are trusted less")
