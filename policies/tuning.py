"""Weights for a rule's objective, found by trying them with recorded traffic. What is not given up is said first."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from policies.compile import CompiledPolicy
from policies.diff import NOWHERE
from policies.schema import Objective
from policies.scorers import compile_objective
from policies.simulation.moves import least_trusted
from policies.simulation.paces import Paces
from policies.simulation.run import Ended, Simulation
from policies.simulation.traffic import Arrival

Weights = tuple[tuple[str, float], ...]
"""(term of the objective, its share), in the order of the terms. The shares sum to 1."""

_COARSE = (4, 3, 2)
"""Parts in which shares are tried first."""
_FINER = (4, 8, 16, 32)


_ROUNDING = 1e-9
_WORTH = 0.005
"""The share by which a goal must become smaller: less is within what a simulation can tell."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of some weights, over the requests that the rule decides; `others` over all other requests. None where
    nothing is known."""

    weights: Weights
    requests: int
    answered: int
    met: float | None  # share of the requests that met their objective, of those that were for the service to answer
    quality: float  # mean of the answering models', as the fleet states it
    mean_ms: float | None
    p95_ms: float | None
    usd: float
    carbon_g: float
    tiers: Mapping[str, int]  # answers
    others_unanswered: int = 0
    others_met: float | None = None
    unmeasured: int = 0  # answers that take what the fleet expects
    trust: bytes = field(default=b"", repr=False, compare=False)  # of the least trusted tier that each request reached

    @property
    def unanswered(self) -> int:
        return self.requests - self.answered

    def less_trusted(self, now: Tried) -> int:
        """Requests that reach a less trusted tier than they do `now`."""
        return sum(mine < theirs < NOWHERE for mine, theirs in zip(self.trust, now.trust, strict=False))


GOALS: Mapping[str, Callable[[Tried], float]] = {
    "cost": lambda tried: tried.usd,
    "carbon": lambda tried: tried.carbon_g,
    "latency": lambda tried: math.inf if tried.mean_ms is None else tried.mean_ms,
    "p95": lambda tried: math.inf if tried.p95_ms is None else tried.p95_ms,
}
"""What may be made small."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What may not be given up, of the rule's requests and of all others."""

    met: float
    quality: float
    unanswered: int
    others_met: float
    others_unanswered: int

    def held_by(self, tried: Tried) -> bool:
        return (
            _share(tried.met) >= self.met - _ROUNDING
            and tried.quality >= self.quality - _ROUNDING
            and tried.unanswered <= self.unanswered
            and _share(tried.others_met) >= self.others_met - _ROUNDING
            and tried.others_unanswered <= self.others_unanswered
        )

    @classmethod
    def of(cls, now: Tried, met: float | None = None, quality: float | None = None) -> Keep:
        """What there is now, but for what is said otherwise."""
        return cls(
            _share(now.met) if met is None else met,
            now.quality if quality is None else quality,
            now.unanswered,
            _share(now.others_met),
            now.others_unanswered,
        )


def _share(met: float | None) -> float:
    return 1.0 if met is None else met


def worth(one: Tried, now: Tried, goal: Callable[[Tried], float], keep: Keep) -> bool:
    """Whether it is worth a change: what keeps enough where `now` does not, or makes the goal smaller by more than a
    simulation can be off."""
    return keep.held_by(one) and (not keep.held_by(now) or goal(one) < goal(now) * (1 - _WORTH))


def _better(one: Tried, than: Tried, goal: Callable[[Tried], float], keep: Keep) -> bool:
    if keep.held_by(one) != keep.held_by(than):
        return keep.held_by(one)
    return goal(one) < goal(than) * (1 - _ROUNDING)


def front(found: Iterable[Tried], goal: Callable[[Tried], float]) -> list[Tried]:
    """Those to which no other is better in one thing and in nothing worse, the smallest goal first; of those whose
    goals are hardly apart, the first."""

    def merits(one: Tried) -> tuple[float, ...]:
        return -goal(one), _share(one.met), one.quality, -float(one.unanswered)

    kept: list[Tried] = []
    for one in found:
        mine = merits(one)
        if any(all(theirs >= own for theirs, own in zip(merits(other), mine, strict=True)) for other in kept):
            continue
        beaten = [o for o in kept if all(own >= theirs for own, theirs in zip(mine, merits(o), strict=True))]
        kept = [other for other in kept if other not in beaten] + [one]
    apart: list[Tried] = []
    for one in sorted(kept, key=goal):
        if not apart or goal(one) > goal(apart[-1]) * (1 + _WORTH):
            apart.append(one)
    return apart


def objective_of(policy: CompiledPolicy, rule: str) -> Objective:
    """As the policy states it. KeyError where there is no such rule."""
    for stated in policy.source.rules:
        if stated.name == rule:
            return stated.objective
    raise KeyError(rule)


def weights_of(policy: CompiledPolicy, rule: str) -> Weights:
    """Of the terms that the rule states, also those without weight."""
    objective = objective_of(policy, rule)
    terms = [(name, getattr(objective, name)) for name in type(objective).model_fields]
    stated = [(name, term.weight) for name, term in terms if term is not None]
    total = sum(weight for _, weight in stated)
    return tuple([(name, weight / total) for name, weight in stated])


def with_weights(policy: CompiledPolicy, rule: str, weights: Weights) -> CompiledPolicy:
    """The policy with other weights in one rule."""
    objective = objective_of(policy, rule)
    terms = {name: getattr(objective, name).model_copy(update={"weight": weight}) for name, weight in weights}
    shares, score = compile_objective(objective.model_copy(update=terms))
    rules = [
        dataclasses.replace(one, objective=shares, score=score) if one.name == rule else one for one in policy.rules
    ]
    digest = hashlib.sha256(f"{policy.digest} {rule} {weights}".encode()).hexdigest()[:16]
    return dataclasses.replace(policy, rules=tuple(rules), digest=digest, plans={})


def tried(
    policy: CompiledPolicy, rule: str, weights: Weights, arrivals: Sequence[Arrival], paces: Paces, seed: int = 0
) -> Tried:
    """All requests are simulated, and those that the rule decides are counted by themselves."""
    simulation = Simulation(with_weights(policy, rule, weights), paces, seed)
    mine, others = _Count(), _Count()
    quality = usd = carbon = 0.0
    unmeasured = 0
    times: list[float] = []
    tiers: dict[str, int] = {}
    trust = bytearray()
    for arrival in arrivals:
        ended = simulation.arrive(arrival)
        trust.append(least_trusted(target.tier for target in ended.reached))
        if ended.decision.rule != rule:
            others.add(ended)
            continue
        mine.add(ended)
        for charge in ended.charges:
            usd += charge.usd
            carbon += charge.carbon_g
        if ended.target is not None:
            unmeasured += not ended.measured
            quality += ended.target.quality
            times.append(ended.ms)
            tiers[ended.target.tier] = tiers.get(ended.target.tier, 0) + 1
    return Tried(
        weights,
        mine.requests,
        mine.answered,
        mine.share,
        quality / mine.answered if mine.answered else 0.0,
        sum(times) / mine.answered if mine.answered else None,
        _quantile(sorted(times), 0.95),
        usd,
        carbon,
        tiers,
        others.requests - others.answered,
        others.share,
        unmeasured,
        bytes(trust),
    )


@dataclass(slots=True)
class _Count:
    requests: int = 0
    answered: int = 0
    judged: int = 0
    met: int = 0

    def add(self, ended: Ended) -> None:
        self.requests += 1
        self.answered += ended.target is not None
        if (slo_met := ended.slo_met) is not None:
            self.judged += 1
            self.met += slo_met

    @property
    def share(self) -> float | None:
        return self.met / self.judged if self.judged else None


def _quantile(times: Sequence[float], share: float) -> float | None:
    """Of sorted times, between two of them where it falls there."""
    if not times:
        return None
    at = share * (len(times) - 1)
    low = int(at)
    high = min(low + 1, len(times) - 1)
    return times[low] + (times[high] - times[low]) * (at - low)


def search(
    start: Tried, attempt: Callable[[Weights], Tried], goal: Callable[[Tried], float], keep: Keep, most: int
) -> Iterator[Tried]:
    """Everything that is tried, `start` left out, at most so many: first every coarse share (coarser where terms are
    many, so that half of the tries are left), then finer and finer ones around the best that keeps enough."""
    names = [name for name, _ in start.weights]
    seen = {start.weights: start}
    best = start

    def fresh(candidates: Iterator[Weights]) -> Iterator[Tried]:
        for weights in candidates:
            if weights not in seen and len(seen) <= most:
                seen[weights] = attempt(weights)
                yield seen[weights]

    coarse = next((parts for parts in _COARSE if len(list(_shares(names, parts))) <= most / 2), 1)
    for one in fresh(_shares(names, coarse)):
        yield one
        best = one if _better(one, best, goal, keep) else best
    for parts in _FINER:
        moved = True
        while moved:
            moved = False
            for one in fresh(_beside(best.weights, 1 / parts)):
                yield one
                if _better(one, best, goal, keep):
                    best, moved = one, True


def _shares(names: Sequence[str], parts: int) -> Iterator[Weights]:
    """Every way to share out so many parts, all of them given."""
    for counts in _counts(len(names), parts):
        yield tuple(zip(names, (count / parts for count in counts), strict=True))


def _counts(places: int, parts: int) -> Iterator[tuple[int, ...]]:
    if places == 1:
        yield (parts,)
        return
    for first in range(parts, -1, -1):
        for rest in _counts(places - 1, parts - first):
            yield (first, *rest)


def _beside(weights: Weights, step: float) -> Iterator[Weights]:
    """A step from one term to another, for each pair."""
    for source, (_, share) in enumerate(weights):
        if share < step - _ROUNDING:
            continue
        for sink in range(len(weights)):
            if sink != source:
                moved = [
                    (name, round(one - step * (i == source) + step * (i == sink), 9))
                    for i, (name, one) in enumerate(weights)
                ]
                yield tuple(moved)
