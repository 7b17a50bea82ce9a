"""How far a request has come: what is known of it, and what follows from that at its end. No clock is read here."""

from __future__ import annotations

from dataclasses import dataclass, field

from backends.calls import Usage
from policies.accounts import baseline_usd
from policies.compile import CompiledPolicy
from policies.outcomes import slo_met
from policies.tenants import NOBODY, Tenant
from router.attempts import Result, Step
from router.billing import Bill, Counted
from router.decisionlog.record import UNKNOWN_MODEL, Decided, Outcome
from router.hints import NO_HINTS, Hints
from router.requests import Masked
from router.telemetry.accounts import EndedKey
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
    held_up: bool = False  # its client did not read as quickly as it came
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
        return self.first_byte is not None and self.decided is not None and self.bill.answer is None

    def key(self, outcome: str, policy: CompiledPolicy) -> tuple[str, ...]:
        """The parts of an `EndedKey`."""
        parsed, decided, result, tenant = self.parsed, self.decided, self.result, self.tenant.name
        if parsed is None:
            return "", "", "", tenant, "", "", "", outcome
        model = parsed.model if parsed.model in policy.model_names else UNKNOWN_MODEL
        rule = "" if decided is None else decided.decision.rule
        if result is None:
            return self.route, parsed.task, model, tenant, rule, "", "", outcome
        target = result.candidate.target
        return self.route, parsed.task, model, tenant, rule, target.backend, target.tier, outcome

    def since_backends(self, result: Result, now: float) -> float:
        """Seconds since no backend was waited for any more: the answer, and what came of other attempts, was there."""
        there = result.ended or result.began_at
        if len(self.steps) > 1:
            there = max(there, *(step.began + step.ms / 1000 for step in self.steps))
        return now - there if now > there else 0.0

    def overhead_s(self, now: float) -> float | None:
        """What the router itself took: until the first attempt, and from the answer on; of a stream, to its first
        byte."""
        result, steps = self.result, self.steps
        if result is None or not steps:
            return None
        after_s = self.since_backends(result, now) if self.first_byte is None else self.relayed_s
        return steps[0].began - self.read + after_s

    def per_token_s(self, now: float) -> float | None:
        """Of a stream, after its first; None where its client kept it waiting."""
        if self.first_byte is None or self.held_up:
            return None
        tokens = self.before + (self.usage.tokens_out if self.usage else self.events)
        return (now - self.first_byte) / (tokens - 1) if tokens > 1 else None

    def outcome(self, outcome: str, now: float) -> Outcome:
        """How it ended. Objectives run from when its body had come in."""
        result, usage, first_byte, bill, decided = self.result, self.usage, self.first_byte, self.bill, self.decided
        told_in, told_out = (None, None) if usage is None else usage
        ttft_ms = waited_ms = met = baseline = None
        if first_byte is not None:
            ttft_ms, waited_ms = (first_byte - self.arrived) * 1000, (first_byte - self.read) * 1000
        if decided is not None:
            decision, answer = decided.decision, bill.answer
            met = slo_met(outcome, decision, (now - self.read) * 1000, waited_ms)
            if outcome == "ok" and answer is not None:
                baseline = baseline_usd(
                    decision.baselines, answer.tokens_in, answer.tokens_out + self.before, decided.snapshot
                )
        return Outcome(
            outcome,
            len(self.steps),
            (now - self.arrived) * 1000,
            None if result is None else result.candidate.target.backend,
            ttft_ms,
            told_in,
            told_out,
            bill.usd if bill.charges else None,
            [one.told() for one in self.steps] if len(self.steps) > 1 else None,
            bill.charges or None,
            baseline,
            met,
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
