"""How requests end, in one word each, and whether that met the objective of their rule."""

from __future__ import annotations

from collections.abc import Mapping

from policies.types import Decision, RefusalCode

REFUSED: Mapping[str, str] = {
    RefusalCode.MODEL_NOT_FOUND: "not_found",
    RefusalCode.POLICY_NO_BACKEND: "refused",
    RefusalCode.MODEL_NOT_ALLOWED: "refused",
    RefusalCode.USAGE_NOT_ALLOWED: "refused",
    RefusalCode.UNAUTHORIZED: "unauthorized",
    RefusalCode.OVERLOADED: "overloaded",
    RefusalCode.BACKENDS_UNAVAILABLE: "unavailable",
    RefusalCode.DEADLINE_EXCEEDED: "deadline",
    RefusalCode.RATE_LIMITED: "rate_limited",
    RefusalCode.BUDGET_EXHAUSTED: "budget_exhausted",
}
"""How a request ends whose decision is a refusal."""
SERVICE_FAULTS = ("overloaded", "unavailable", "deadline", "upstream_error", "stream_broken", "internal")
"""Outcomes that count against an objective. All others but "ok" are the caller's doing, or what the policy wants."""
TURNED_AWAY = ("refused", "rate_limited", "budget_exhausted")
"""Outcomes that the policy wants."""


def slo_met(outcome: str, decision: Decision, ms: float, ttft_ms: float | None) -> bool | None:
    """Whether the objective of the request's rule was met, without one: whether it was answered at all; None where
    that is not the service's doing."""
    if outcome != "ok":
        return False if outcome in SERVICE_FAULTS else None
    slo = decision.slo
    if slo is None:
        return True
    late = slo.latency_ms is not None and ms > slo.latency_ms
    return not late and (slo.ttft_ms is None or ttft_ms is None or ttft_ms <= slo.ttft_ms)
