"""`pointsman simulate`: recorded traffic under another configuration. Exit 1 where something loses trust."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policies.errors import ConfigurationError
from policies.simulation.translation import strategies, unknown
from router.cli.output import console
from router.cli.traffic import misused, traffic
from router.configuration import policy_from
from router.report.summary import Report, as_dict
from router.simulation.compared import Comparison
from router.simulation.logged import Logged
from router.simulation.show import text


def run(arguments: argparse.Namespace) -> int:
    try:
        recorded = traffic(arguments)
        new = policy_from([Path(arguments.new)], os.environ) if arguments.new else None
        comparison = Comparison(recorded.policy, new, arguments.seed)
        comparison.walk(recorded.chains, arguments.load)
    except (ConfigurationError, ValueError, OSError) as error:
        return misused("simulate", error)
    if not comparison.requests:
        return recorded.nothing("simulate")
    not_known = _not_known(comparison, recorded.logged is not None, arguments.load)
    told = [*recorded.left_out, *not_known, *recorded.broken]
    reports = _reports(comparison, recorded.logged)
    if arguments.json:
        print(json.dumps(_as_json(comparison, reports, told), ensure_ascii=False, indent=2))
    else:
        out = console()
        for part in text(comparison, reports):
            out.print(part, highlight=False)
        for line in told:
            out.print(line, highlight=False, soft_wrap=True)
    losing = comparison.moves is not None and comparison.moves.losing_trust
    return 1 if losing or recorded.broken else 0


def _reports(comparison: Comparison, logged: Logged | None) -> dict[str, Report]:
    """By what heads their columns."""
    old, new = comparison.old, comparison.new
    found = {} if logged is None else {"as it was": comparison.report(logged.tally, old.simulation.policy)}
    found["simulated" if new is None else "old, simulated"] = comparison.report(old.tally, old.simulation.policy)
    if new is not None:
        found["new, simulated"] = comparison.report(new.tally, new.simulation.policy)
    return found


def _not_known(comparison: Comparison, measured: bool, load: float) -> list[str]:
    """What the figures do not say, or say with less ground."""
    told: list[str] = []
    runs = [run for run in (comparison.old, comparison.new) if run is not None]
    tried = [run.simulation.policy for run in runs]
    asked = dict.fromkeys(one for was in comparison.policies.values() for now in tried for one in unknown(was, now))
    told += [f"not known: {one}" for one in asked]
    used = dict.fromkeys(one for policy in tried for one in strategies(policy))
    told += [f"not simulated: {one}" for one in used]
    if comparison.paces.sized_others:
        others = f"{comparison.paces.sized_others:,} requests were not answered"
        told.append(f"not known: tokens of answers that were not given; {others}, and count with those of others")
    for (backend, model), count in sorted(runs[-1].unmeasured.items()) if measured else []:
        told.append(f"not measured: {model} at {backend}, so {count:,} answers take as long as the fleet expects")
    if load != 1.0:
        told.append(f"each request comes {load:g} times on average, so what was is another amount of traffic")
    return told


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
