"""The small model first, the next better one where its answer is not good enough; inside the request's time.

An answer whose confidence cannot be read counts as one of none. A better backend that then fails, or would answer too
late, costs nothing but time: the first answer stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

from msgspec import structs

from backends.calls import Chunks, Usage
from backends.errors import BackendError, RequestRejected
from policies.schema import Cascade
from policies.types import Candidate
from router import confidence
from router.attempts import Ask, Attempts, Clock, Result, Waste, expected_s
from router.wire import openai

MAX_HELD = 4 * 1024 * 1024
"""Most bytes of a stream that are held back to be judged."""
_ROOM = 1.5
"""Times the expected time of the better backend that must be left for it."""

Rounds = Callable[[Sequence[Candidate], Ask], Awaitable[Result]]
"""The first good answer of some candidates. Raises ApiError, RequestRejected."""


class Held:
    """A stream that has been read ahead. What was read comes first, then the rest of it, or what broke it; `strip`: all
    of it without the tokens' probabilities, which the client did not ask for."""

    def __init__(self, rest: Chunks, strip: bool) -> None:
        self._rest, self._strip = rest, strip
        self.read: list[bytes] = []
        self._pending: asyncio.Task[bytes | None] | None = None
        self._ended = False
        self.error: BackendError | None = None

    def __aiter__(self) -> Held:
        return self

    async def __anext__(self) -> bytes:
        if self.read:
            chunk: bytes | None = self.read.pop(0)
        elif self.error is not None:
            raise self.error
        elif self._ended:
            raise StopAsyncIteration
        else:
            pending, self._pending = self._pending, None
            chunk = await (pending or self._next())
            if chunk is None:
                self._ended = True
                raise StopAsyncIteration
        return confidence.events_without(chunk or b"") if self._strip else chunk or b""

    async def read_ahead(self, within_s: float) -> bool:
        """Whether all of it is there; False where that takes too long, is too much, or it breaks."""
        loop = asyncio.get_running_loop()
        end, size = loop.time() + within_s, 0
        while size <= MAX_HELD:
            # A task of its own: what a timeout cut off could not be read on.
            self._pending = self._pending or asyncio.create_task(self._next())
            done, _ = await asyncio.wait({self._pending}, timeout=max(end - loop.time(), 0))
            if not done:
                return False
            finished, self._pending = self._pending, None
            try:
                chunk = finished.result()
            except BackendError as error:
                self.error = error
                return False
            if chunk is None:
                self._ended = True
                return True
            self.read.append(chunk)
            size += len(chunk)
        return False

    async def _next(self) -> bytes | None:
        try:
            return await anext(self._rest)
        except StopAsyncIteration:
            return None

    async def aclose(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            with contextlib.suppress(asyncio.CancelledError, BackendError):
                await self._pending
        await self._rest.aclose()


class Cascading:
    def __init__(self, attempts: Attempts, cascade: Cascade, clock: Clock) -> None:
        self._attempts, self._cascade, self._clock = attempts, cascade, clock

    async def run(self, candidates: Sequence[Candidate], ask: Ask, rounds: Rounds) -> Result:
        best = await self._first(candidates, ask, rounds)
        try:
            while (better := _better(candidates, best.candidate, ask)) and await self._escalates(best, better[0], ask):
                following = await self._next(better, ask)
                if following is None:
                    break
                ask.wasted.append(_unused(best, ask))
                self._attempts.answered(best)
                unused, best = best, following  # first: what is cancelled now must free and pay for the new one
                await unused.discard()
        except BaseException:
            ask.wasted.append(_unused(best, ask))
            await best.discard()
            raise
        if best.answer.chunks is None and best.asked_more:
            best.answer = confidence.without(best.answer)
        return best

    async def _first(self, candidates: Sequence[Candidate], ask: Ask, rounds: Rounds) -> Result:
        """An answer that can be judged, as far as its backend is able to give one."""
        asking = confidence.asking(ask.call)
        if asking is not ask.call:
            try:
                return _held(await rounds(candidates, dataclasses.replace(ask, call=asking)), True)
            except RequestRejected:  # it may know nothing of what was put in
                pass
        return _held(await rounds(candidates, ask), False)

    async def _next(self, better: Sequence[Candidate], ask: Ask) -> Result | None:
        """The answer of a better one; it is asked how sure it is where there is one that is better still."""
        last = all(one.target.quality <= better[0].target.quality for one in better)
        call = ask.call if last else confidence.asking(ask.call)
        try:
            result = await self._attempts.make(better[0], dataclasses.replace(ask, call=call), "escalation")
        except (BackendError, RequestRejected):  # told in the steps: the answer that is there stands
            return None
        return _held(result, call is not ask.call)

    async def _escalates(self, best: Result, better: Candidate, ask: Ask) -> bool:
        room = ask.deadline - self._clock() - _ROOM * expected_s(better, ask)
        if room <= 0:
            return False
        try:
            if isinstance(best.answer.chunks, Held):
                whole = await best.answer.chunks.read_ahead(room)
                best.ended = self._clock() if whole else None
                told = confidence.of_events(b"".join(best.answer.chunks.read), self._cascade) if whole else None
            else:
                best.lease.release()  # it is all there: its place is free
                told = confidence.of_answer(best.answer, ask.call, self._cascade)
        except (ValueError, TypeError, ArithmeticError, RecursionError):  # whatever a backend makes of its answer
            told = None
        best.step.confidence = told
        return (told or 0.0) < float(self._cascade.escalate_below_confidence)


def _held(result: Result, asked_more: bool) -> Result:
    result.asked_more = asked_more
    if result.answer.chunks is not None:
        result.answer = structs.replace(result.answer, chunks=Held(result.answer.chunks, asked_more))
    return result


def _unused(result: Result, ask: Ask) -> Waste:
    """What an answer that is not used has cost: as its backend counted, or as much of it as came."""
    chunks, candidate, seconds = result.answer.chunks, result.candidate, result.served_s
    if not isinstance(chunks, Held):
        return Waste(candidate, result.answer.usage, ask.expected, seconds)
    events = b"".join(chunks.read)
    seen = Usage(ask.expected.tokens_in, openai.pieces_in(events))
    return Waste(candidate, openai.usage_in(events), seen, seconds)


def _better(candidates: Sequence[Candidate], than: Candidate, ask: Ask) -> list[Candidate]:
    """Those of higher quality that have not been asked yet, in their order."""
    asked = {step.backend for step in ask.steps}
    return [c for c in candidates if c.target.quality > than.target.quality and c.target.backend not in asked]
