"""One process, no Ray: for the edge, for tests, for a laptop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import uvloop

from router import process
from router.configuration import Configuration
from router.loading import ConfigurationLoader
from router.server import Listeners, bind
from router.service import Service
from router.settings import Settings
from router.watch import watching


def run(
    configuration: Configuration, loader: ConfigurationLoader, settings: Settings, on_ready: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP reloads the configuration. Raises OSError when a port cannot be had,
    BackendError when a backend can't start."""
    uvloop.run(_main(configuration, loader, settings, on_ready))


async def _main(
    configuration: Configuration, loader: ConfigurationLoader, settings: Settings, on_ready: Callable[[], None]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    data, admin = bind(settings.host, settings.port), bind(settings.admin_host, settings.admin_port)
    service = Service(configuration, settings, loader=loader)
    await service.start()
    listeners = Listeners(service, data, admin)
    await listeners.start()
    reloads: set[asyncio.Task[object]] = set()  # kept from being collected while they run
    loop.add_signal_handler(signal.SIGHUP, lambda: reloads.add(asyncio.create_task(service.reload())))
    watch = watching(service, loader, settings.watch_interval_s)
    process.settle()
    on_ready()
    await stop.wait()
    watch.cancel()
    await listeners.stop()
    await service.aclose()
