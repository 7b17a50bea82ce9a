"""What replicas share: a ledger of budgets, and a board where they tell each other of the fleet."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from router.engines.ray import APPLICATION
from router.ledgers.central import LedgerLost
from router.ledgers.file import FileLedger
from router.ledgers.leases import Grant, Report
from router.sharing import Board, View

LEDGER = "pointsman-ledger"
BOARD = "pointsman-board"
_HEAD = "node:__internal_head__"
"""The resource that Ray gives to the head of every cluster."""
_LOOK_S = 2.5
_ABANDONED_S = 5.0
"""Replicas speak to both actors several times a second. Where none does for so long, the application may be gone."""

log = logging.getLogger("ray.serve")


class _Shared:
    """An actor that ends with an application, where no driver owns it: Ray Serve ends deployments only."""

    def __init__(self, application: str | None) -> None:
        self._called = time.monotonic()
        if application is not None:
            threading.Thread(target=self._watch, args=(application,), daemon=True).start()

    def _watch(self, application: str) -> None:
        while True:
            time.sleep(_LOOK_S)
            if time.monotonic() - self._called > _ABANDONED_S and not _deployed(application):
                self.end()
                # By Ray, and not by leaving: it would take that for a failure, and start the actor again.
                ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    def end(self) -> None:
        """What the actor leaves on the disk goes with it."""


def _deployed(application: str) -> bool:
    try:
        return application in serve.status().applications
    except Exception as error:  # Serve was shut down, or restarts: the next look tells
        log.warning("pointsman: Ray Serve does not say what is deployed: %s", type(error).__name__)
        return True


class BoardActor(_Shared):
    """What the replicas tell each other of the fleet. It keeps nothing that is older than seconds."""

    def __init__(self, application: str | None = None) -> None:
        self._board = Board()
        super().__init__(application)

    def exchange(self, replica: str, view: View | None) -> View:
        self._called = time.monotonic()
        return self._board.exchange(replica, view, self._called)


class ActorBoard:
    """It, as a replica sees it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def exchange(self, replica: str, view: View | None) -> View:
        try:
            others: View = await self._handle.exchange.remote(replica, view)
        except ray.exceptions.RayError as error:
            raise OSError(f"its actor does not answer ({type(error).__name__})") from None
        return others


class LedgerActor(_Shared):
    """The ledger of budgets that the replicas share. Ray starts it again where it ends; it goes on from its file."""

    def __init__(self, path: str | None, application: str | None = None) -> None:
        """Without a path the file is this node's own, and goes with the application."""
        node = ray.get_runtime_context().get_node_id()
        self._file = Path(path or Path(tempfile.gettempdir()) / f"pointsman-ledger-{node}-{application}")
        self._ledger = FileLedger(self._file)
        super().__init__(application)

    def sync(self, replica: str, seq: int, reports: list[Report]) -> list[Grant]:
        self._called = time.monotonic()
        return self._ledger.fold(replica, seq, reports)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._file.unlink()


class ActorLedger:
    """It, as a replica sees it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def sync(self, replica: str, seq: int, reports: Sequence[Report]) -> list[Grant]:
        try:
            grants: list[Grant] = await self._handle.sync.remote(replica, seq, list(reports))
        except ray.exceptions.RayError as error:
            raise LedgerLost(f"its actor does not answer ({type(error).__name__})") from None
        return grants

    async def aclose(self) -> None: ...


def start_actor(kind: type, name: str, *arguments: object) -> Any:
    """On this node, where its files are. It ends with this process, and is started again where it ends before."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options: dict[str, Any] = {"name": name, "namespace": APPLICATION, "num_cpus": 0, "max_restarts": -1}
    return ray.remote(kind).options(scheduling_strategy=here, **options).remote(*arguments)


def shared_actor(kind: type, name: str, application: str, *arguments: object) -> Any:
    """The one of this name in the application, whichever replica asked first. On the head, which outlives every
    replica; it ends with the application."""
    options: dict[str, Any] = {
        "name": f"{name}:{application}",
        "namespace": APPLICATION,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "resources": {_HEAD: 0.001},
        "max_restarts": -1,
    }
    return ray.remote(kind).options(**options).remote(*arguments, application)
