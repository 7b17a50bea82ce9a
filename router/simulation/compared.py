"""Traffic under one policy or two, summed up as `pointsman report` sums up what happened."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from policies.compile import CompiledPolicy
from policies.simulation.moves import Moves
from policies.simulation.paces import Paces
from policies.simulation.run import Ended, Simulation
from policies.simulation.traffic import Arrival
from router.decisionlog.record import Outcome
from router.report.summary import Report, summed_up
from router.report.tally import Tally
from router.simulation.ordered import ordered


@dataclass(slots=True)
class Run:
    """One policy, and what it has done so far."""

    simulation: Simulation
    tally: Tally = field(default_factory=lambda: Tally(0.0, math.inf))
    unmeasured: Counter[tuple[str, str]] = field(default_factory=Counter)  # answers by (backend, model)
    first: dict[str, str] = field(default_factory=dict)  # by outcome, what the first that was refused is told

    def take(self, arrival: Arrival) -> Ended:
        ended = self.simulation.arrive(arrival)
        self.tally.add(_as_record(arrival, ended, self.simulation.policy))
        copies = [charge for charge in ended.charges if charge.purpose == "copy"]
        if copies:
            self.tally.add({"event": "copy", "at": arrival.at, "charges": msgspec.to_builtins(copies)})
        if not ended.measured and ended.target is not None:
            self.unmeasured[ended.target.backend, ended.target.model] += 1
        refusal = ended.decision.refusal
        if refusal is not None and ended.outcome not in self.first:
            self.first[ended.outcome] = refusal.message
        return ended


class Comparison:
    """The policy that the traffic had, and the one that is tried with it, if there is another."""

    def __init__(self, old: CompiledPolicy, new: CompiledPolicy | None, seed: int = 0) -> None:
        self.paces = Paces()
        self._seed = seed
        self.old = Run(Simulation(old, self.paces, seed))
        self.new = None if new is None else Run(Simulation(new, self.paces, seed))
        self.moves = None if new is None else Moves(old, new)
        self.requests = 0
        self.last = 0.0  # when the last of them came, in seconds since 1970
        self.policies: dict[str, CompiledPolicy] = {}  # that have decided them, by digest
        self._answered = 0  # of those that `old` has decided: of which it is known who answered
        self._alike = 0  # of these, those that the simulation of `old` sends there, too

    @property
    def as_it_was(self) -> float | None:
        """Of the requests that the old policy has decided, and that were answered, the share that go where they went;
        None where the traffic is not as it was."""
        return self._alike / self._answered if self._answered else None

    def walk(self, chains: Iterable[Iterable[Arrival]], load: float = 1.0) -> None:
        """Simulate the requests of all chains, each `load` times on average."""
        for arrival in ordered(chains, self.paces, load, self._seed):
            self.requests += 1
            self.last = arrival.at
            before, answered = self.old.take(arrival), arrival.answered
            self.policies.setdefault(arrival.policy.digest, arrival.policy)
            if answered is not None and load == 1.0 and arrival.policy.digest == self.old.simulation.policy.digest:
                self._answered += 1
                self._alike += before.target is not None and before.target.backend == answered.target.backend
            if self.new is not None and self.moves is not None:
                self.moves.add(before, self.new.take(arrival))

    def report(self, tally: Tally, policy: CompiledPolicy) -> Report:
        """From the first request to the last: hours before and after them say nothing of either policy."""
        tally.until = self.last + 1.0
        return summed_up(tally, policy.fleet, policy.levels)


def _as_record(arrival: Arrival, ended: Ended, policy: CompiledPolicy) -> dict[str, Any]:
    """As far as a tally reads records; without what copies cost."""
    request, decision, target = ended.request, ended.decision, ended.target
    outcome = Outcome(
        ended.outcome,
        len(ended.reached),
        ended.ms,
        None if target is None else target.backend,
        charges=[charge for charge in ended.charges if charge.purpose != "copy"],
        baseline_usd=ended.baseline_usd,
        slo_met=ended.slo_met,
    )
    return {
        "id": request.id,
        "at": arrival.at,
        "request": {"tenant": request.tenant, "model": request.model},
        "decision": {
            "rule": decision.rule,
            "label": policy.levels[decision.label],
            "sent_label": policy.levels[decision.sent_label],
        },
        "outcome": msgspec.to_builtins(outcome),
    }
