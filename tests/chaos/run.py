"""The long form of the suite: every fault in turn, then all of them mixed, then a router replica that is killed.

Run: make chaos [SECONDS=60], or .venv/bin/python -m tests.chaos.run SECONDS [--seed N] [--no-ray]

Prints a row for each fault. The exit status is 1 where any check failed. The seed says which requests come when, and
which faults: the same seed gives the same run, as far as a machine can.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import checks, faults, rolling
from tests.chaos.load import Mix, Outcome, by_code, drive
from tests.chaos.world import World
from tests.processes import command, descendants, listens, soon

RATE = 60.0
WIDTHS = (24, 9, 9, 8, 12)
RAY_FROM_S = 120.0
"""A Ray cluster takes long to start: shorter runs leave it out."""


@dataclass
class Row:
    fault: str
    requests: int = 0
    ok: int = 0
    able: tuple[int, int] = (0, 0)
    errors: dict[str, int] = field(default_factory=dict)
    slowest_ms: float = 0.0  # over the deadline
    failed: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, fault: str, outcomes: list[Outcome], failed: list[str]) -> Row:
        codes = by_code(outcomes)
        slowest = max((checks.over_deadline_s(one) for one in outcomes if one.code != "left"), default=0.0)
        ok = codes.pop("ok", 0)
        return cls(fault, len(outcomes), ok, checks.success(outcomes), dict(codes), slowest * 1000, failed)

    def print(self) -> None:
        good, able = self.able
        share = f"{100 * good / able:.1f} %" if able else "-"
        errors = ", ".join(f"{code} {count}" for code, count in sorted(self.errors.items())) or "-"
        cells = (self.fault, str(self.requests), str(self.ok), share, f"{self.slowest_ms:+.0f} ms")
        told = "".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))
        print(f"{told}{'passed' if not self.failed else 'FAILED':<8}{errors}", flush=True)
        for problem in self.failed[:5]:
            print(f"    {problem}")
        if len(self.failed) > 5:
            print(f"    and {len(self.failed) - 5} more")


def one_fault(world: World, kind: str, seconds: float, seed: int) -> Row:
    """One backend misbehaves from the beginning to the end."""
    world.heal()
    since = time.monotonic()
    if kind:
        faults.begin(world, kind, "edge", share=0.5, seed=seed)
    try:
        outcomes = drive(world.port, Mix(leaving=0.05), rate=RATE, seconds=seconds, seed=seed)
    finally:
        if kind:
            faults.end(world, kind, "edge")
    return Row.of(kind or "none", outcomes, checks.of_run(world, outcomes, since))


def killed_under_load(world: World, seconds: float, seed: int) -> Row:
    """One of three dies in the middle. What policy lets fall back must be answered all the same."""
    world.heal()
    since = time.monotonic()

    def beside() -> None:
        time.sleep(seconds / 3)
        world.backends["edge"].kill()

    outcomes = drive(world.port, Mix(deadlines_ms=(1500,)), rate=2 * RATE, seconds=seconds, seed=seed, beside=beside)
    failed = checks.of_run(world, outcomes, since)
    good, able = checks.success(outcomes)
    if good < checks.SUCCESS * able:
        failed.append(f"{good} of {able} that may fall back were answered")
    return Row.of("kill in the middle", outcomes, failed)


def mixed(world: World, seconds: float, seed: int) -> Row:
    """Fault after fault, on any backend; afterwards nothing may be left of it all."""
    world.heal()
    before = checks.holdings(world)
    since = time.monotonic()
    plan = faults.schedule(seconds, seed)
    outcomes = drive(
        world.port, Mix(leaving=0.1), rate=RATE, seconds=seconds, seed=seed, beside=lambda: faults.play(world, plan)
    )
    failed = checks.of_run(world, outcomes, since)
    world.heal()
    failed += checks.leaks(world, before)
    return Row.of(f"mixed, {len(plan)} faults", outcomes, failed)


def replica_killed(folder: Path, seconds: float, seed: int) -> Row:
    """One of two router replicas dies. Whom it was answering loses the connection; everybody else is answered, and in
    a while there are two again."""
    folder.mkdir()
    with World(folder, engine="ray", replicas=2) as world:
        assert world.router is not None
        pid = world.router.pid

        def serving() -> set[int]:
            return {one for one in descendants(pid) if "router" in command(one) and listens(one, world.port)}

        failed = [] if soon(lambda: len(serving()) == 2, 30) else ["there are no two replicas"]
        world.heal()
        killed_at = 0.0

        def beside() -> None:
            nonlocal killed_at
            time.sleep(seconds / 3)
            # The one without the admin port, so that what we look at goes on; the tests of the engine kill the other.
            victim = next((one for one in serving() if not listens(one, world.admin_port)), None)
            if victim is not None:
                killed_at = time.monotonic()
                os.kill(victim, signal.SIGKILL)

        since = time.monotonic()
        outcomes = drive(world.port, Mix(), rate=RATE / 2, seconds=seconds, seed=seed, beside=beside)
        # The kernel takes a dead listener's queue down with it: connections that were in it are reset, too.
        lost = [one for one in outcomes if one.broken and one.sent_at < killed_at + 0.5 < one.ended_at + 1]
        others = [one for one in outcomes if one not in lost]
        failed += checks.of_answers(others) + checks.of_backends(world, others, since)
        if not killed_at:
            failed.append("no replica was killed")
        if not soon(lambda: len(serving()) == 2, 60):
            failed.append("the replica was not replaced")
        if not soon(lambda: world.sum("pointsman_in_flight") == 0, 10):
            failed.append("something still counts as in flight")
        return Row.of(f"replica killed, {len(lost)} lost", others, failed)


def rolling_updates(folder: Path, seconds: float, seed: int) -> Row:
    """The replicas are replaced twice by new ones. No request may notice."""
    folder.mkdir()
    outcomes = rolling.updated(folder, 2, RATE, seconds, seed)
    failed = [f"{one.asked.id}: {one.code}" for one in outcomes if not one.good]
    return Row.of("rolling update, twice", outcomes, failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-ray", action="store_true", help="leave the killed replica out")
    arguments = parser.parse_args()
    with_ray = not arguments.no_ray and arguments.seconds >= RAY_FROM_S
    kinds = ("", *faults.ALL)
    # Half of the time for the faults one by one; what is slow to fail takes its own time besides.
    each = max(0.5, arguments.seconds * 0.5 / (len(kinds) + 1) - 0.7)
    print(f"{arguments.seconds:g} s, seed {arguments.seed}, {RATE:g} requests a second, {each:.1f} s for each fault\n")
    heads = ("fault", "requests", "ok", "able ok", "slowest")
    print("".join(head.ljust(width) for head, width in zip(heads, WIDTHS, strict=True)) + "checks  other outcomes")
    rows: list[Row] = []

    def do(make: Callable[[], Row]) -> None:
        rows.append(make())
        rows[-1].print()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "local"
        folder.mkdir()
        with World(folder) as world:
            for number, kind in enumerate(kinds):
                do(lambda kind=kind, number=number: one_fault(world, kind, each, arguments.seed * 1000 + number))
            do(lambda: killed_under_load(world, each, arguments.seed))
            do(lambda: mixed(world, arguments.seconds * (0.3 if with_ray else 0.45), arguments.seed))
        if with_ray:
            do(lambda: rolling_updates(Path(name) / "rolling", max(arguments.seconds * 0.05, 25.0), arguments.seed))
            do(lambda: replica_killed(Path(name) / "ray", arguments.seconds * 0.1, arguments.seed))
    failed = sum(bool(row.failed) for row in rows)
    print(
        "\nable ok: answered, of those that policy lets fall back; streams that were cut after their first byte do not"
        "\ncount. slowest: after the deadline of its request (of a stream, its first byte); negative is before it."
    )
    print(f"{len(rows) - failed} of {len(rows)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
