"""The places at a backend, and the queue for them: interactive requests before batches, tenants in turn, nobody for
longer than is of use."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

PRIORITIES = ("interactive", "batch")
_BATCH_TURN = 8


class TooLate(Exception):
    """What is left of the deadline is less than an answer takes."""


@dataclass(slots=True, eq=False)
class Waiter:
    turn: asyncio.Future[None]
    latest: float  # when it must have its place, to be answered in time; on the clock of Places


@dataclass(slots=True)
class FairQueue:
    """First by priority (one turn in eight is the batch's, so that it is not kept out for ever), then one of each
    tenant in turn, then by arrival."""

    tenants: tuple[OrderedDict[str, deque[Waiter]], ...] = field(
        default_factory=lambda: tuple(OrderedDict() for _ in PRIORITIES)
    )
    _turns: int = 0

    def put(self, priority: str, tenant: str, waiter: Waiter) -> None:
        self.tenants[PRIORITIES.index(priority)].setdefault(tenant, deque()).append(waiter)

    def take(self) -> Waiter | None:
        self._turns += 1
        order = reversed(self.tenants) if self._turns % _BATCH_TURN == 0 else self.tenants
        for waiting in order:
            while waiting:
                tenant, line = waiting.popitem(last=False)
                waiter = line.popleft()
                if line:
                    waiting[tenant] = line  # behind the others
                if not waiter.turn.done():  # it may be leaving at this moment
                    return waiter
        return None

    def drop(self, priority: str, tenant: str, waiter: Waiter) -> None:
        """One that waits no more."""
        waiting = self.tenants[PRIORITIES.index(priority)]
        line = waiting.get(tenant)
        if line is not None and waiter in line:
            line.remove(waiter)
            if not line:
                del waiting[tenant]


class Places:
    """Belongs to one event loop."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self.taken = 0
        self.waiting = 0
        self._queue = FairQueue()
        self._clock = clock

    @property
    def free(self) -> bool:
        return self.taken < self.capacity

    def take(self) -> bool:
        """A place, where one is free."""
        if not self.free:
            return False
        self.taken += 1
        return True

    async def acquire(self, priority: str, tenant: str, latest: float) -> None:
        """A place, at once or when it is this request's turn. Raises TooLate where that is after `latest`."""
        if self.take():
            return
        waiter = Waiter(asyncio.get_running_loop().create_future(), latest)
        self._queue.put(priority, tenant, waiter)
        self.waiting += 1
        try:
            await waiter.turn
        except asyncio.CancelledError:
            self._queue.drop(priority, tenant, waiter)
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self.release()  # its turn had come
            raise
        finally:
            self.waiting -= 1

    def resize(self, capacity: int) -> None:
        """More places are filled at once; fewer as they are given back."""
        self.capacity = capacity
        self._fill()

    def release(self) -> None:
        """Give a place back: to the next in line who can still be answered in time."""
        self.taken -= 1
        self._fill()

    def _fill(self) -> None:
        while self.free and (waiter := self._queue.take()) is not None:
            if self._clock() > waiter.latest:
                waiter.turn.set_exception(TooLate())
                continue
            self.taken += 1
            waiter.turn.set_result(None)
