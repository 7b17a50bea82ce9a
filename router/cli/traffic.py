"""Recorded traffic, as the arguments of `simulate` and `tune` name it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from policies.compile import CompiledPolicy
from policies.errors import ConfigurationError
from policies.simulation.traffic import Arrival
from router.cli.arguments import window
from router.configuration import policy_from
from router.decisionlog.files import why_none
from router.report.tally import Tally
from router.simulation.logged import Logged
from router.simulation.trace import read

_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests, and the policy that they had. Of a file, `logged` is None."""

    policy: CompiledPolicy
    chains: Iterable[Iterable[Arrival]]  # to be read once
    logged: Logged | None

    @property
    def left_out(self) -> list[str]:
        """What is not among the requests, once they are read."""
        if self.logged is None:
            return []
        told = [
            f"left out: {count:,} requests that policy {digest} decided: give its files as they were then, with the "
            "variables of then, by --was"
            for digest, count in self.logged.others.most_common()
        ]
        if self.logged.outside:
            told.append(f"left out: {self.logged.outside:,} requests before --since (default: 1d) or after --until")
        if self.logged.nameless:
            count = f"{self.logged.nameless:,}"
            told.append(f"left out: {count} requests that were over before they were decided, or for no model")
        return told

    def nothing(self, command: str, why: str = "no requests to simulate") -> int:
        """Say that there is nothing to simulate, and what is there instead; the exit status."""
        print("\n".join([f"pointsman {command}: {why}", *self.left_out, *self.broken]), file=sys.stderr)
        return 1 if self.broken else 2

    @property
    def broken(self) -> list[str]:
        """What is not as it was written, once it is read."""
        chains = [] if self.logged is None else self.logged.broken
        return [f"NOT AS IT WAS WRITTEN: {chain} (see `pointsman log verify`)" for chain in chains]


def misused(command: str, error: ConfigurationError | ValueError | OSError) -> int:
    """Say what `traffic`, or the reading of it, has raised; the exit status."""
    if isinstance(error, ConfigurationError):
        print(error, file=sys.stderr)
    else:
        why = f"{error.filename} cannot be read: {error.strerror}" if isinstance(error, OSError) else error
        print(f"pointsman {command}: {why}", file=sys.stderr)
    return 2


def traffic(arguments: argparse.Namespace) -> Traffic:
    """Raises ValueError for arguments that do not go together, ConfigurationError for what is wrong in files."""
    if bool(arguments.log) == bool(arguments.trace):
        raise ValueError("give --log (the folder of a decision log) or --trace (a file of requests)")
    if arguments.trace:
        if arguments.was or arguments.since is not None or arguments.until is not None:
            raise ValueError("--was, --since and --until are for --log")
        policy = policy_from([Path(arguments.old)], os.environ)
        return Traffic(policy, [read(Path(arguments.trace), dict(arguments.set), policy)], None)
    paths = [Path(path) for path in arguments.log]
    if arguments.set:
        raise ValueError("--set is for --trace")
    if none := why_none(paths):
        raise ValueError(none)
    within = window(-_DAY_S if arguments.since is None else arguments.since, arguments.until, time.time())
    policy, *others = (policy_from([Path(one)], os.environ) for one in (arguments.old, *arguments.was))
    logged = Logged(paths, {one.digest: one for one in (policy, *others)}, Tally(*within))
    return Traffic(policy, logged.chains(), logged)
