"""`pointsman report`: what the decision log says of a stretch of time."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policies.compile import CompiledPolicy
from policies.errors import ConfigurationError
from router.cli.output import console
from router.configuration import policy_from
from router.decisionlog.chain import Verification, unlink
from router.decisionlog.files import chains, lines, why_none
from router.report.show import text
from router.report.summary import Report, summed_up
from router.report.tally import Tally


def run(arguments: argparse.Namespace) -> int:
    paths = [Path(path) for path in arguments.log]
    none = why_none(paths)
    if none:
        print(f"pointsman report: {none} (`pointsman serve --decision-log FOLDER` writes one)", file=sys.stderr)
        return 2
    try:
        policy = policy_from([Path(path) for path in arguments.fleet], os.environ) if arguments.fleet else None
    except ConfigurationError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    now = time.time()
    since = now + arguments.since if arguments.since < 0 else arguments.since
    until = now if arguments.until is None else now + arguments.until if arguments.until < 0 else arguments.until
    until = min(until, now)  # hours of own hardware that are still to come cost nothing yet
    if until <= since:
        print("pointsman report: --until is not after --since", file=sys.stderr)
        return 2
    try:
        report = read(paths, since, until, policy)
    except OSError as error:
        print(f"pointsman report: {error.filename} cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    if arguments.html is not None and not _write(report, Path(arguments.html)):
        return 2
    if arguments.json:
        print(json.dumps(_as_dict(report), ensure_ascii=False, indent=2))
    else:
        out = console()
        for part in text(report):
            out.print(part, highlight=False)
    return 1 if report.broken else 0


def read(paths: list[Path], since: float, until: float, policy: CompiledPolicy | None) -> Report:
    """A report over every chain of the log, each verified on the way."""
    tally, broken = Tally(since, until), []
    for writer, files in chains(paths).items():
        chain, strange = Verification(), Counter[str]()
        for _ in chain.walk(_tallied(lines(files), tally, strange)):
            pass
        if chain.broken or strange:
            broken.append(writer)
    fleet, levels = (policy.fleet, policy.levels) if policy is not None else (None, ())
    return summed_up(tally, fleet, levels, tuple(broken))


def _tallied(raw: Iterator[bytes], tally: Tally, strange: Counter[str]) -> Iterator[bytes]:
    """The lines as they are, once they are counted; in `strange`, those that no router has written."""
    for line in raw:
        yield line
        try:
            record, _ = unlink(line)
        except ValueError:
            continue  # the chain tells of it
        try:
            tally.add(record)
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            strange[type(error).__name__] += 1


def _write(report: Report, file: Path) -> bool:
    try:
        from router.report.html import page
    except ImportError as error:
        hint = "pip install 'pointsman[report]'"
        print(f"pointsman report: --html needs {error.name}, which is not installed: {hint}", file=sys.stderr)
        return False
    try:
        file.write_text(page(report), encoding="utf-8")
    except OSError as error:
        print(f"pointsman report: {file} cannot be written: {error.strerror}", file=sys.stderr)
        return False
    return True


def _as_dict(report: Report) -> dict[str, Any]:
    found = dataclasses.asdict(report)
    found["own"] = [one | {"pays": own.pays} for one, own in zip(found["own"], report.own, strict=True)]
    return found | {
        "reserved_usd": report.reserved_usd, "amortised_usd": report.amortised_usd, "saved_usd": report.saved_usd
    }  # fmt: skip
