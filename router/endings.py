"""What is told of requests that are over: some at a time, a moment later. One by one between other requests it would
cost half as much again, because each time what it needs has left the processor's caches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from router.decisionlog.record import Decided

log = logging.getLogger("pointsman")

_MOMENT_S = 0.005
"""Longer makes it no cheaper, and what is told would keep more requests in memory."""


class Going(Protocol):
    """A request in progress, which can be told to end."""

    @property
    def decided(self) -> Decided | None: ...

    def end(self) -> None: ...


class Over(Protocol):
    """A request that is over."""

    @property
    def decided(self) -> Decided | None: ...

    def tell(self) -> None: ...


class Endings:
    """Belongs to one event loop."""

    def __init__(self, then: Callable[[], None]) -> None:
        """`then` is called when some have been told."""
        self._then = then
        self.untold: list[Over] = []

    @property
    def waiting(self) -> bool:
        return bool(self.untold)

    def put(self, over: Over) -> None:
        if not self.untold:
            asyncio.get_running_loop().call_later(_MOMENT_S, self.settle)
        self.untold.append(over)

    def settle(self) -> None:
        """Tell all of it now."""
        untold, self.untold = self.untold, []
        for over in untold:
            try:
                over.tell()
            except Exception:  # a defect in one must not keep back the others
                log.exception("a request's end could not be told")
        self._then()
