"""`pointsman simulate`: recorded traffic under another configuration. Exit 1 where something loses trust."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from policies.compile import CompiledPolicy
from policies.errors import ConfigurationError
from policies.simulation.traffic import Arrival
from policies.simulation.translation import strategies, unknown
from router.cli.arguments import window
from router.cli.output import console
from router.configuration import policy_from
from router.decisionlog.files import why_none
from router.report.summary import Report, as_dict
from router.report.tally import Tally
from router.simulation.compared import Comparison
from router.simulation.logged import Logged
from router.simulation.show import text
from router.simulation.trace import read

_DAY_S = 86400.0


def run(arguments: argparse.Namespace) -> int:
    try:
        since, until = _window(arguments)
    except ValueError as error:
        print(f"pointsman simulate: {error}", file=sys.stderr)
        return 2
    try:
        old = policy_from([Path(arguments.old)], os.environ)
        new = policy_from([Path(arguments.new)], os.environ) if arguments.new else None
        before = [policy_from([Path(one)], os.environ) for one in arguments.was]
        logged = None if arguments.trace else _logged(arguments, [old, *before], Tally(since, until))
        trace = read(Path(arguments.trace), dict(arguments.set), old) if arguments.trace else []
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    comparison = Comparison(old, new, arguments.seed)
    chains: Iterable[Iterable[Arrival]] = [trace] if logged is None else logged.chains()
    try:
        comparison.walk(chains, arguments.load)
    except OSError as error:
        print(f"pointsman simulate: {error.filename} cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    left_out = [] if logged is None else _left_out(logged)
    if not comparison.requests:
        print("\n".join(["pointsman simulate: no requests to simulate", *left_out]), file=sys.stderr)
        return 2
    told = [*left_out, *_not_known(comparison, logged is not None, arguments.load), *_broken(logged)]
    reports = _reports(comparison, logged)
    if arguments.json:
        print(json.dumps(_as_json(comparison, reports, told), ensure_ascii=False, indent=2))
    else:
        out = console()
        for part in text(comparison, reports):
            out.print(part, highlight=False)
        for line in told:
            out.print(line, highlight=False, soft_wrap=True)
    losing = comparison.moves is not None and comparison.moves.losing_trust
    return 1 if losing or (logged is not None and logged.broken) else 0


def _window(arguments: argparse.Namespace) -> tuple[float, float]:
    """Of a log. Raises ValueError for arguments that do not go together."""
    if bool(arguments.log) == bool(arguments.trace):
        raise ValueError("give --log (the folder of a decision log) or --trace (a file of requests)")
    if arguments.trace and (arguments.was or arguments.since is not None or arguments.until is not None):
        raise ValueError("--was, --since and --until are for --log")
    if arguments.log and arguments.set:
        raise ValueError("--set is for --trace")
    none = why_none([Path(path) for path in arguments.log]) if arguments.log else ""
    if none:
        raise ValueError(none)
    return window(-_DAY_S if arguments.since is None else arguments.since, arguments.until, time.time())


def _logged(arguments: argparse.Namespace, policies: list[CompiledPolicy], tally: Tally) -> Logged:
    return Logged([Path(path) for path in arguments.log], {one.digest: one for one in policies}, tally)


def _reports(comparison: Comparison, logged: Logged | None) -> dict[str, Report]:
    """By what heads their columns."""
    old, new = comparison.old, comparison.new
    found = {} if logged is None else {"as it was": comparison.report(logged.tally, old.simulation.policy)}
    found["simulated" if new is None else "old, simulated"] = comparison.report(old.tally, old.simulation.policy)
    if new is not None:
        found["new, simulated"] = comparison.report(new.tally, new.simulation.policy)
    return found


def _left_out(logged: Logged) -> list[str]:
    told = [
        f"left out: {count:,} requests that policy {digest} decided: give its files as they were then, with the "
        "variables of then, by --was"
        for digest, count in logged.others.most_common()
    ]
    if logged.nameless:
        told.append(f"left out: {logged.nameless:,} requests that were over before they were decided, or for no model")
    return told


def _not_known(comparison: Comparison, measured: bool, load: float) -> list[str]:
    """What the figures do not say, or say with less ground."""
    told: list[str] = []
    old, new = comparison.old, comparison.new
    if new is not None:
        policies = old.simulation.policy, new.simulation.policy
        told += [f"not known: {one}" for one in unknown(*policies)]
    runs = [old] if new is None else [old, new]
    used = dict.fromkeys(one for run in runs for one in strategies(run.simulation.policy))
    told += [f"not simulated: {one}" for one in used]
    for (backend, model), count in sorted(runs[-1].unmeasured.items()) if measured else []:
        told.append(f"not measured: {model} at {backend}, so {count:,} answers take as long as the fleet expects")
    if load != 1.0:
        told.append(f"each request comes {load:g} times on average, so what was is another amount of traffic")
    return told


def _broken(logged: Logged | None) -> list[str]:
    broken = [] if logged is None else logged.broken
    return [f"NOT AS IT WAS WRITTEN: {chain} (see `pointsman log verify`)" for chain in broken]


def _as_json(comparison: Comparison, reports: Mapping[str, Report], told: list[str]) -> dict[str, Any]:
    moves, new = comparison.moves, comparison.new
    return {
        "old": comparison.old.simulation.policy.digest,
        "new": None if new is None else new.simulation.policy.digest,
        "requests": comparison.requests,
        "as_it_was": comparison.as_it_was,
        "moved": 0 if moves is None else moves.requests,
        "losing_trust": 0 if moves is None else moves.losing_trust,
        "moves": [
            {
                "from": before, "to": after, "requests": kind.requests, "losing_trust": kind.losing_trust,
                "usd": kind.usd, "labels": dict(kind.labels), "rule": kind.rule, "why": kind.why,
            }
            for (before, after), kind in (moves.kinds.items() if moves is not None else ())
        ],
        "runs": {name.split(",")[0].replace(" ", "_"): as_dict(report) for name, report in reports.items()},
        "told": told,
    }  # fmt: skip
