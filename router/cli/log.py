"""`pointsman log verify` and `pointsman log tail`: the decision log, checked and read."""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from router.decisionlog.chain import Verification, unlink
from router.decisionlog.files import chains, numbered, why_none

_POLL_S = 0.5


def run(arguments: argparse.Namespace) -> int:
    paths = [Path(path) for path in arguments.paths]
    none = why_none(paths)
    if none:
        print(f"pointsman log: {none}", file=sys.stderr)
        return 2
    if arguments.action == "verify":
        return _verify(paths, arguments.json)
    return _tail(paths, arguments.lines, arguments.follow, arguments.json)


# --- verify -------------------------------------------------------------------------------------------------------


def _verify(paths: list[Path], as_json: bool) -> int:
    reports = [_report(writer, files) for writer, files in chains(paths).items()]
    if as_json:
        print(json.dumps({"intact": not any(r["broken"] for r in reports), "chains": reports}, indent=2))
    else:
        for report in reports:
            _show(report)
    return 1 if any(report["broken"] for report in reports) else 0


def _report(writer: str, files: list[Path]) -> dict[str, Any]:
    chain, place = Verification(), (files[-1], 0)

    def walked() -> Iterator[bytes]:
        nonlocal place
        for file, number, line in numbered(files):
            place = file, number
            yield line

    findings = []
    for finding in chain.walk(walked()):
        file, number = place
        findings.append({"file": str(file), "line": number, "broken": finding.broken, "text": finding.text})
    return {
        "chain": writer,
        "files": len(files),
        "broken": chain.broken,
        "records": chain.records,
        "decisions": chain.decisions,
        "first": chain.first,
        "last": chain.last,
        "last_hash": chain.last_hash,
        "findings": findings,
    }


def _show(report: dict[str, Any]) -> None:
    for finding in report["findings"]:
        severity = "error" if finding["broken"] else "note"
        print(f"{finding['file']}:{finding['line']}: {severity}: {finding['text']}")
    verdict = "BROKEN: it is not as it was written" if report["broken"] else "intact"
    print(f"{report['chain']}: {verdict}; {report['decisions']} decisions in {report['files']} file(s)")
    if not report["broken"]:
        print(f"  records {report['first']} to {report['last']}; the last hash is {report['last_hash']}")


# --- tail ---------------------------------------------------------------------------------------------------------


def _tail(paths: list[Path], count: int, follow: bool, as_json: bool) -> int:
    """Decisions, by when they were made; as JSON every line as it is, in its place, so that a copy can be verified."""
    seen: dict[Path, int] = {}
    new = _new_lines(paths, seen, as_json)
    # No more is kept than is shown: a log may be larger than the memory.
    found = deque(new, count) if as_json else reversed(heapq.nlargest(count, new, key=lambda one: one[0]))
    for _, shown in found:
        print(shown, flush=True)
    while follow:
        time.sleep(_POLL_S)
        for _, shown in _new_lines(paths, seen, as_json):
            print(shown, flush=True)
    return 0


def _new_lines(paths: list[Path], seen: dict[Path, int], as_json: bool) -> Iterator[tuple[float, str]]:
    """What has been written since the last look, as it is shown, and when it was decided; whole lines only. New files
    are found as they come."""
    for files in chains(paths).values():
        for file in files:
            unreadable = 0
            try:
                stream = file.open("rb")
            except FileNotFoundError:  # rotated away just now
                continue
            with stream:
                stream.seek(seen.get(file, 0))
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    seen[file] = seen.get(file, 0) + len(line)
                    try:
                        record, _ = unlink(line)
                        decision = "event" not in record
                        at, shown = (float(record["at"]), _line(record)) if decision else (0.0, "")
                    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                        unreadable += 1
                        continue
                    if as_json or decision:
                        yield at, line.decode().rstrip("\n") if as_json else shown
            if unreadable:
                told = f"{file}: {unreadable} line(s) are no records; `pointsman log verify` tells which"
                print(f"pointsman log: {told}", file=sys.stderr)


def _line(record: dict[str, Any]) -> str:
    decision, outcome, request = record["decision"], record.get("outcome", {}), record["request"]
    when = datetime.fromtimestamp(record["at"]).astimezone().isoformat(sep=" ", timespec="milliseconds")
    place = outcome.get("backend") or "-"
    attempts = f" after {outcome['attempts']} attempts" if outcome.get("attempts", 0) > 1 else ""
    cost = f" ${outcome['cost_usd']:.6f}" if "cost_usd" in outcome else ""
    rejected = decision.get("rejected")
    why = f" [{'; '.join(f'{backend}: {by}' for backend, by in rejected)}]" if rejected else ""
    other = record.get("candidate")
    differs = f" | candidate: {_goes_to(other['decision'])}" if other else ""
    return (
        f"{when} {record['id']} {request.get('tenant', 'anonymous')} {request['model']} {decision['label']}"
        f" {decision['rule']} -> {place}{attempts} {outcome.get('outcome', '')}"
        f" {outcome.get('ms', 0):.0f} ms{cost}{why}{differs}"
    )


def _goes_to(decision: dict[str, Any]) -> str:
    return str(decision["attempts"][0][0] if "attempts" in decision else f"refused ({decision['refusal']})")
