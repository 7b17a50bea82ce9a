"""Walks a decision's attempts until one answers, inside the deadline. Until then any backend may be replaced.

A fallback goes to the next ranked backend, a retry to one that has failed already, a hedge to the next one while the
first still thinks. Retries and hedges are shares of the load (`router.allowance`), and only calls that may be made
twice are made twice.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.calls import Backend, Usage
from backends.errors import BackendError, BadAnswer, Failed, Overloaded, TimedOut, Unreachable
from policies.schema import Hedge
from policies.types import Candidate, Decision, RefusalCode
from router.allowance import Allowance
from router.attempts import Ask, Attempts, Clock, DeadlinePassed, Result, Waste, expected_s
from router.cascade import Cascading
from router.errors import ApiError
from router.state import FleetState
from router.telemetry.metrics import Metrics

RETRY_ROUNDS = 2
"""Most times that backends which have failed are asked again."""
_BACKOFF_S = 0.03
_SOON_S = 1.0
"""Who asks us to come back that soon is waited for; later than that the caller is told when."""
_HOPELESS = 5.0
"""Times the 99th percentile after which another backend is asked instead."""
_ROOM_S = 0.1
"""Kept for the next backend at least, as far as a third of the time allows: an answer in a few milliseconds may still
have to wait for its turn on a busy machine, and a fallback that comes too late helps nobody."""


@dataclass(slots=True)
class _Failures:
    """What went wrong so far."""

    errors: list[BackendError] = field(default_factory=list)
    out_of_time: bool = False


class Executor:
    def __init__(
        self,
        backends: Mapping[str, Backend],
        state: FleetState,
        metrics: Metrics,
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._attempts = Attempts(backends, state, metrics, clock)
        self._metrics, self._clock = metrics, clock
        self._rng = rng or random.Random()
        self._retries: dict[float, Allowance] = {}  # by share
        self._hedges: dict[str, Allowance] = {}  # by rule

    async def execute(self, decision: Decision, ask: Ask) -> Result:
        """The first good answer, or with a cascade the first that is good enough; the request's time holds for all.

        Raises ApiError when no attempt answers, RequestRejected when a backend says the request itself is wrong."""
        strategy = decision.strategy
        retries = self._retries.setdefault(decision.retry_share, Allowance(decision.retry_share))
        retries.earn()
        if strategy is not None and strategy.cascade is not None and len(decision.attempts) > 1:
            return await Cascading(self._attempts, strategy.cascade, self._clock).run(
                decision.attempts, ask, lambda some, ask: self._rounds(some, ask, retries)
            )
        hedge = strategy.hedge if strategy is not None else None
        if hedge is None or len(decision.attempts) < 2 or not ask.call.repeatable:
            return await self._rounds(decision.attempts, ask, retries)
        allowance = self._hedges.setdefault(decision.rule, Allowance(hedge.max_extra_load))
        allowance.earn()
        return await self._rounds(decision.attempts, ask, retries, hedge, allowance)

    async def _rounds(
        self,
        candidates: Sequence[Candidate],
        ask: Ask,
        retries: Allowance,
        hedge: Hedge | None = None,
        allowance: Allowance | None = None,
    ) -> Result:
        failures = _Failures()
        left = list(candidates)
        for number in range(RETRY_ROUNDS + 1):
            before = len(failures.errors)
            kind = "retry" if number else "first"
            if hedge is not None and allowance is not None and not number:
                result = await self._hedged(left, ask, failures, hedge, allowance)
            else:
                result = await self._in_turn(left, ask, failures, retries, kind)
            if result is not None:
                return result
            pause = self._pause(failures.errors[before:], ask, number)
            left = [candidate for candidate in left if self._attempts.usable(candidate)][:1]
            if failures.out_of_time or pause is None or not left or number == RETRY_ROUNDS or not retries.take():
                break
            await asyncio.sleep(pause)
        raise _failed(failures)

    async def _in_turn(
        self, candidates: Sequence[Candidate], ask: Ask, failures: _Failures, retries: Allowance, kind: str
    ) -> Result | None:
        for i, candidate in enumerate(candidates):
            if ask.deadline <= self._clock():
                failures.out_of_time = True
                return None
            following = candidates[i + 1] if i + 1 < len(candidates) else None
            patience = self._patience(candidate, following, ask, retries)
            try:
                return await self._attempts.make(candidate, ask, kind if not i else "fallback", patience)
            except BackendError as error:
                if not _note(error, failures) or not _may_follow(error, ask):
                    return None
                if isinstance(error, TimedOut):  # it may be at work on it still: the next one is more load
                    retries.take()
        return None

    async def _hedged(
        self, candidates: Sequence[Candidate], ask: Ask, failures: _Failures, hedge: Hedge, allowance: Allowance
    ) -> Result | None:
        """Like `_in_turn`, and once a second attempt beside the one that is late."""
        rest = iter(candidates)
        running: set[asyncio.Task[Result]] = set()
        wait_s: float | None = self._hedge_after(candidates, hedge, ask)
        try:
            self._launch(running, rest, ask, "first")
            while running:
                done, _ = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    wait_s = None
                    if allowance.take():
                        self._launch(running, rest, ask, "hedge")
                    continue
                running -= done
                good = [task for task in done if task.exception() is None]
                if good:
                    winner = good[0].result()
                    others, running = {*good[1:], *running}, set()
                    try:
                        await _settle(others, ask)
                    except BaseException:
                        ask.wasted.append(_unused(winner, ask))
                        await _finish(winner.discard())
                        raise
                    if any(step.kind == "hedge" for step in ask.steps):
                        self._metrics.hedges.labels("won" if winner.step.kind == "hedge" else "lost").inc()
                    return winner
                for task in done:
                    error = task.exception()
                    if not isinstance(error, BackendError):
                        raise error or AssertionError("a task that is done has a result or an exception")
                    if not _note(error, failures):
                        return None
                    if not running and _may_follow(error, ask):
                        self._launch(running, rest, ask, "fallback")
            return None
        finally:
            await _settle(running, ask)

    def _launch(self, running: set[asyncio.Task[Result]], rest: Iterator[Candidate], ask: Ask, kind: str) -> None:
        candidate = next(rest, None)
        if candidate is not None:
            running.add(asyncio.create_task(self._attempts.make(candidate, ask, kind)))

    def _hedge_after(self, candidates: Sequence[Candidate], hedge: Hedge, ask: Ask) -> float:
        """When the first is late: by its own measure, or by that of the next, which would have answered by then. (One
        that is always slow is never late by its own.)"""
        share, stream = hedge.after_quantile, ask.call.stream
        measured = [self._attempts.quantile_s(candidate, share, stream) for candidate in candidates[:2]]
        known = [one for one in measured if one is not None]
        return min(known) if known else 2 * expected_s(candidates[0], ask)

    def _patience(
        self, candidate: Candidate, following: Candidate | None, ask: Ask, retries: Allowance
    ) -> float | None:
        """How long to wait for one backend where another could still answer in time: not so long that it could not, and
        not longer than is usual, as far as that can be afforded."""
        if following is None or not ask.call.repeatable:
            return None
        remaining = ask.deadline - self._clock()
        usual = self._attempts.quantile_s(candidate, 0.99, ask.call.stream)
        enough = usual if usual is not None else 2 * expected_s(candidate, ask)  # a healthy one has answered by then
        room = min(max(2 * expected_s(following, ask), _ROOM_S), remaining / 3)
        patience = max(remaining - room, enough)
        if usual is not None and retries.available:
            patience = min(patience, max(_HOPELESS * usual, 0.1))
        return patience if patience < remaining else None

    def _pause(self, errors: Sequence[BackendError], ask: Ask, number: int) -> float | None:
        """Seconds until it is worth asking somebody again who failed; None where it is not."""
        waits: list[float] = []
        for error in errors:
            if isinstance(error, Overloaded):
                if error.retry_after_s is not None and error.retry_after_s <= _SOON_S:
                    waits.append(error.retry_after_s)
            elif isinstance(error, Unreachable) or (isinstance(error, Failed | BadAnswer) and ask.call.repeatable):
                waits.append(0.0)
        pause = (min(waits, default=0.0) + _BACKOFF_S * 2**number) * self._rng.uniform(0.5, 1.5)
        return pause if waits and self._clock() + pause < ask.deadline else None


def _note(error: BackendError, failures: _Failures) -> bool:
    """Whether there is time to go on."""
    failures.errors.append(error)
    failures.out_of_time = failures.out_of_time or isinstance(error, DeadlinePassed)
    return not failures.out_of_time


def _may_follow(error: BackendError, ask: Ask) -> bool:
    """Whether another may be asked: always where nobody has begun to answer, else where twice does no harm."""
    return ask.call.repeatable or isinstance(error, Unreachable | Overloaded)


_finishing: set[asyncio.Task[None]] = set()


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Work that is done to its end also where the request is cancelled meanwhile: it frees what is held. That is waited
    for: what it finds has to be paid for with the request."""
    task = asyncio.create_task(work)
    _finishing.add(task)
    task.add_done_callback(_finishing.discard)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def _settle(tasks: Collection[asyncio.Task[Result]], ask: Ask) -> None:
    """End attempts whose answer is not wanted any more, and free what they hold."""
    if tasks:
        await _finish(_end(tasks, ask))


async def _end(tasks: Collection[asyncio.Task[Result]], ask: Ask) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Result):  # it had answered: that is paid for
            ask.wasted.append(_unused(result, ask))
            await result.discard()


def _unused(result: Result, ask: Ask) -> Waste:
    """Of a stream there is one event, and the rest is never made."""
    seen = ask.expected if result.answer.chunks is None else Usage(ask.expected.tokens_in, 1)
    return Waste(result.candidate, result.answer.usage, seen, result.served_s)


def _failed(failures: _Failures) -> ApiError:
    """What the client is told when every attempt failed."""
    errors = failures.errors
    reasons = "; ".join(dict.fromkeys(str(error) for error in errors)) or "no attempt could be made in time"
    if failures.out_of_time:
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
