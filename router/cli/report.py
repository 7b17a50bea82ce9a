"""`pointsman report`: what the decision log says of a stretch of time."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from policies.compile import CompiledPolicy
from policies.errors import ConfigurationError
from router.cli.arguments import window
from router.cli.output import console
from router.configuration import policy_from
from router.decisionlog.chain import Verification
from router.decisionlog.files import chains, lines, why_none
from router.report.show import text
from router.report.summary import Report, as_dict, summed_up
from router.report.tally import STRANGE, Tally


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
    try:
        since, until = window(arguments.since, arguments.until, time.time())
    except ValueError as error:
        print(f"pointsman report: {error}", file=sys.stderr)
        return 2
    try:
        report = read(paths, since, until, policy)
    except OSError as error:
        print(f"pointsman report: {error.filename} cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    if arguments.html is not None and not _write(report, Path(arguments.html)):
        return 2
    if arguments.json:
        print(json.dumps(as_dict(report), ensure_ascii=False, indent=2))
    else:
        out = console()
        for part in text(report):
            out.print(part, highlight=False)
    return 1 if report.broken else 0


def read(paths: list[Path], since: float, until: float, policy: CompiledPolicy | None) -> Report:
    """A report over every chain of the log, each verified on the way."""
    tally, broken = Tally(since, until), []
    for writer, files in chains(paths).items():
        chain, strange = Verification(), False
        for record in chain.read(lines(files)):
            try:
                tally.add(record)
            except STRANGE:
                strange = True
        if chain.broken or strange:
            broken.append(writer)
    fleet, levels = (policy.fleet, policy.levels) if policy is not None else (None, ())
    return summed_up(tally, fleet, levels, tuple(broken))


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
