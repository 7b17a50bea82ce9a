"""What a lint may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from policies.calendar import Zones
from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.diff import at_rest
from policies.errors import Problem
from policies.facts import request_from
from policies.grid import Probe, probes
from policies.schema import Fleet, Policy
from policies.source import Document, Path
from policies.types import Decision, Request

MOST_PROBES = 1500
"""Enough to meet every value of a policy of ordinary size, and few enough for `check` to stay quick."""


@dataclass(frozen=True)
class Linted:
    """A fleet and a policy that compile, with where everything stands."""

    compiled: CompiledPolicy
    fleet_document: Document
    policy_document: Document
    zones: Zones

    @property
    def fleet(self) -> Fleet:
        return self.compiled.fleet

    @property
    def policy(self) -> Policy:
        return self.compiled.source

    @cached_property
    def decided(self) -> Sequence[tuple[Probe, Request, Decision]]:
        """Every request that the policy tells apart, and what becomes of it while the fleet is at rest."""
        found = []
        for probe in probes([self.compiled], MOST_PROBES, self.zones):
            request = request_from(probe.facts, self.compiled, probe.now)
            found.append((probe, request, decide(request, at_rest(self.compiled, probe.now), self.compiled)))
        return found

    def in_policy(self, path: Path, code: str, message: str, hint: str = "", *, key: bool = False) -> Problem:
        return self.policy_document.problem(path, message, hint, key=key, severity="warning", code=code)

    def in_fleet(self, path: Path, code: str, message: str, hint: str = "", *, key: bool = False) -> Problem:
        return self.fleet_document.problem(path, message, hint, key=key, severity="warning", code=code)
