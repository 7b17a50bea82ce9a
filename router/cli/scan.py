"""`pointsman scan`: what the detectors find in texts, and the label it gives them. Never the text itself."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from policies.checks import check_policy
from policies.errors import ConfigurationError, Problem
from policies.schema import Pii, Policy, Secrets, Sensitivity
from policies.sensitivity.detectors import build_detectors
from policies.sensitivity.labels import label
from policies.sensitivity.ner import Recognisers, none_here
from policies.sensitivity.scanner import Scanner
from policies.source import Document
from policies.validate import validate
from router.configuration import missing_models, read, recognisers, yaml_files

DEFAULT = Sensitivity(detectors=[Pii(use="pii", label="confidential"), Secrets(use="secrets", label="restricted")])


def run(arguments: argparse.Namespace) -> int:
    try:
        sensitivity, models = _policy(arguments.policy, os.environ) if arguments.policy else (DEFAULT, none_here)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    ranks = {level: rank for rank, level in enumerate(sensitivity.levels)}
    scanner = build_detectors(sensitivity, ranks, models)
    try:
        stdin = contextlib.nullcontext(sys.stdin.buffer)
        with stdin if arguments.file == "-" else Path(arguments.file).open("rb") as lines:
            return _scan(lines, scanner, sensitivity.levels, ranks[sensitivity.default])
    except OSError as error:
        print(f"pointsman scan: {arguments.file} cannot be read: {error.strerror or error}", file=sys.stderr)
        return 2


def _policy(paths: Sequence[str], env: Mapping[str, str]) -> tuple[Sensitivity, Recognisers]:
    """What the one Policy among the files says of sensitivity, and its models; every problem of it at once."""
    problems: list[Problem] = []
    found: list[Policy] = []
    policies: list[Document] = []
    files = list(yaml_files(Path(path) for path in paths))
    for file in files:
        documents, wrong = read(file, env)
        problems += wrong
        for document in documents:
            if document.kind == "Fleet":
                continue
            checked = validate(document)
            problems += checked.problems
            if isinstance(checked.model, Policy):
                problems += check_policy(checked.model, checked.document, ZoneInfo)
                found.append(checked.model)
                policies.append(document)
    if not problems and len(found) != 1:
        where = ", ".join(map(str, files)) or ", ".join(paths)
        problems.append(Problem(where, 0, 0, f"{len(found)} documents of kind Policy; one is needed"))
    if not problems:
        problems += missing_models(policies)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise ConfigurationError(errors)
    return found[0].sensitivity, recognisers(policies)


def _scan(lines: Iterable[bytes], scanner: Scanner, levels: Sequence[str], floor: int) -> int:
    status = 0
    for number, line in enumerate(lines, 1):
        text = _text(line.rstrip(b"\r\n"))
        if text is None:
            print(f"pointsman scan: line {number} is not UTF-8 text, or its `text` is no string", file=sys.stderr)
            status = 1
        print(json.dumps(_result(text, scanner, levels, floor)))
    return status


def _text(line: bytes) -> str | None:
    try:
        text = line.decode()
        if text.lstrip().startswith("{"):
            record = json.loads(text)
            if isinstance(record, dict) and "text" in record:
                return record["text"] if isinstance(record["text"], str) else None
    except UnicodeDecodeError:
        return None
    except (ValueError, RecursionError):  # a text that begins with a brace
        pass
    return text


def _result(text: str | None, scanner: Scanner, levels: Sequence[str], floor: int) -> dict[str, object]:
    found = label(floor, len(levels) - 1, scanner, None if text is None else [text])
    return {"label": levels[found.rank], "entities": list(_entities(text, scanner))}


def _entities(text: str | None, scanner: Scanner) -> Iterator[dict[str, object]]:
    if text is None:
        return
    try:
        entities = scanner.find(text)
    except Exception:  # the label already says the worst; there are no places to tell
        return
    for entity in entities:
        yield {"type": entity.type, "start": entity.start, "end": entity.end, "score": entity.score}
