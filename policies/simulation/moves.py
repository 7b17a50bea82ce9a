"""Requests that end elsewhere under another policy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from policies.compile import CompiledPolicy
from policies.diff import NOWHERE, OWN_PREMISES, placed, why
from policies.outcomes import REFUSED
from policies.simulation.run import Ended
from policies.types import RefusalCode

_BARRED = (REFUSED[RefusalCode.POLICY_NO_BACKEND], REFUSED[RefusalCode.UNAUTHORIZED])
"""Outcomes of a request that neither load nor a limit has kept from being answered."""


def whereto(ended: Ended) -> str:
    """The backend that answered, or how the request ended without an answer."""
    return ended.outcome if ended.target is None else ended.target.backend


def loses_trust(before: Ended, after: Ended) -> bool:
    """Whether it reached a less trusted tier than before, also by a copy; or any, where policy had kept it back. One
    that only a full fleet had kept back is not told."""
    then, now = _reached(before), _reached(after)
    return now < then and (then < NOWHERE or before.outcome in _BARRED)


def _reached(ended: Ended) -> int:
    return min((OWN_PREMISES[charge.tier] for charge in ended.charges), default=NOWHERE)


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

    @property
    def requests(self) -> int:
        return sum(kind.requests for kind in self.kinds.values())

    @property
    def losing_trust(self) -> int:
        return sum(kind.losing_trust for kind in self.kinds.values())

    def add(self, before: Ended, after: Ended) -> None:
        places = whereto(before), whereto(after)
        losing = loses_trust(before, after)
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
