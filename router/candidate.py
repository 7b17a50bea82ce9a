"""What a candidate policy would have done with a request that the live one has answered. Nothing is sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.pickers import drawn
from policies.types import Decision
from router.decisionlog.record import Decided, compact
from router.errors import ApiError
from router.hints import parse_hints
from router.identity import RawHeaders
from router.recent import Remembered
from router.requests import build_request
from router.settings import Settings
from router.telemetry.metrics import Metrics
from router.wire.parsed import Parsed

log = logging.getLogger("pointsman")

MAX_WAITING = 32
"""Long texts that wait for what a candidate policy makes of them; of more nothing is compared."""
Told = dict[str, Any] | None
"""What the decision log says of the candidate, if anything."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A request that is over and told, but for its record, which waited for what the candidate would have done."""

    decided: Decided
    record: Callable[[], None]

    def tell(self) -> None:
        self.record()


class Comparisons:
    """Those that are made beside the event loop. Belongs to one."""

    def __init__(self, settings: Settings, metrics: Metrics, pool: Executor) -> None:
        self._settings, self._metrics, self._pool = settings, metrics, pool
        self._waiting: dict[asyncio.Future[Told], Remembered] = {}

    @property
    def waiting(self) -> Iterable[Remembered]:
        """Those whose requests are over, and whose comparison is not made yet."""
        return self._waiting.values()

    def compare(
        self,
        candidate: CompiledPolicy,
        seen: Remembered,
        parsed: Parsed,
        headers: RawHeaders,
        beside: bool,
        then: Callable[[Told], None],
    ) -> None:
        """Now, or (`beside`) in a thread; `then` takes what comes of it."""
        facts = (candidate, seen.decided, parsed, headers, self._settings, self._metrics)
        if not beside:
            then(compare(*facts))
        elif len(self._waiting) >= MAX_WAITING:
            self._metrics.candidate_decisions.labels("", "dropped").inc()
            then(None)
        else:

            def made(work: asyncio.Future[Told]) -> None:
                del self._waiting[work]
                then(None if work.cancelled() else work.result())  # its record is written anyway

            work = asyncio.get_running_loop().run_in_executor(self._pool, compare, *facts)
            self._waiting[work] = seen
            work.add_done_callback(made)

    async def aclose(self) -> None:
        """Those that are not made yet are not waited for."""
        for work in self._waiting:
            work.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)


def compare(
    candidate: CompiledPolicy,
    decided: Decided,
    parsed: Parsed,
    headers: RawHeaders,
    settings: Settings,
    metrics: Metrics,
) -> Told:
    """Decide the same request, in the same situation, under the candidate. What differs is counted, and a sample of it
    comes back for the log. Headers are read anew: the candidate may have other levels, and ask for others."""
    try:
        was = decided.request
        now = decided.snapshot.now
        hints = parse_hints(headers, candidate)
        request, _, _ = build_request(parsed, hints, candidate, was.body_bytes, decided.id, now, was.tenant)
        decision = decide(request, replace(decided.snapshot, spent={}), candidate, settings.seed)
    except ApiError:  # it knows no such level, or does not let this tenant do that
        metrics.candidate_decisions.labels(_backend(decided.decision), "refused").inc()
        return None
    except Exception as error:  # a candidate's fault must not be a request's
        log.error("the candidate policy failed on request %s: %s", decided.id, type(error).__name__)
        metrics.candidate_decisions.labels("", "failed").inc()
        return None
    mine, theirs = _backend(decided.decision), _backend(decision)
    metrics.candidate_decisions.labels(mine, theirs).inc()
    if mine == theirs or not drawn(settings.candidate_sample, settings.seed, decided.id, "candidate"):
        return None
    return {"policy": candidate.digest, "decision": compact(decision, candidate)}


def _backend(decision: Decision) -> str:
    return decision.chosen.target.backend if decision.chosen else "refused"
