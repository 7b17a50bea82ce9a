"""One attempt: a place at a backend, one call, and what is learnt from how it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from backends.calls import Answer, Backend, Call, Usage
from backends.errors import BackendError, Overloaded, RequestRejected, TimedOut, Unsuited
from policies.types import Candidate
from router.alarm import Alarm
from router.health import Event
from router.places import TooLate
from router.state import BackendState, FleetState
from router.telemetry.metrics import Metrics
from router.telemetry.trail import CURRENT

if TYPE_CHECKING:
    from router.telemetry.tracing import AttemptSpan

log = logging.getLogger("pointsman")

Clock = Callable[[], float]
ENOUGH_SAMPLES = 20
"""Before so many answers a quantile says little."""


@dataclass(slots=True)
class Step:
    """An attempt, as the decision record tells it."""

    backend: str
    kind: str  # first | fallback | retry | hedge | escalation
    outcome: str = "cancelled"
    ms: float = 0.0
    began: float = 0.0  # on the executor's clock
    confidence: float | None = None  # of an answer that was judged

    def told(self) -> dict[str, Any]:
        sure = {} if self.confidence is None else {"confidence": round(self.confidence, 4)}
        return {"backend": self.backend, "kind": self.kind, "outcome": self.outcome, "ms": round(self.ms, 1)} | sure


class Waste(NamedTuple):
    """An answer that is paid for and not used, or as much as there was of it."""

    candidate: Candidate
    told: Usage | None  # tokens as the backend counted
    seen: Usage  # where it did not
    seconds: float  # for which it was served


@dataclass(slots=True)
class Ask:
    """What is the same for all attempts of a request, and what came of them."""

    call: Call
    deadline: float  # on the executor's clock; up to the first byte of a stream
    callers_own: bool = False  # the deadline is the caller's: who misses it need not be broken
    priority: str = "interactive"
    tenant: str = ""
    expected: Usage = field(default_factory=lambda: Usage(0, 0))  # tokens, where a backend does not count them
    steps: list[Step] = field(default_factory=list)
    wasted: list[Waste] = field(default_factory=list)


@dataclass(slots=True)
class Lease:
    """A place at a backend, held until the answer's last byte. `release` may be called twice."""

    backend: BackendState
    has_place: bool = False
    released: bool = False
    span: AttemptSpan | None = None  # of the attempt that holds it, where there are traces

    def release(self) -> None:
        if not self.released:
            self.released = True
            if self.span is not None:
                self.span.end()
            self.backend.leave()
            if self.has_place:
                self.backend.places.release()


@dataclass(slots=True)
class Result:
    """An answer, who gave it, after how many attempts. The lease must be released when the answer has been sent."""

    answer: Answer
    candidate: Candidate
    attempts: int
    started: float  # when the attempt that answered had its place
    lease: Lease
    step: Step
    began_at: float = 0.0  # when the answer, or its first event, was there
    ended: float | None = None  # when all of a stream was there, that was read ahead
    asked_more: bool = False  # whether the answer holds what the client did not ask for

    @property
    def served_s(self) -> float:
        """Seconds until the answer was there, all of it as far as it was read."""
        return (self.ended or self.began_at) - self.started

    async def discard(self) -> None:
        """Another answer is used instead."""
        try:
            if self.answer.chunks is not None:
                await self.answer.chunks.aclose()
        finally:
            self.lease.release()


def expected_s(candidate: Candidate, ask: Ask) -> float:
    """Seconds until it is expected to answer: the first token of a stream, all of any other answer."""
    expected = candidate.estimate
    return (expected.ttft_ms if ask.call.stream else expected.latency_ms) / 1000


class DeadlinePassed(TimedOut):
    """The request's time is up, not just the attempt's."""


class NoPlace(Overloaded):
    """Its turn would come too late. It was not asked."""


class Attempts:
    def __init__(
        self, backends: Mapping[str, Backend], state: FleetState, metrics: Metrics, clock: Clock = time.monotonic
    ) -> None:
        self._backends, self._state, self._metrics, self._clock = backends, state, metrics, clock

    async def make(self, candidate: Candidate, ask: Ask, kind: str, patience_s: float | None = None) -> Result:
        """One answer. `patience_s` is the time after which somebody else is to be asked; absent: all that is left.

        Raises BackendError, RequestRejected; DeadlinePassed where the request's own time is up."""
        target, now = candidate.target, self._clock()
        remaining = ask.deadline - now
        limit = remaining if patience_s is None else min(patience_s, remaining)
        lease = self._enter(target.backend_index)
        step = Step(target.backend, kind, began=now)
        ask.steps.append(step)
        number = len(ask.steps)
        gave_up = False
        try:
            call = self._traced(lease, candidate, ask.call, step, number)
            with Alarm(limit):
                if not lease.backend.places.take():
                    await self._place(lease.backend, ask, ask.deadline - self._least_s(candidate, ask))
                lease.has_place = True
                began = self._clock()
                answer = await self._backends[target.backend].send(call)
            step.outcome = "ok"
            there = self._clock()
            if lease.span is not None:
                lease.span.answered(answer, there - began)
            self._state.observe(target.backend_index, Event.SUCCESS, there)
            self._metrics.attempt_seconds.observe((target.backend, target.tier), there - began)
            if answer.together:
                self._metrics.batch_size.observe((target.backend,), answer.together)
            lease.backend.learn((there - began) * 1000)
            return Result(answer, candidate, number, began, lease, step, there)
        except TooLate:
            step.outcome = NoPlace.outcome
            raise NoPlace(f"{target.backend}: its queue is too long for the deadline", retry_after_s=1.0) from None
        except TimeoutError:
            step.outcome = TimedOut.outcome
            passed = limit >= remaining
            gave_up = lease.has_place
            # A caller that gives little time must not be able to have a backend kept out.
            if lease.has_place and (not ask.callers_own or self._slow(candidate, ask, now)):
                self._state.observe(target.backend_index, Event.FAILURE, self._clock())
            if not lease.has_place and not passed:
                raise NoPlace(f"{target.backend}: no place within {limit:.3g} s", retry_after_s=1.0) from None
            if passed:
                raise DeadlinePassed(f"{target.backend}: no answer before the deadline") from None
            raise TimedOut(f"{target.backend}: no answer within {limit:.3g} s") from None
        except RequestRejected:
            step.outcome = RequestRejected.outcome
            raise
        except BackendError as error:
            step.outcome = error.outcome
            log.warning("attempt %d of request %s failed: %s", number, ask.call.request_id, error)
            if isinstance(error, Overloaded) and error.retry_after_s:
                self._state.hold(target.backend_index, error.retry_after_s, self._clock())
            if not isinstance(error, Overloaded | Unsuited):  # neither busy nor out of its depth is broken
                self._state.observe(target.backend_index, Event.FAILURE, self._clock())
            raise
        except Exception:
            step.outcome = "internal"
            raise
        finally:
            step.ms = (self._clock() - now) * 1000
            if log.isEnabledFor(logging.DEBUG):
                log.debug("attempt %d (%s) at %s: %s in %.1f ms", number, kind, target.backend, step.outcome, step.ms)
            self._metrics.attempts.add((target.backend, target.tier, kind, step.outcome))
            if step.outcome != "ok":
                if step.outcome in ("overloaded", "timeout") and lease.has_place:
                    lease.backend.learn(None)
                if gave_up or (step.outcome == "cancelled" and lease.has_place):
                    self._lost(candidate, ask, step.ms)
                lease.release()

    def answered(self, result: Result) -> None:
        """A whole answer that another one is used for says how fast its backend is all the same."""
        if result.answer.chunks is None:
            self._state.observe_latency(result.candidate.target, result.step.ms, self._clock())

    def _traced(self, lease: Lease, candidate: Candidate, call: Call, step: Step, number: int) -> Call:
        """The call as it is sent: with the trace context of a span of its own, where the router traces."""
        trail = CURRENT.get()
        if trail is None or trail.span is None:
            return call
        target = candidate.target
        if trail.trace_id is None:
            return trail.span.carried(call, target.tier)
        spec = self._backends[target.backend].spec
        lease.span = trail.span.attempt(spec, target, call, step, number, trail.copied)
        return lease.span.carried(call)

    async def _place(self, backend: BackendState, ask: Ask, latest: float) -> None:
        began = self._clock()
        try:
            await backend.places.acquire(ask.priority, ask.tenant, latest)
        finally:
            self._metrics.queue_seconds.observe((backend.name,), self._clock() - began)

    def usable(self, candidate: Candidate) -> bool:
        return self._state.unavailable(candidate.target.backend_index, self._clock()) is None

    def quantile_s(self, candidate: Candidate, share: float, stream: bool) -> float | None:
        """Of the target's time to answer; None where too little is known."""
        sketch = self._state.sketch(candidate.target, stream)
        found = sketch.quantile(share) if sketch.samples >= ENOUGH_SAMPLES else None
        return None if found is None else found / 1000

    def _slow(self, candidate: Candidate, ask: Ask, began: float) -> bool:
        """Whether it took so much longer than it should that the caller's deadline is no excuse."""
        usual = self.quantile_s(candidate, 0.99, ask.call.stream)
        return usual is not None and self._clock() - began > 3 * usual

    def _least_s(self, candidate: Candidate, ask: Ask) -> float:
        """What an answer takes at least: half of what is usual."""
        usual = self.quantile_s(candidate, 0.5, ask.call.stream)
        return 0.0 if usual is None else usual / 2

    def _lost(self, candidate: Candidate, ask: Ask, ms: float) -> None:
        """A call that was sent and given up: it is billed, and took at least that long."""
        self._state.observe_at_least(candidate.target, ms, ask.call.stream, self._clock())
        ask.wasted.append(Waste(candidate, None, Usage(ask.expected.tokens_in, 0), ms / 1000))

    def _enter(self, backend_index: int) -> Lease:
        backend = self._state.backends[backend_index]
        backend.enter()
        return Lease(backend)
