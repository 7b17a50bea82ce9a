"""Scorers: how good is this target for this request, in [0, 1], without regard to the other candidates?

So removing a loser never changes the winner, and a weight means the same in every fleet. To add one: write the
function, put it in SCORERS, and give its term a field of the same name in `schema.Objective`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from policies.schema import CarbonTerm, CostTerm, LatencyTerm, Objective
from policies.types import Estimate, Snapshot, Target


class Scorer(Protocol):
    def __call__(self, target: Target, estimate: Estimate, snapshot: Snapshot, /) -> float: ...


def latency(term: LatencyTerm) -> Scorer:
    goal = term.target_ms
    return lambda target, estimate, snapshot: goal / (goal + estimate.latency_ms)


def cost(term: CostTerm) -> Scorer:
    goal = term.target_usd
    return lambda target, estimate, snapshot: goal / (goal + estimate.cost_usd)


def carbon(term: CarbonTerm) -> Scorer:
    goal = term.target_g
    return lambda target, estimate, snapshot: goal / (goal + estimate.carbon_g)


def quality(term: object) -> Scorer:
    """The quality stated in the fleet; a model without one scores 0."""
    return lambda target, estimate, snapshot: target.quality


def load(term: object) -> Scorer:
    """Share of the backend's concurrency that is free."""
    return lambda target, estimate, snapshot: max(
        0.0, 1 - snapshot.in_flight[target.backend_index] / target.max_in_flight
    )


SCORERS: dict[str, Callable[..., Scorer]] = {
    "latency": latency,
    "cost": cost,
    "carbon": carbon,
    "quality": quality,
    "load": load,
}
"""Every scorer by the name of its term in an objective: the term in, the function that scores out."""


def compile_objective(objective: Objective) -> tuple[tuple[tuple[str, float], ...], tuple[Scorer, ...]]:
    """((scorer's name, its share of the weights), …) and the functions, for each term with a weight."""
    terms = [(name, getattr(objective, name)) for name in SCORERS]
    weighted = [(name, term) for name, term in terms if term is not None and term.weight > 0]
    total = sum(term.weight for _, term in weighted)
    return (
        tuple((name, term.weight / total) for name, term in weighted),
        tuple(SCORERS[name](term) for name, term in weighted),
    )
