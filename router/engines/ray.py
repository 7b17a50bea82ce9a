"""Ray Serve: router replicas that own their listeners, and a deployment for each backend that is too big for them.

The only module that imports Ray. Ray's own HTTP proxy is off: it costs more than everything the router does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read by Ray when it is imported or started.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import DeploymentStatus, LoggingConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from backends.calls import Answer, Backend, Call
from backends.errors import BackendError, Failed, RequestRejected, Unreachable
from backends.registry import BUILDERS, Builder
from backends.tensors import ModelMetadata
from policies.schema import Backend as BackendSpec
from policies.schema import Batching
from router import process
from router.configuration import Configuration
from router.ledgers.central import REDIS, LedgerLost
from router.ledgers.file import FileLedger
from router.ledgers.leases import Grant, Report
from router.loading import ConfigurationLoader
from router.orders import RELOAD
from router.server import Listeners, PortInUse, bind
from router.service import Service
from router.settings import Settings
from router.sharing import Board, View
from router.stamps import Stamp, stamp
from router.telemetry import logs
from router.watch import tell, watching

APPLICATION = "pointsman"
ROUTER = "router"
OWN_DEPLOYMENT = ("torch",)
"""Protocols whose models get a deployment of their own rather than a place in the router's process."""
MAX_ONGOING = 1000
"""Ray's default of 5 would queue everything; the fleet's own limits are what holds."""
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that prometheus-client reads: where the replicas of a node add up their metrics."""
LEDGER = "pointsman-ledger"
BOARD = "pointsman-board"
OBJECT_STORE_BYTES = 128 * 1024 * 1024
_LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a replica needs to build its service by itself."""

    loader: ConfigurationLoader
    settings: Settings


class RouterReplica:
    """One router process: the service and its listeners, in the replica's event loop."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, blueprint: Blueprint, hosts: dict[str, Any], ledger: Any = None, board: Any = None
    ) -> None:
        settings = blueprint.settings
        # Our log lines go where Ray Serve keeps its own: the replica's log file.
        logs.join(logging.getLogger("ray.serve"), settings.log_format, settings.log_level)
        _make_metrics_folder()
        loader = blueprint.loader
        configuration = await asyncio.to_thread(loader)

        deployed = {
            spec.name: _models_of(spec, configuration.folder)
            for spec in configuration.policy.fleet.backends
            if spec.protocol in OWN_DEPLOYMENT
        }

        def in_deployment(spec: BackendSpec, folder: Path, api_key: str | None) -> Backend:
            same = deployed.get(spec.name) == _models_of(spec, folder)
            return HostedBackend(spec, hosts.get(spec.name) if same else None)

        builders: dict[str, Builder] = {**BUILDERS, **dict.fromkeys(OWN_DEPLOYMENT, in_deployment)}
        writer = serve.get_replica_context().replica_id.unique_id
        central = ActorLedger(ledger) if ledger is not None else None
        shared = ActorBoard(board) if board is not None else None
        self._service = Service(configuration, settings, builders, loader, writer, central, shared)
        self._service.orders.everywhere = self._everywhere
        await self._service.start()
        self._watching = watching(self._service, loader, settings.watch_interval_s)
        data = bind(settings.host, settings.port, shared=settings.replicas > 1)
        try:
            admin = bind(settings.admin_host, settings.admin_port)
        except PortInUse:
            if settings.replicas == 1:
                raise
            admin = None  # another replica on this node holds it; the listeners take over when it goes
        self._listeners = Listeners(self._service, data, admin)
        await self._listeners.start()
        process.settle()

    async def ready(self) -> bool:
        return bool(self._service.readiness()["ready"])

    async def obey(self, order: str, *arguments: str) -> Any:
        return await self._service.orders.obey(order, *arguments)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Called by Ray Serve in every replica where `user_config` changes, without a restart: any change of it
        means that the files have changed."""
        if hasattr(self, "_listeners"):
            await self._service.reload()

    async def _everywhere(self, order: str, *arguments: str) -> list[Any]:
        replicas = serve.get_deployment_handle(ROUTER, APPLICATION)
        return list(await replicas.broadcast("obey", order, *arguments).results_async())

    async def check_health(self) -> None:
        """Called by Ray Serve. The process answers, so it lives; backends' health is the service's own concern."""

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica is to go: drain, then close."""
        if hasattr(self, "_listeners"):
            self._watching.cancel()
            await self._listeners.stop()
            await self._service.aclose()


class BoardActor:
    """What the replicas tell each other of the fleet. It keeps nothing that is older than seconds."""

    def __init__(self) -> None:
        self._board = Board()

    def exchange(self, replica: str, view: View | None) -> View:
        return self._board.exchange(replica, view, time.monotonic())


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


class LedgerActor:
    """The ledger of budgets that the replicas share. Ray starts it again where it ends; it goes on from its file."""

    def __init__(self, path: str) -> None:
        self._ledger = FileLedger(Path(path))

    def sync(self, replica: str, seq: int, reports: list[Report]) -> list[Grant]:
        return self._ledger.fold(replica, seq, reports)


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


class BackendHost:
    """One in-process backend in a process of its own."""

    async def __init__(self, spec: BackendSpec, folder: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self._backend = BUILDERS[spec.protocol](spec, Path(folder), None)
        await self._backend.start()

    async def send(self, call: Call) -> Answer | BackendError | RequestRejected:
        """Expected failures come back as values: a raised one would arrive wrapped in Ray's own."""
        try:
            return await self._backend.send(call)
        except (BackendError, RequestRejected) as error:
            return error

    async def metadata(self, model: str) -> ModelMetadata | None:
        return await self._backend.metadata(model)

    async def probe(self) -> None:
        await self._backend.probe()


def _models_of(spec: BackendSpec, folder: Path) -> list[tuple[str, Stamp, Batching | None]]:
    """What a deployment has loaded, and how it runs that: another file is another model."""
    return [(name, stamp(folder / (model.artifact or "")), model.batching) for name, model in spec.models.items()]


class HostedBackend:
    """A BackendHost as the service sees it."""

    def __init__(self, spec: BackendSpec, handle: Any) -> None:
        self.spec = spec
        self._handle = handle

    async def start(self) -> None:
        if self._handle is None:
            raise Failed(f"{self.spec.name}: it is new or has other models, and needs a new deployment: serve again")

    async def send(self, call: Call) -> Answer:
        result = await self._remote("send", call)
        if isinstance(result, BackendError | RequestRejected):
            raise result
        assert isinstance(result, Answer)
        return result

    async def probe(self) -> None:
        await self._remote("probe")

    async def metadata(self, model: str) -> ModelMetadata | None:
        found: ModelMetadata | None = await self._remote("metadata", model)
        return found

    async def aclose(self) -> None: ...

    async def _remote(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except ray.exceptions.RayActorError:
            raise Unreachable(f"{self.spec.name}: its process is gone") from None
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise Failed(f"{self.spec.name}: its deployment failed ({type(error).__name__})") from error


def run(
    configuration: Configuration,
    loader: ConfigurationLoader,
    settings: Settings,
    on_ready: Callable[[], None],
    progress: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve until SIGINT or SIGTERM, then take down what was started. SIGHUP reloads the configuration in every
    replica. Joins the cluster of RAY_ADDRESS if set.

    Raises OSError when a port cannot be had, BackendError when a backend can't start.
    """
    stop = threading.Event()
    _on_signals(stop)
    # Here and not only in the replicas: a replica's failure would be told after its retries only.
    bind(settings.host, settings.port).close()
    bind(settings.admin_host, settings.admin_port).close()
    shared = tempfile.mkdtemp(prefix="pointsman-metrics-") if settings.replicas > 1 else None
    try:
        ledger = _ledger_file(settings, shared)
        progress("starting Ray")
        _start_ray()
        _on_signals(stop)  # again: Ray installs handlers of its own when it starts, which abort on SIGTERM
        progress("starting the replicas")
        central = _start_actor(LedgerActor, LEDGER, ledger) if ledger is not None else None
        board = _start_actor(BoardActor, BOARD) if settings.replicas > 1 else None
        _deploy(configuration, loader, settings, shared, central, board)
        if not stop.is_set():
            on_ready()
            signal.signal(signal.SIGHUP, lambda *_: _reload_replicas())
            if settings.watch_interval_s:  # what the replicas say of their reloads is in Ray's log files only
                say = logging.getLogger("pointsman").warning
                watched = (loader, configuration, settings.watch_interval_s, stop, say)
                threading.Thread(target=tell, args=watched, daemon=True).start()
        stop.wait()
    finally:
        progress("stopping the replicas")
        if ray.is_initialized():
            # Only what is ours: a cluster that was joined may serve other applications.
            serve.delete(APPLICATION)
            ray.shutdown()
        if shared is not None:
            shutil.rmtree(shared, ignore_errors=True)


def _on_signals(stop: threading.Event) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stop.set())


def _reload_replicas() -> None:
    """In a thread: a signal's handler must not wait."""
    replicas = serve.get_deployment_handle(ROUTER, APPLICATION)
    threading.Thread(target=lambda: replicas.broadcast("obey", RELOAD).results(), daemon=True).start()


def _start_ray() -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        ray.init(include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    serve.start(proxy_location="Disabled", http_options=HTTPOptions(location="NoServer"), logging_config=_LOGGING)


def _ledger_file(settings: Settings, shared: str | None) -> str | None:
    """Where the actor keeps what replicas spend; None where there is nothing to share, or Redis does it. Raises OSError
    where it can't be used: from inside the actor nobody would hear of it."""
    if settings.ledger is None:
        return str(Path(shared) / "ledger") if shared is not None else None
    if settings.ledger.startswith(REDIS):
        return None
    asyncio.run(FileLedger(Path(settings.ledger)).aclose())
    return settings.ledger


def _start_actor(kind: type, name: str, *arguments: object) -> Any:
    """On this node, where its files are. It ends with this process, and is started again where it ends before."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options: dict[str, Any] = {"name": name, "namespace": APPLICATION, "num_cpus": 0, "max_restarts": -1}
    return ray.remote(kind).options(scheduling_strategy=here, **options).remote(*arguments)


def _deploy(
    configuration: Configuration,
    loader: ConfigurationLoader,
    settings: Settings,
    shared: str | None,
    ledger: Any,
    board: Any,
) -> None:
    # A fraction of a core each: these numbers only place actors, and a laptop must have room for all of them.
    actor: dict[str, Any] = {"num_cpus": 0.1}
    common: dict[str, Any] = {
        "max_ongoing_requests": MAX_ONGOING,
        # What keeps a first replica from starting is in the configuration: trying again only hides it for a minute.
        # Replicas that have once started are restarted without end.
        "max_constructor_retry_count": 1,
        "health_check_period_s": 5,
        "logging_config": _LOGGING,
    }
    hosts = {
        spec.name: serve.deployment(name=f"backend-{spec.name}", ray_actor_options=actor, **common)(BackendHost).bind(
            spec, str(configuration.folder)
        )
        for spec in configuration.policy.fleet.backends
        if spec.protocol in OWN_DEPLOYMENT
    }
    if shared is not None:
        actor = {**actor, "runtime_env": {"env_vars": {METRICS_FOLDER: shared}}}
    router = serve.deployment(
        name=ROUTER,
        num_replicas=settings.replicas,
        ray_actor_options=actor,
        graceful_shutdown_timeout_s=settings.drain_s + 5,
        **common,
    )
    try:
        bound = router(RouterReplica).bind(Blueprint(loader, settings), hosts, ledger, board)
        serve.run(bound, name=APPLICATION, route_prefix=None)
    except RuntimeError as error:
        deployments = serve.status().applications[APPLICATION].deployments.values()
        failed = [_reason(d.message) for d in deployments if d.status == DeploymentStatus.DEPLOY_FAILED]
        raise BackendError("\n".join(failed) or str(error)) from None


def _make_metrics_folder() -> None:
    """The node that chose its name need not be this one."""
    if shared := os.environ.get(METRICS_FOLDER):
        Path(shared).mkdir(parents=True, exist_ok=True)


def _reason(message: str) -> str:
    """Of Ray's message about a replica that did not start, with its traceback: what the exception said."""
    lines = message.strip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith("  ")]
    said = lines[frames[-1] + 1 :] if frames else lines
    return re.sub(r"^[\w.]+: ", "", "\n".join(said), count=1)
