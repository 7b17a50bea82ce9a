"""What requests cost: every answer that must be paid for, used or not, becomes a charge on its request's bill, in the
metrics, and against its budgets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from backends.calls import Usage
from policies.accounts import Charge, baseline_usd, charge
from policies.estimate import cost_usd, size
from policies.types import Candidate
from router.attempts import Result
from router.decisionlog.record import Decided
from router.live import Live
from router.telemetry.accounts import Accounts


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
    """Of one request."""

    charges: list[Charge] = field(default_factory=list)

    @property
    def usd(self) -> float:
        return sum([charge.usd for charge in self.charges])


class Billing:
    """Belongs to one event loop."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def charge(
        self,
        live: Live,
        decided: Decided,
        bill: Bill,
        purpose: str,
        candidate: Candidate,
        counted: Counted,
        seconds: float,
    ) -> None:
        """Count what an answer costs. Where nobody knows its tokens, they are those that the request was expected to
        take."""
        request, target = decided.request, candidate.target
        usage = counted.told or counted.seen or Usage(request.tokens_in, request.tokens_out)
        estimated = counted.told is None and any(usage)
        now = time.time()
        intensity = live.intensities.at(now)[target.backend_index] if live.intensities.scheduled else None
        made = charge(target, purpose, usage.tokens_in, usage.tokens_out, estimated, max(seconds, 0.0), intensity)
        bill.charges.append(made)
        self._accounts.charged(made)
        if decided.decision.quotas:
            tokens = usage.tokens_in + usage.tokens_out
            live.ledger.charge(decided.id, decided.decision, request, target.backend, tokens, made.usd, now)

    def finished(
        self, live: Live, decided: Decided, result: Result, bill: Bill, counted: Counted, purpose: str = "answer"
    ) -> None:
        """Fold a whole, good answer into what is known of its backend, and charge it."""
        request, usage, target = decided.request, counted.told, result.candidate.target
        now = result.ended or (time.monotonic() if result.answer.chunks is not None else result.began_at)
        sized = size(request) if request.protocol == "oip" else usage.tokens_out if usage and usage.tokens_out else None
        live.state.observe_latency(target, (now - result.started) * 1000, now, sized)
        self.charge(live, decided, bill, purpose, result.candidate, counted, now - result.started)

    def broke_off(
        self, live: Live, decided: Decided, result: Result, bill: Bill, counted: Counted, purpose: str = "broken"
    ) -> None:
        """Charge an answer that ended early: whoever gave it bills what it has made, which only an estimate can say."""
        seconds = time.monotonic() - result.started
        self.charge(live, decided, bill, purpose, result.candidate, counted, seconds)

    def expected_usd(self, decided: Decided, candidate: Candidate, bill: Bill) -> float:
        """What the request will have cost once this one has answered, as far as that can be said before."""
        request = decided.request
        seconds = candidate.estimate.latency_ms / 1000
        return bill.usd + cost_usd(candidate.target, request.tokens_in, request.tokens_out, seconds)

    def baseline_usd(self, decided: Decided, bill: Bill) -> float | None:
        """What the answer would have cost in the cloud; None where it has no such model."""
        answer = next((one for one in bill.charges if one.purpose == "answer"), None)
        if answer is None:
            return None
        alternatives = decided.policy.plan(decided.request).baselines
        return baseline_usd(alternatives, answer.tokens_in, answer.tokens_out, decided.snapshot)
