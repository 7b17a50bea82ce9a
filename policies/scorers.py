"""Scorers: how good is this target for this request, in [0, 1], without regard to the other candidates?

So removing a loser never changes the winner, and a weight means the same in every fleet. To add one: write its
expression into SCORERS, and give its term a field of the same name in `schema.Objective`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from policies.generated import function
from policies.schema import Objective
from policies.types import Candidate, Estimate, Snapshot, Target

Score = Callable[[Sequence[Target], Sequence[Estimate], Snapshot], list[Candidate]]
"""Targets and the estimate of each in, candidates out, in the same order."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """`expression` is Python over `target`, `estimate`, `snapshot` and `goal`; `goal` is the field of the objective's
    term with what half the score is given for, or None."""

    expression: str
    goal: str | None = None


SCORERS: dict[str, Scorer] = {
    "latency": Scorer("goal / (goal + estimate.latency_ms)", "target_ms"),
    "cost": Scorer("goal / (goal + estimate.cost_usd)", "target_usd"),
    "carbon": Scorer("goal / (goal + estimate.carbon_g)", "target_g"),
    # Stated in the fleet; a model without one scores 0.
    "quality": Scorer("target.quality"),
    # The share of the backend's concurrency that is free.
    "load": Scorer("max(0.0, 1 - snapshot.in_flight[target.backend_index] / target.max_in_flight)"),
}
"""Every scorer by the name of its term in an objective."""


def compile_objective(objective: Objective) -> tuple[tuple[tuple[str, float], ...], Score]:
    """((scorer's name, its share of the weights), …), for each term with a weight, and the function that scores.

    It is made from the expressions above: calls to a function for each term of each candidate would take longer than
    all the rest of a decision.
    """
    terms = [(name, getattr(objective, name)) for name in SCORERS]
    weighted = [(name, term) for name, term in terms if term is not None and term.weight > 0]
    total = sum(term.weight for _, term in weighted)
    shares = tuple((name, term.weight / total) for name, term in weighted)
    known: dict[str, Any] = {"Candidate": Candidate}
    lines, values, score = [], [], []
    for i, (name, term) in enumerate(weighted):
        scorer = SCORERS[name]
        known[f"weight{i}"] = shares[i][1]
        if scorer.goal is not None:
            known[f"goal{i}"] = getattr(term, scorer.goal)
        lines.append(f"    value{i} = {scorer.expression.replace('goal', f'goal{i}')}")
        values.append(f"value{i},")
        score.append(f"weight{i} * value{i}")
    body = [
        "found = []",
        "for target, estimate in zip(targets, estimates, strict=True):",
        *lines,
        f"    found.append(Candidate(target, {' + '.join(score) or '0.0'}, ({' '.join(values)}), estimate))",
        "return found",
    ]
    made: Score = function("score", "targets, estimates, snapshot", "\n".join(body), known)
    return shares, made
