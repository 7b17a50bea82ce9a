"""A decision as plain data: what `pointsman explain`, the admin port and a decision record show.

Nothing is computed here that `decide` did not compute; this only names it.
"""

from __future__ import annotations

from typing import Any

from policies.compile import CompiledPolicy
from policies.types import Candidate, Decision


def as_dict(decision: Decision, policy: CompiledPolicy) -> dict[str, Any]:
    """The whole decision: matched constraints, rule, every backend with its score or its rejections."""
    chosen = decision.chosen
    attempts = [candidate.target.backend for candidate in decision.attempts]
    rejected: dict[str, list[dict[str, str]]] = {}
    for rejection in decision.rejected:
        rejected.setdefault(rejection.backend, []).append({"filter": rejection.filter, "reason": rejection.reason})
    return {
        "request_id": decision.request_id,
        "policy": decision.policy,
        "seed": decision.seed,
        "label": policy.levels[decision.label],
        "sent_label": policy.levels[decision.sent_label],
        "constraints": list(decision.constraints),
        "rule": decision.rule,
        "backend": chosen.target.backend if chosen else None,
        "tier": chosen.target.tier if chosen else None,
        "picker": decision.picker,
        "attempts": attempts,
        "spilled": list(decision.spilled),
        "transform": decision.transform,
        "strategy": decision.strategy.model_dump(exclude_none=True) if decision.strategy else None,
        "shadow": decision.shadow.target.backend if decision.shadow else None,
        "counts_against": [policy.quotas[index].name for index in decision.quotas],
        "notices": list(decision.notices),
        "candidates": [_candidate(candidate, decision.objective) for candidate in decision.ranked],
        "rejected": [{"backend": name, "by": reasons} for name, reasons in rejected.items()],
        "refusal": (
            {
                "code": str(decision.refusal.code),
                "message": decision.refusal.message,
                "hint": decision.refusal.hint,
            }
            if decision.refusal
            else None
        ),
    }


def _candidate(candidate: Candidate, objective: tuple[tuple[str, float], ...]) -> dict[str, Any]:
    estimate = candidate.estimate
    return {
        "backend": candidate.target.backend,
        "tier": candidate.target.tier,
        "score": round(candidate.score, 6),
        "terms": [
            {"scorer": scorer, "weight": round(weight, 6), "value": round(value, 6)}
            for (scorer, weight), value in zip(objective, candidate.values, strict=True)
        ],
        "estimate": {
            "latency_ms": round(estimate.latency_ms, 3),
            "ttft_ms": round(estimate.ttft_ms, 3),
            "cost_usd": round(estimate.cost_usd, 9),
            "energy_j": round(estimate.energy_j, 6),
            "carbon_g": round(estimate.carbon_g, 9),
        },
    }


def why(decision: Decision) -> str:
    """One line for a table: what decided."""
    if decision.refusal is not None:
        by = sorted({r.filter for r in decision.rejected if r.filter != "capability"})
        return f"refused: {', '.join(by) or decision.refusal.code}"
    chosen = decision.ranked[0]
    if len(decision.ranked) == 1:
        by = sorted({r.filter for r in decision.rejected if r.filter != "capability"})
        return f"only one left after {', '.join(by)}" if by else "the only backend that serves it"
    if decision.picker == "split":
        return f"its share of the split under rule {decision.rule}"
    second = decision.ranked[1]
    leads = zip(decision.objective, chosen.values, second.values, strict=True)
    lead, scorer = max((weight * (mine - theirs), name) for (name, weight), mine, theirs in leads)
    better = f", ahead on {scorer}" if lead > 0 else ""
    return f"{chosen.score:.2f} over {second.target.backend}'s {second.score:.2f}{better}"
