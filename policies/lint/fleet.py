"""Lints about backends."""

from __future__ import annotations

from collections.abc import Iterator

from policies.errors import Problem
from policies.lint.context import Linted


def backend_unreachable(linted: Linted) -> Iterator[Problem]:
    reached: set[str] = set()
    reasons: dict[str, set[str]] = {}
    for _, _, decision in linted.decided:
        reached.update(candidate.target.backend for candidate in decision.ranked)
        reached.update(r.backend for r in decision.rejected if r.filter == "shadow")
        for rejection in decision.rejected:
            if rejection.filter != "capability":
                reasons.setdefault(rejection.backend, set()).add(rejection.filter)
    for i, backend in enumerate(linted.fleet.backends):
        if backend.name not in reached:
            by = ", ".join(sorted(reasons.get(backend.name, ()))) or "capability"
            yield linted.in_fleet(
                ("backends", i, "name"), "PM103", f"no request can reach '{backend.name}': always rejected by {by}"
            )


def clearance_loose(linted: Linted) -> Iterator[Problem]:
    levels = linted.compiled.levels
    ranks = [levels.index(b.clearance) if b.clearance is not None else 0 for b in linted.fleet.backends]
    own = [rank for rank, b in zip(ranks, linted.fleet.backends, strict=True) if b.tier != "cloud"]
    for i, (rank, backend) in enumerate(zip(ranks, linted.fleet.backends, strict=True)):
        if backend.tier != "cloud" or rank == 0:
            continue
        told = ""
        if len(levels) > 1 and rank == len(levels) - 1:
            told = f"it may receive {levels[rank]}, the highest level"
        elif own and rank > min(own):
            told = f"it may receive {levels[rank]}, and a backend of your own only {levels[min(own)]}"
        if told:
            yield linted.in_fleet(
                ("backends", i, "clearance"), "PM104", f"'{backend.name}' is in the cloud, and {told}"
            )
