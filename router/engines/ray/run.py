"""`pointsman serve --engine ray`: the application on a Ray that is started for it, or on one that is joined."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import DeploymentStatus

from backends.errors import BackendError
from router.configuration import Configuration
from router.engines.ray import APPLICATION, ROUTER
from router.engines.ray.actors import BOARD, LEDGER, BoardActor, LedgerActor, start_actor
from router.engines.ray.deployments import LOGGING, application
from router.engines.ray.replica import Blueprint, Given
from router.ledgers.central import REDIS
from router.ledgers.file import FileLedger
from router.loading import ConfigurationLoader
from router.orders import RELOAD
from router.server import bind
from router.settings import Settings
from router.watch import tell

OBJECT_STORE_BYTES = 128 * 1024 * 1024


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
        central = start_actor(LedgerActor, LEDGER, ledger) if ledger is not None else None
        board = start_actor(BoardActor, BOARD) if settings.replicas > 1 else None
        blueprint = Blueprint(loader, settings, shared is not None, shared, central, board)
        _deploy(configuration, settings, blueprint)
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
        # "local": one of our own, also where another Ray runs on this machine; without it that would be joined.
        ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    serve.start(proxy_location="Disabled", http_options=HTTPOptions(location="NoServer"), logging_config=LOGGING)


def _ledger_file(settings: Settings, shared: str | None) -> str | None:
    """Where the actor keeps what replicas spend; None where there is nothing to share, or Redis does it. Raises OSError
    where it can't be used: from inside the actor nobody would hear of it."""
    if settings.ledger is None:
        return str(Path(shared) / "ledger") if shared is not None else None
    if settings.ledger.startswith(REDIS):
        return None
    asyncio.run(FileLedger(Path(settings.ledger)).aclose())
    return settings.ledger


def _deploy(configuration: Configuration, settings: Settings, blueprint: Blueprint) -> None:
    try:
        serve.run(application(configuration, settings, Given(blueprint)), name=APPLICATION, route_prefix=None)
    except RuntimeError as error:
        deployments = serve.status().applications[APPLICATION].deployments.values()
        failed = [_reason(d.message) for d in deployments if d.status == DeploymentStatus.DEPLOY_FAILED]
        raise BackendError("\n".join(failed) or str(error)) from None


def _reason(message: str) -> str:
    """Of Ray's message about a replica that did not start, with its traceback: what the exception said."""
    lines = message.strip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith("  ")]
    said = lines[frames[-1] + 1 :] if frames else lines
    return re.sub(r"^[\w.]+: ", "", "\n".join(said), count=1)
