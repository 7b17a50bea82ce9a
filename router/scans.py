"""Looking through the text of a request: at once where that is short, beside the event loop where others would wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor

from policies.compile import CompiledPolicy
from policies.types import RefusalCode
from router.errors import ApiError
from router.hints import Hints
from router.requests import Built, build_request
from router.wire.parsed import Parsed

LONG_BODY_BYTES = 128 * 1024
_AT_ONCE = 4
"""Texts that are looked through beside the event loop at the same time."""


class Scans:
    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="scan")

    async def build(
        self, parsed: Parsed, hints: Hints, policy: CompiledPolicy, body_bytes: int, decision_id: str, now: float,
        tenant: str, deadline: float,
    ) -> Built:  # fmt: skip
        """As `build_request`, in a thread. Raises ApiError 504 where that is not done by the deadline (monotonic)."""
        facts = parsed, hints, policy, body_bytes, decision_id, now, tenant
        return await _in_time(asyncio.get_running_loop().run_in_executor(self.pool, build_request, *facts), deadline)

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


async def _in_time(work: Awaitable[Built], deadline: float) -> Built:
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
            return await work
    except TimeoutError:
        raise ApiError(
            RefusalCode.DEADLINE_EXCEEDED,
            "the text could not be looked through before the deadline",
            "give it more time, or send less at once",
        ) from None


def beside_the_loop(body_bytes: int, policy: CompiledPolicy) -> bool:
    """Whether a text is scanned in a thread, so that others need not wait for it: one that is long, or that is shown to
    something that has to be waited for."""
    return body_bytes > LONG_BODY_BYTES or policy.detectors.slow
