"""`pointsman explain --replay ID`: a logged decision made again, from the record alone."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from policies.errors import ConfigurationError
from policies.explain import as_dict
from router.cli.explain import show
from router.configuration import policy_from
from router.decisionlog.chain import unlink
from router.decisionlog.files import chains, lines, why_none
from router.decisionlog.record import replay


def run(arguments: argparse.Namespace) -> int:
    logs = [Path(path) for path in arguments.log]
    none = why_none(logs) if logs else "--replay needs --log, the folder of the decision log"
    if none:
        print(f"pointsman explain: {none}", file=sys.stderr)
        return 2
    try:
        policy = policy_from([Path(path) for path in arguments.paths], os.environ)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    found = _find(logs, arguments.replay)
    if found is None:
        print(f"pointsman explain: no decision {arguments.replay} in {', '.join(arguments.log)}", file=sys.stderr)
        return 1
    record, intact = found
    if not intact:
        print(
            "pointsman explain: that record was edited after it was written (see `pointsman log verify`)",
            file=sys.stderr,
        )
        return 1
    if record["policy"] != policy.digest:
        print(
            f"pointsman explain: policy {record['policy']} decided this, and these files are {policy.digest}; "
            "give the files as they were then, with the variables of then",
            file=sys.stderr,
        )
        return 1
    again = replay(record, policy)
    explained = as_dict(again.decision, policy)
    if arguments.json:
        print(json.dumps({"same": not again.differences, "differences": again.differences, **explained}, indent=2))
    else:
        show(explained, again.request)
        told = "; ".join(again.differences) or "the same as logged, to the bit"
        print(f"replay       {told}")
    return 1 if again.differences else 0


def _find(logs: list[Path], decision_id: str) -> tuple[dict[str, Any], bool] | None:
    """(record, whether it is as it was written) of the decision with this id."""
    wanted = f'"id":"{decision_id}"'.encode()
    for files in chains(logs).values():
        for line in lines(files):
            if wanted in line and line.endswith(b"\n"):
                try:
                    record, intact = unlink(line)
                except ValueError:
                    continue
                if record.get("id") == decision_id:
                    return record, intact
    return None
