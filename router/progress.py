"""How far a request has come: what is known of it, and what follows from that at its end. No clock is read here."""

from __future__ import annotations

from dataclasses import dataclass, field

from backends.calls import Usage
from policies.compile import CompiledPolicy
from policies.tenants import NOBODY, Tenant
from router.attempts import Result, Step
from router.billing import Bill, Counted
from router.decisionlog.record import UNKNOWN_MODEL, Decided, Outcome
from router.hints import NO_HINTS, Hints
from router.requests import Masked
from router.telemetry.accounts import EndedKey, slo_met
from router.telemetry.trail import Ended
from router.wire.parsed import Parsed


@dataclass(slots=True)
class Progress:
    """Of one request. Times in seconds on the monotonic clock."""

    route: str  # as a path of the API
    arrived: float
    read: float  # when its body had come in
    tenant: Tenant = NOBODY
    parsed: Parsed | None = None
    hints: Hints = NO_HINTS
    decided: Decided | None = None
    masked: Masked | None = None
    result: Result | None = None
    steps: list[Step] = field(default_factory=list)
    bill: Bill = field(default_factory=Bill)
    usage: Usage | None = None  # as the backend counted
    events: int = 0  # of a stream, seen so far
    before: int = 0  # tokens of the answer that came in streams which broke, before this one
    first_byte: float | None = None  # when that of a streamed answer left
    relayed_s: float = 0.0  # from when backends had done their part to that moment

    def counted(self) -> Counted:
        """The tokens of the answer. Of a stream that nobody counted, what was seen: servers send about one in an
        event."""
        begun = self.first_byte is not None and self.decided is not None
        seen = Usage(self.decided.request.tokens_in, self.events) if begun and self.decided else None
        return Counted(self.usage, seen)

    @property
    def broke_off(self) -> bool:
        """Whether an answer began that did not come to its end."""
        if self.first_byte is None or self.decided is None:
            return False
        return not any(charge.purpose == "answer" for charge in self.bill.charges)

    def key(self, outcome: str, policy: CompiledPolicy) -> tuple[str, ...]:
        """The parts of an `EndedKey`."""
        target = self.result.candidate.target if self.result is not None else None
        parsed, task, model, route = self.parsed, "", "", ""
        if parsed is not None:
            task, route = parsed.task, self.route
            model = parsed.model if parsed.model in policy.model_names else UNKNOWN_MODEL
        return (
            route,
            task,
            model,
            self.tenant.name,
            self.decided.decision.rule if self.decided is not None else "",
            target.backend if target is not None else "",
            target.tier if target is not None else "",
            outcome,
        )

    def slo_met(self, outcome: str, now: float) -> bool | None:
        """Whether the objective was, from when its body had come in."""
        if self.decided is None:
            return None
        ttft_ms = (self.first_byte - self.read) * 1000 if self.first_byte is not None else None
        return slo_met(outcome, self.decided.decision, (now - self.read) * 1000, ttft_ms)

    def since_backends(self, result: Result, now: float) -> float:
        """Seconds since no backend was waited for any more: the answer, and what came of other attempts, was there."""
        there = result.ended or result.began_at
        if len(self.steps) > 1:
            there = max(there, *(step.began + step.ms / 1000 for step in self.steps))
        return max(now - there, 0.0)

    def overhead_s(self, now: float) -> float | None:
        """What the router itself took: until the first attempt, and from the answer on; of a stream, to its first
        byte."""
        if self.result is None or not self.steps:
            return None
        after_s = self.since_backends(self.result, now) if self.first_byte is None else self.relayed_s
        return self.steps[0].began - self.read + after_s

    def per_token_s(self, now: float) -> float | None:
        """Of a stream, after its first."""
        if self.first_byte is None:
            return None
        tokens = self.before + (self.usage.tokens_out if self.usage else self.events)
        return (now - self.first_byte) / (tokens - 1) if tokens > 1 else None

    def outcome(self, outcome: str, now: float) -> Outcome:
        """How it ended."""
        result, usage, first_byte, bill = self.result, self.usage, self.first_byte, self.bill
        told_in, told_out = (None, None) if usage is None else usage
        baseline = None
        if self.decided is not None and outcome == "ok":
            baseline = bill.baseline_usd(self.decided)
        return Outcome(
            outcome,
            0 if result is None else result.attempts,
            (now - self.arrived) * 1000,
            None if result is None else result.candidate.target.backend,
            None if first_byte is None else (first_byte - self.arrived) * 1000,
            told_in,
            told_out,
            bill.usd if bill.charges else None,
            [one.told() for one in self.steps] if len(self.steps) > 1 else None,
            bill.charges or None,
            baseline,
            self.slo_met(outcome, now),
        )

    def ended(self, key: EndedKey, status: int, now: float) -> Ended:
        """For its span and its log line. `status` is that of the answer, 0 where none was begun."""
        return Ended(
            outcome=key.outcome,
            status=status,
            decided=self.decided,
            backend=key.backend,
            tier=key.tier,
            attempts=len(self.steps),
            seconds=now - self.arrived,
            ttft_s=self.first_byte - self.arrived if self.first_byte is not None else None,
            usage=self.usage,
            cost_usd=self.bill.usd,
        )
