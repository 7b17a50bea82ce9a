"""A router replica: the service and its listeners, in the event loop of a Ray Serve replica."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import prometheus_client.values
import ray
from ray import serve

from backends.calls import Backend
from backends.registry import BUILDERS, Builder
from policies.schema import Backend as BackendSpec
from router import process
from router.engines.ray import ROUTER
from router.engines.ray.actors import (
    BOARD,
    LEDGER,
    ActorBoard,
    ActorLedger,
    BoardActor,
    LedgerActor,
    shared_actor,
)
from router.engines.ray.hosts import OWN_DEPLOYMENT, HostedBackend, models_of
from router.engines.ray.scaling import IN_PROGRESS
from router.loading import ConfigurationLoader
from router.server import Listeners, PortInUse, bind
from router.service import Service
from router.settings import Settings
from router.telemetry import logs
from router.telemetry.metrics import SHARED as METRICS_FOLDER
from router.watch import watching


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a replica builds its service from."""

    loader: ConfigurationLoader
    settings: Settings
    shared: bool = False
    """There may be others on its node: they share the data port, and add up their metrics."""
    metrics: str | None = None
    """The folder for that, made where it is missing; none: one of the node's own, in its folder for temporary files."""
    ledger: Any = None  # the actors, as handles
    board: Any = None


class RouterReplica:
    """One router process."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, plan: Callable[[], Blueprint], hosts: dict[str, Any]
    ) -> None:
        """`plan` is called here, in the replica: what it reads is its node's own."""
        context = serve.get_replica_context()
        blueprint = await asyncio.to_thread(plan)
        settings = blueprint.settings
        # Our log lines go where Ray Serve keeps its own: the replica's log file.
        logs.join(logging.getLogger("ray.serve"), settings.log_format, settings.log_level)
        if blueprint.shared:
            _share_metrics(blueprint.metrics or _folder_of_this_node(context.app_name))
        loader = blueprint.loader
        configuration = await asyncio.to_thread(loader)

        deployed = {
            spec.name: models_of(spec, configuration.folder)
            for spec in configuration.policy.fleet.backends
            if spec.protocol in OWN_DEPLOYMENT
        }

        def in_deployment(spec: BackendSpec, folder: Path, api_key: str | None) -> Backend:
            same = deployed.get(spec.name) == models_of(spec, folder)
            return HostedBackend(spec, hosts.get(spec.name) if same else None)

        builders: dict[str, Builder] = {**BUILDERS, **dict.fromkeys(OWN_DEPLOYMENT, in_deployment)}
        writer = context.replica_id.unique_id
        central = ActorLedger(blueprint.ledger) if blueprint.ledger is not None else None
        shared = ActorBoard(blueprint.board) if blueprint.board is not None else None
        self._node = ray.get_runtime_context().get_node_id()
        self._application = context.app_name
        self._service = Service(configuration, settings, builders, loader, writer, central, shared)
        self._service.orders.everywhere = self._everywhere
        self._service.orders.on_this_node = self._on_this_node
        await self._service.start()
        self._watching = watching(self._service, loader, settings.watch_interval_s)
        data = bind(settings.host, settings.port, shared=blueprint.shared)
        try:
            admin = bind(settings.admin_host, settings.admin_port)
        except PortInUse:
            if not blueprint.shared:
                raise
            admin = None  # another replica on this node holds it; the listeners take over when it goes
        self._listeners = Listeners(self._service, data, admin)
        await self._listeners.start()
        process.settle()

    async def ready(self) -> bool:
        return bool(self._service.readiness()["ready"])

    async def obey(self, order: str, *arguments: str) -> Any:
        return await self._service.orders.obey(order, *arguments)

    async def obey_on(self, node: str, order: str, *arguments: str) -> Any:
        """None where this replica is on another node."""
        return await self.obey(order, *arguments) if node == self._node else None

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Called by Ray Serve in every replica where `user_config` changes, without a restart: any change of it
        means that the files have changed."""
        if hasattr(self, "_listeners"):
            await self._service.reload()

    async def _everywhere(self, order: str, *arguments: str) -> list[Any]:
        replicas = serve.get_deployment_handle(ROUTER, self._application)
        return list(await replicas.broadcast("obey", order, *arguments).results_async())

    async def _on_this_node(self, order: str, *arguments: str) -> list[Any]:
        replicas = serve.get_deployment_handle(ROUTER, self._application)
        said = await replicas.broadcast("obey_on", self._node, order, *arguments).results_async()
        return [one for one in said if one is not None]

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray Serve where the number of replicas goes by load."""
        return {IN_PROGRESS: float(self._listeners.busy)}

    async def check_health(self) -> None:
        """Called by Ray Serve. The process answers, so it lives; backends' health is the service's own concern."""

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica is to go: drain, then close."""
        if hasattr(self, "_listeners"):
            self._watching.cancel()
            await self._listeners.stop()
            await self._service.aclose()


@dataclass(frozen=True, slots=True)
class Given:
    """A plan that was made by whoever deploys."""

    blueprint: Blueprint

    def __call__(self) -> Blueprint:
        return self.blueprint


def with_shared_actors(blueprint: Blueprint) -> Blueprint:
    """With those of the application that this replica belongs to."""
    application = serve.get_replica_context().app_name
    board = shared_actor(BoardActor, BOARD, application)
    ledger = shared_actor(LedgerActor, LEDGER, application, None) if blueprint.settings.ledger is None else None
    return replace(blueprint, board=board, ledger=ledger)


def _share_metrics(folder: str) -> None:
    """In this process: prometheus-client chose where it keeps values when it was imported, and nothing is kept yet."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    os.environ[METRICS_FOLDER] = folder
    prometheus_client.values.ValueClass = prometheus_client.values.get_value_class()  # type: ignore[no-untyped-call]


def _folder_of_this_node(application: str) -> str:
    """Another one whenever the node starts anew, so that nothing old is added up."""
    node = ray.get_runtime_context().get_node_id()
    return str(Path(tempfile.gettempdir()) / f"pointsman-metrics-{node}-{application}")
