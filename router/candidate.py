"""What a candidate policy would have done with a request that the live one has answered. Nothing is sent."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.pickers import drawn
from router.decisionlog.record import Decided, compact
from router.hints import Hints
from router.metrics import Metrics
from router.requests import build_request
from router.settings import Settings
from router.wire.parsed import Parsed

log = logging.getLogger("pointsman")


def compare(
    candidate: CompiledPolicy, decided: Decided, parsed: Parsed, hints: Hints, settings: Settings, metrics: Metrics
) -> dict[str, Any] | None:
    """Decide the same request, in the same situation, under the candidate. What differs is counted, and a sample of it
    comes back for the log."""
    try:
        was = decided.request
        now = decided.snapshot.now
        request, _, _ = build_request(parsed, hints, candidate, was.body_bytes, decided.id, now, was.tenant)
        decision = decide(request, replace(decided.snapshot, spent={}), candidate, settings.seed)
    except Exception as error:  # a candidate's fault must not be a request's
        log.error("the candidate policy failed on request %s: %s", decided.id, type(error).__name__)
        metrics.candidate_decisions.labels("", "failed").inc()
        return None
    mine, theirs = (d.chosen.target.backend if d.chosen else "refused" for d in (decided.decision, decision))
    metrics.candidate_decisions.labels(mine, theirs).inc()
    if mine == theirs or not drawn(settings.candidate_sample, settings.seed, decided.id, "candidate"):
        return None
    return {"policy": candidate.digest, "decision": compact(decision, candidate)}
