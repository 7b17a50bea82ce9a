"""Copies of requests to a backend that is on trial: sent beside the request, never before it, and the answer discarded.

A copy passes the same filters as the request (`decide`), and the same guard. It has places of its own: when they are
taken, copies are dropped and counted, and requests are never held up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from backends.calls import Call, Usage
from backends.errors import BackendError, RequestRejected
from router.attempts import Result
from router.billing import Bill, Counted
from router.decisionlog.record import Decided
from router.errors import ApiError
from router.live import Live
from router.telemetry.metrics import Metrics
from router.telemetry.trail import CURRENT
from router.wire.openai import pieces_in, usage_in

log = logging.getLogger("pointsman")

MAX_COPIES = 32
"""Copies on their way at once, of all rules together."""

Execute = Callable[[Live, Decided, Call, Bill], Awaitable[Result]]
Concluded = Callable[[Decided, Bill], None]
"""Takes what a copy has cost."""


class Shadows:
    """Belongs to one event loop."""

    def __init__(self, metrics: Metrics, execute: Execute, concluded: Concluded) -> None:
        self._metrics, self._execute, self._concluded = metrics, execute, concluded
        self._tasks: set[asyncio.Task[None]] = set()

    def copy(self, live: Live, decided: Decided, call: Call) -> None:
        """Send a copy where the decision says so. Returns at once."""
        decision = decided.decision
        if decision.shadow is None or not call.repeatable:
            return
        name = decision.shadow.target.backend
        if len(self._tasks) >= MAX_COPIES:
            self._metrics.shadow_copies.labels(name, "dropped").inc()
            return
        only = replace(decision, attempts=(decision.shadow,), strategy=None, priority="batch", retry_share=0.0)
        id = f"{decided.id}/copy"
        live.ledger.reserve(id, only, decided.request, time.time())
        task = asyncio.create_task(self._send(live, replace(decided, id=id, decision=only), call, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, live: Live, decided: Decided, call: Call, name: str) -> None:
        outcome, bill = "failed", Bill()
        if (trail := CURRENT.get()) is not None:
            CURRENT.set(trail.of_copy())
        live.enter()
        try:
            result = await self._execute(live, decided, call, bill)
            try:
                await self._read(live, decided, result, bill)
            finally:
                result.lease.release()
            outcome = "ok"
        except (ApiError, BackendError, RequestRejected):
            pass  # counted; a backend on trial may fail
        except Exception as error:
            log.error("a copy to %s failed: %s", name, type(error).__name__)
        finally:
            live.leave()
            live.ledger.release(decided.id)
            if bill.charges:  # a copy costs what a request costs
                self._concluded(decided, bill)
            self._metrics.shadow_copies.labels(name, outcome).inc()

    async def _read(self, live: Live, decided: Decided, result: Result, bill: Bill) -> None:
        """To its end, and charge it; one that breaks, or is given up because the router stops, as far as it came."""
        chunks, told, events = result.answer.chunks, result.answer.usage, 0
        if chunks is None:
            bill.finished(live, decided, result, Counted(told), "copy")
            return
        try:
            async for chunk in chunks:
                events += pieces_in(chunk)
                told = usage_in(chunk) or told
        except BaseException:
            counted = Counted(told, Usage(decided.request.tokens_in, events))
            bill.broke_off(live, decided, result, counted, "copy")
            raise
        finally:
            await chunks.aclose()
        counted = Counted(told, Usage(decided.request.tokens_in, events))
        bill.finished(live, decided, result, counted, "copy")

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
