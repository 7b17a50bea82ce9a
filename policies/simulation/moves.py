"""Requests that end elsewhere under another policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from policies.compile import CompiledPolicy
from policies.diff import NOWHERE, OWN_PREMISES, placed, why
from policies.simulation.run import Ended
from policies.types import Decision

_FULL = ("limits", "health", "budget", "rate_limit", "deadline", "slo")
"""Filters that say what a fleet can do now, and not where a request may go."""


def whereto(ended: Ended) -> str:
    """The backend that answered, or how the request ended without an answer."""
    return ended.outcome if ended.target is None else ended.target.backend


def loses_trust(before: Ended, after: Ended, tiers: Mapping[str, str]) -> bool:
    """Whether it reaches a less trusted tier than before, also in vain or by a copy. Where it reached nobody before,
    what counts is whom policy let it go to: that the fleet was full is no protection. `tiers` are those of the
    backends before."""
    least = (
        least_trusted(target.tier for target in before.reached) if before.reached else _allowed(before.decision, tiers)
    )
    return least_trusted(target.tier for target in after.reached) < least


def least_trusted(tiers: Iterable[str]) -> int:
    """Trust of the least trusted of them; NOWHERE of none."""
    return min((OWN_PREMISES[tier] for tier in tiers), default=NOWHERE)


def _allowed(decision: Decision, tiers: Mapping[str, str]) -> int:
    """Of the backends that nothing but the state of the fleet kept from it."""
    barred = {one.backend for one in decision.rejected if one.filter not in _FULL}
    others = {one.backend for one in decision.rejected} - barred
    return least_trusted([*(one.target.tier for one in decision.ranked), *(tiers[name] for name in others)])


@dataclass(slots=True)
class Kind:
    """Requests that go from the same place to the same place."""

    why: str  # of the first of them
    rule: str  # that sends it there
    requests: int = 0
    losing_trust: int = 0
    usd: float = 0.0  # more than before
    labels: Counter[str] = field(default_factory=Counter)  # of what is sent


@dataclass(slots=True)
class Moves:
    """Between two policies, of which each has ended the same requests."""

    old: CompiledPolicy
    new: CompiledPolicy
    kinds: dict[tuple[str, str], Kind] = field(default_factory=dict)  # by (from, to)
    _tiers: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._tiers = {spec.name: spec.tier for spec in self.old.fleet.backends}

    @property
    def requests(self) -> int:
        return sum(kind.requests for kind in self.kinds.values())

    @property
    def losing_trust(self) -> int:
        return sum(kind.losing_trust for kind in self.kinds.values())

    def add(self, before: Ended, after: Ended) -> None:
        places = whereto(before), whereto(after)
        losing = loses_trust(before, after, self._tiers)
        if places[0] == places[1] and not losing:
            return
        kind = self.kinds.get(places)
        if kind is None:
            then, now = placed(before.decision, self.old), placed(after.decision, self.new)
            reason = why(before.decision, after.decision, then, now)
            kind = self.kinds[places] = Kind(reason, after.decision.rule)
        kind.requests += 1
        kind.losing_trust += losing
        kind.usd += sum(one.usd for one in after.charges) - sum(one.usd for one in before.charges)
        kind.labels[self.new.levels[after.decision.sent_label]] += 1
