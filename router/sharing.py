"""What replicas tell each other of the fleet: how much each has under way, and whom it keeps out.

Each replica decides by itself, on what it knows itself; what the others know comes about twice a second through one
board, and is forgotten when it does not come any more. So limits hold for all replicas together, but for half a second,
and a replica learns of a dead backend without failing on it first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

log = logging.getLogger("pointsman")

PERIOD_S = 0.5
STALE_S = 3.0
"""How long what a replica said counts."""


@dataclass(frozen=True, slots=True)
class View:
    """What one replica knows, by backend; what is 0 is left out."""

    in_flight: Mapping[str, int] = field(default_factory=dict)
    ejected_for_s: Mapping[str, float] = field(default_factory=dict)


def together(views: Mapping[str, View]) -> View:
    """What all of them know: sums of what is under way; ejected is what at least half of them keep out, for as long as
    the shortest of those. (One that has lost its own network keeps all of them out: that goes as far as the fleet lets
    backends be kept out at all.)"""
    in_flight: dict[str, int] = {}
    ejected: dict[str, list[float]] = {}
    for view in views.values():
        for name, count in view.in_flight.items():
            in_flight[name] = in_flight.get(name, 0) + count
        for name, seconds in view.ejected_for_s.items():
            ejected.setdefault(name, []).append(seconds)
    return View(in_flight, {name: min(told) for name, told in ejected.items() if 2 * len(told) >= len(views)})


@dataclass(slots=True)
class Board:
    """The latest view of each replica. `now` is seconds on a clock of whoever holds it."""

    _views: dict[str, tuple[View, float]] = field(default_factory=dict)

    def exchange(self, replica: str, view: View | None, now: float) -> View:
        """Take a replica's view (None: it ends), and give what the others know."""
        self._views = {name: (told, at) for name, (told, at) in self._views.items() if now - at < STALE_S}
        if view is None:
            self._views.pop(replica, None)
        else:
            self._views[replica] = (view, now)
        return together({name: told for name, (told, _) in self._views.items() if name != replica})


class CentralBoard(Protocol):
    async def exchange(self, replica: str, view: View | None) -> View:
        """Raises OSError where the board does not answer."""
        ...


class Sharing:
    """One replica's side. Belongs to one event loop."""

    def __init__(
        self, board: CentralBoard, replica: str, told: Callable[[], View], heard: Callable[[View, float], None]
    ) -> None:
        """`told` gives this replica's view; `heard` takes the others', and until when it counts (monotonic clock)."""
        self._board, self._replica, self._told, self._heard = board, replica, told, heard
        self._task: asyncio.Task[None] | None = None
        self._lost = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._exchange(None)

    async def _run(self) -> None:
        while True:
            await self._exchange(self._told())
            await asyncio.sleep(PERIOD_S)

    async def _exchange(self, view: View | None) -> None:
        try:
            async with asyncio.timeout(PERIOD_S * 2):
                others = await self._board.exchange(self._replica, view)
        except (OSError, TimeoutError) as error:
            if not self._lost:  # once per outage; the router goes on with what it knows itself
                log.warning("what the other replicas know does not come: %s", type(error).__name__)
            self._lost = True
            return
        except Exception as error:  # a defect must not end the sharing, nor go unseen
            log.error("what the other replicas know cannot be used: %s", type(error).__name__)
            return
        self._lost = False
        self._heard(others, time.monotonic() + STALE_S)
