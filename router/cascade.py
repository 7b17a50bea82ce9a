"""The small model first, the next better one where its answer is not good enough; inside the request's time.

An answer whose confidence cannot be read counts as one of none. A better backend that then fails, or would answer too
late, costs nothing but time: the first answer stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from backends.calls import Chunks
from backends.errors import BackendError, RequestRejected
from policies.schema import Cascade
from policies.types import Candidate
from router import confidence
from router.attempts import Ask, Attempts, Clock, Result

MAX_HELD = 4 * 1024 * 1024
"""Most bytes of a stream that are held back to be judged."""
_ROOM = 1.5
"""Times the expected time of the better backend that must be left for it."""

Rounds = Callable[[Sequence[Candidate], Ask], Awaitable[Result]]
"""The first good answer of some candidates. Raises ApiError, RequestRejected."""


class Held:
    """A stream of which the beginning, or all, has been read already."""

    def __init__(self, read: list[bytes], rest: Chunks) -> None:
        self.read, self._rest = read, rest

    def __aiter__(self) -> Held:
        return self

    async def __anext__(self) -> bytes:
        return self.read.pop(0) if self.read else await anext(self._rest)

    async def aclose(self) -> None:
        await self._rest.aclose()


class Cascading:
    def __init__(self, attempts: Attempts, cascade: Cascade, clock: Clock) -> None:
        self._attempts, self._cascade, self._clock = attempts, cascade, clock

    async def run(self, candidates: Sequence[Candidate], ask: Ask, rounds: Rounds) -> Result:
        best, asked = await self._first(candidates, ask, rounds)
        while True:
            better = _better(candidates, best.candidate, ask)
            escalates = bool(better) and await self._escalates(best, better[0], ask)
            if asked:
                best.answer, asked = confidence.without(best.answer), False
                if isinstance(best.answer.chunks, Held):
                    best.answer.chunks.read[:] = [confidence.events_without(b"".join(best.answer.chunks.read))]
            if not escalates:
                return best
            try:
                result = await self._attempts.make(better[0], ask, "escalation")
            except (BackendError, RequestRejected):  # told in the steps: the answer that is there stands
                return best
            except BaseException:
                await best.discard()
                raise
            ask.wasted.append((best.candidate, best.answer.usage))
            self._attempts.answered(best)
            await best.discard()
            best = result

    async def _first(self, candidates: Sequence[Candidate], ask: Ask, rounds: Rounds) -> tuple[Result, bool]:
        """An answer that can be judged, as far as its backend is able to give one, and whether it holds more than the
        client asked for."""
        asking = confidence.asking(ask.call)
        if asking is not ask.call:
            try:
                return await rounds(candidates, replace(ask, call=asking)), True
            except RequestRejected:  # it may know nothing of what was put in
                pass
        return await rounds(candidates, ask), False

    async def _escalates(self, best: Result, better: Candidate, ask: Ask) -> bool:
        expected = better.estimate.ttft_ms if ask.call.stream else better.estimate.latency_ms
        room = ask.deadline - self._clock() - _ROOM * expected / 1000
        if room <= 0:
            return False
        if best.answer.chunks is not None:
            best.step.confidence = await self._of_stream(best, room)
        else:
            best.step.confidence = confidence.of_answer(best.answer, ask.call, self._cascade)
        return (best.step.confidence or 0.0) < float(self._cascade.escalate_below_confidence)

    async def _of_stream(self, best: Result, room_s: float) -> float | None:
        """Reads the stream to its end, and holds it; None where that takes too long, or it breaks."""
        chunks = best.answer.chunks
        assert chunks is not None
        held: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(room_s):
                async for chunk in chunks:
                    held.append(chunk)
                    size += len(chunk)
                    if size > MAX_HELD:
                        break
                else:
                    return confidence.of_events(b"".join(held), self._cascade)
        except (TimeoutError, BackendError):
            return None
        finally:
            best.answer = replace(best.answer, chunks=Held(held, chunks))
        return None


def _better(candidates: Sequence[Candidate], than: Candidate, ask: Ask) -> list[Candidate]:
    """Those of higher quality that have not been asked yet, in their order."""
    asked = {step.backend for step in ask.steps}
    return [c for c in candidates if c.target.quality > than.target.quality and c.target.backend not in asked]
