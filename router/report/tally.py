"""Sums over records of the decision log, one at a time, in memory that grows by a few bytes for each."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

DIMENSIONS = ("tenant", "model", "tier", "backend", "rule")
TIERS = ("edge", "onprem", "cloud")
"""From near to far."""
NOBODY = "-"
"""Stands for the backend and tier of requests that none answered."""
STRANGE = (LookupError, TypeError, AttributeError, ValueError, OverflowError)
"""What comes of a record that no router has written, though its hash is right."""


def nearness(tier: str) -> tuple[int, str]:
    """To sort tiers by: the nearest first, what is none last."""
    return (TIERS.index(tier) if tier in TIERS else len(TIERS)), tier


@dataclass(slots=True)
class Group:
    """Of requests that have something in common. Money in USD, energy in joules."""

    requests: int = 0
    answered: int = 0
    met: int = 0
    missed: int = 0
    usd: float = 0.0
    marginal_usd: float = 0.0
    baseline_usd: float = 0.0  # of answers; where the cloud has no such model, what they did cost
    alternatives: int = 0  # answers that the cloud could have given, too
    alternatives_usd: float = 0.0  # what it would have asked for them
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_estimated: int = 0
    energy_j: float = 0.0
    carbon_g: float = 0.0
    ms: array[float] = field(default_factory=lambda: array("f"))  # of answered requests

    def charge(self, charge: Mapping[str, Any]) -> None:
        self.usd += charge["usd"]
        self.marginal_usd += _marginal_usd(charge)
        tokens_in, tokens_out = charge.get("tokens_in", 0), charge.get("tokens_out", 0)
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        if charge.get("estimated"):
            self.tokens_estimated += tokens_in + tokens_out
        self.energy_j += charge.get("energy_j", 0.0)
        self.carbon_g += charge.get("carbon_g", 0.0)

    def end(self, outcome: Mapping[str, Any], usd: float) -> None:
        self.requests += 1
        met = outcome.get("slo_met")
        self.met += met is True
        self.missed += met is False
        if outcome["outcome"] != "ok":
            return
        self.answered += 1
        self.ms.append(outcome["ms"])
        baseline = outcome.get("baseline_usd")
        self.baseline_usd += usd if baseline is None else baseline
        if baseline is not None:
            self.alternatives += 1
            self.alternatives_usd += baseline


@dataclass(slots=True)
class Minute:
    tiers: Counter[str] = field(default_factory=Counter)  # answers by tier
    usd: float = 0.0
    marginal_usd: float = 0.0
    baseline_usd: float = 0.0


@dataclass(slots=True)
class Tally:
    """What `summary.summed_up` makes a report of."""

    since: float  # seconds since 1970; records before it, and from `until` on, do not count
    until: float
    earliest: float | None = None  # record of all, also of those before
    total: Group = field(default_factory=Group)
    by: dict[str, defaultdict[str, Group]] = field(
        default_factory=lambda: {name: defaultdict(Group) for name in DIMENSIONS}
    )
    outcomes: Counter[str] = field(default_factory=Counter)
    purposes: Counter[str] = field(default_factory=Counter)  # USD by purpose
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)  # (label of what was sent, tier) -> requests
    minutes: defaultdict[int, Minute] = field(default_factory=lambda: defaultdict(Minute))
    uncharged: int = 0  # records that an older version wrote, without what their cost is made of

    def add(self, record: Mapping[str, Any]) -> None:
        at = float(record["at"])
        self.earliest = at if self.earliest is None else min(self.earliest, at)
        if not self.since <= at < self.until:
            return
        if record.get("event") == "copy":
            self._charges(record["charges"], [self.total], self.minutes[int(at // 60)])
        elif "id" in record and "outcome" in record:
            self._request(record, self.minutes[int(at // 60)])

    def _request(self, record: Mapping[str, Any], minute: Minute) -> None:
        request, decision, outcome = record["request"], record["decision"], record["outcome"]
        charges = outcome.get("charges")
        if charges is None:
            charges = []
            if outcome.get("cost_usd"):
                self.uncharged += 1
                self.total.usd += outcome["cost_usd"]
        backend = outcome.get("backend") or NOBODY
        tier = next((charge["tier"] for charge in charges if charge["backend"] == backend), NOBODY)
        own = [self.by["tenant"][request.get("tenant", "anonymous")], self.by["rule"][decision["rule"]]]
        self._charges(charges, [self.total, *own], minute)
        usd = sum(charge["usd"] for charge in charges)
        places = (("model", request["model"]), ("tier", tier), ("backend", backend))
        for group in (self.total, *own, *(self.by[name][value] for name, value in places)):
            group.end(outcome, usd)
        self.outcomes[outcome["outcome"]] += 1
        self.labels[decision.get("sent_label") or decision["label"], tier] += 1
        if outcome["outcome"] == "ok":
            minute.tiers[tier] += 1
            minute.baseline_usd += outcome.get("baseline_usd", usd)

    def _charges(self, charges: Iterable[Mapping[str, Any]], groups: list[Group], minute: Minute) -> None:
        for charge in charges:
            own = [self.by[name][charge[name]] for name in ("model", "tier", "backend")]
            for group in (*groups, *own):
                group.charge(charge)
            self.purposes[charge.get("purpose", "answer")] += charge["usd"]
            minute.usd += charge["usd"]
            minute.marginal_usd += _marginal_usd(charge)


def _marginal_usd(charge: Mapping[str, Any]) -> float:
    """As `Charge.marginal_usd`."""
    return float(charge["usd"]) - float(charge.get("reserved_usd", 0.0))
