"""What requests cost: every answer that must be paid for, used or not, becomes a charge on its request's bill, in the
metrics, and against its budgets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from backends.calls import Usage
from policies.accounts import Charge, charge
from policies.estimate import cost_usd, size
from policies.types import Candidate
from router.attempts import Result
from router.decisionlog.record import Decided
from router.live import Live


class Counted(NamedTuple):
    """Tokens of an answer: as its backend told, or what was seen of it on its way where it told nothing."""

    told: Usage | None
    seen: Usage | None = None

    @property
    def tokens_out(self) -> int:
        known = self.told or self.seen
        return known.tokens_out if known else 0


@dataclass(slots=True)
class Bill:
    """Of one request, or of a copy."""

    charges: list[Charge] = field(default_factory=list)
    usd: float = 0.0  # of all of them
    answer: Charge | None = None  # that of them whose answer is used

    def charge(
        self, live: Live, decided: Decided, purpose: str, candidate: Candidate, counted: Counted, seconds: float
    ) -> None:
        """Count what an answer costs, also against budgets. Where nobody knows its tokens, they are those that the
        request was expected to take."""
        request, target, quotas = decided.request, candidate.target, decided.decision.quotas
        told, intensities, intensity, now = counted.told, live.intensities, None, 0.0
        usage = told or counted.seen or Usage(request.tokens_in, request.tokens_out)
        if quotas or intensities.scheduled:
            now = time.time()
            intensity = intensities.at(now)[target.backend_index] if intensities.scheduled else None
        tokens_in, tokens_out = usage
        estimated = told is None and (tokens_in > 0 or tokens_out > 0)
        made = charge(target, purpose, tokens_in, tokens_out, estimated, seconds if seconds > 0.0 else 0.0, intensity)
        self.charges.append(made)
        self.usd += made.usd
        if purpose == "answer":
            self.answer = made
        if quotas:
            tokens = tokens_in + tokens_out
            live.ledger.charge(decided.id, decided.decision, request, target.backend, tokens, made.usd, now)

    def finished(
        self,
        live: Live,
        decided: Decided,
        result: Result,
        counted: Counted,
        purpose: str = "answer",
        held_up: bool = False,
    ) -> None:
        """Fold a whole, good answer into what is known of its backend, and charge it. `held_up`: its client kept the
        stream waiting, so its time tells nothing of the backend, whose place it held all the same."""
        request, usage, candidate = decided.request, counted.told, result.candidate
        now = result.ended or (time.monotonic() if result.answer.chunks is not None else result.began_at)
        seconds, sized = now - result.started, None
        if request.protocol == "oip":
            sized = size(request)
        elif usage is not None and usage.tokens_out:
            sized = usage.tokens_out
        if not held_up:
            live.state.observe_latency(candidate.target, seconds * 1000, now, sized)
        self.charge(live, decided, purpose, candidate, counted, seconds)

    def broke_off(
        self,
        live: Live,
        decided: Decided,
        result: Result,
        counted: Counted,
        purpose: str = "broken",
        ended: float | None = None,
    ) -> None:
        """Charge an answer that ended early, at `ended` or now: whoever gave it bills what it has made, which only an
        estimate can say."""
        seconds = (time.monotonic() if ended is None else ended) - result.started
        self.charge(live, decided, purpose, result.candidate, counted, seconds)

    def expected_usd(self, decided: Decided, candidate: Candidate) -> float:
        """What the request will have cost once this one has answered, as far as that can be said before."""
        request = decided.request
        seconds = candidate.estimate.latency_ms / 1000
        return self.usd + cost_usd(candidate.target, request.tokens_in, request.tokens_out, seconds)
