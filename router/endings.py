"""What is told of requests that are over: some at a time, a moment later. One by one between other requests it would
cost half as much again, because each time what it needs has left the processor's caches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger("pointsman")

_MOMENT_S = 0.005
"""Longer makes it no cheaper, and what is told would keep more requests in memory."""


class Endings:
    """Belongs to one event loop."""

    def __init__(self, then: Callable[[], None]) -> None:
        """`then` is called when some have been told."""
        self._then = then
        self._untold: list[Callable[[], None]] = []

    @property
    def waiting(self) -> bool:
        return bool(self._untold)

    def put(self, tell: Callable[[], None]) -> None:
        if not self._untold:
            asyncio.get_running_loop().call_later(_MOMENT_S, self.settle)
        self._untold.append(tell)

    def settle(self) -> None:
        """Tell all of it now."""
        untold, self._untold = self._untold, []
        for tell in untold:
            try:
                tell()
            except Exception:  # a defect in one must not keep back the others
                log.exception("a request's end could not be told")
        self._then()
