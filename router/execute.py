"""Walks a decision's attempts until one answers, inside the deadline. Until then any backend may be replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from backends.calls import Answer, Backend, Call
from backends.errors import BackendError, Overloaded, RequestRejected, TimedOut, Unsuited
from policies.types import Candidate, Decision, RefusalCode
from router.errors import ApiError
from router.health import Event
from router.metrics import Metrics
from router.state import BackendState, FleetState

log = logging.getLogger("pointsman")

Clock = Callable[[], float]


@dataclass(slots=True)
class Lease:
    """A place at a backend, held until the answer's last byte. `release` may be called twice."""

    executor: Executor
    backend: BackendState
    has_slot: bool = False
    released: bool = False

    def release(self) -> None:
        if not self.released:
            self.released = True
            self.executor.give_back(self)


@dataclass(slots=True)
class Result:
    """An answer, who gave it, after how many attempts. The lease must be released when the answer has been sent."""

    answer: Answer
    candidate: Candidate
    attempts: int
    started: float  # of the attempt that answered
    lease: Lease


class _DeadlinePassed(TimedOut):
    """The request's time is up, not just the attempt's."""


class Executor:
    def __init__(
        self, backends: dict[str, Backend], state: FleetState, metrics: Metrics, clock: Clock = time.monotonic
    ) -> None:
        self._backends = backends
        self._state = state
        self._metrics = metrics
        self._clock = clock

    async def execute(self, decision: Decision, call: Call, deadline: float, *, callers_own: bool = False) -> Result:
        """The first good answer. `deadline` is on the executor's clock; up to the first byte of a stream. One that is
        the caller's own says nothing of a backend that misses it.

        Raises ApiError when no attempt answers, RequestRejected when a backend says the request itself is wrong.
        """
        errors: list[BackendError] = []
        out_of_time = False
        for number, candidate in enumerate(decision.attempts, 1):
            remaining = deadline - self._clock()
            if remaining <= 0:
                out_of_time = True
                break
            try:
                return await self._attempt(candidate, call, number, remaining, callers_own)
            except _DeadlinePassed as error:
                errors.append(error)
                out_of_time = True
                break
            except BackendError as error:
                errors.append(error)
        raise _failed(errors, out_of_time)

    async def _attempt(
        self, candidate: Candidate, call: Call, number: int, remaining: float, callers_own: bool
    ) -> Result:
        target = candidate.target
        backend = self._backends[target.backend]
        lease = self._enter(target.backend_index)
        started = self._clock()
        outcome = "cancelled"
        try:
            async with asyncio.timeout(remaining):
                await lease.backend.places.acquire()
                lease.has_slot = True
                answer = await backend.send(call)
            outcome = "ok"
            self._state.observe(target.backend_index, Event.SUCCESS, self._clock())
            return Result(answer, candidate, number, started, lease)
        except TimeoutError:
            outcome = TimedOut.outcome
            if not callers_own:
                self._state.observe(target.backend_index, Event.FAILURE, self._clock())
            raise _DeadlinePassed(f"{target.backend}: no answer before the deadline") from None
        except RequestRejected:
            outcome = RequestRejected.outcome
            raise
        except BackendError as error:
            outcome = error.outcome
            log.warning("attempt %d of request %s failed: %s", number, call.request_id, error)
            if not isinstance(error, Overloaded | Unsuited):  # neither busy nor out of its depth is broken
                self._state.observe(target.backend_index, Event.FAILURE, self._clock())
            raise
        except Exception:
            outcome = "internal"
            raise
        finally:
            self._metrics.attempts.labels(target.backend, target.tier, outcome).inc()
            if outcome != "ok":
                lease.release()

    def stream_broke(self, result: Result) -> None:
        """A stream that had begun well failed on the way."""
        self._state.observe(result.candidate.target.backend_index, Event.FAILURE, self._clock())

    def _enter(self, backend_index: int) -> Lease:
        backend = self._state.backends[backend_index]
        backend.in_flight += 1
        self._metrics.in_flight.labels(backend.name).inc()
        return Lease(self, backend)

    def give_back(self, lease: Lease) -> None:
        backend = lease.backend
        backend.in_flight -= 1
        self._metrics.in_flight.labels(backend.name).dec()
        if lease.has_slot:
            backend.places.release()


def _failed(errors: list[BackendError], out_of_time: bool) -> ApiError:
    """What the client is told when every attempt failed."""
    reasons = "; ".join(str(error) for error in errors) or "no attempt could be made in time"
    if out_of_time:
        return ApiError(RefusalCode.DEADLINE_EXCEEDED, f"no answer before the deadline — {reasons}")
    if all(isinstance(error, Overloaded) for error in errors):
        wait = min((e.retry_after_s for e in errors if e.retry_after_s is not None), default=1.0)
        return ApiError(
            RefusalCode.OVERLOADED,
            f"every allowed backend is overloaded — {reasons}",
            "try again later",
            headers=(("retry-after", str(max(1, round(wait)))),),
        )
    return ApiError("upstream_error", f"every allowed backend failed — {reasons}")
