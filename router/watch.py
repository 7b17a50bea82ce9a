"""Looks whether a configuration's files have changed, and asks for a reload when they have."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from policies.errors import ConfigurationError
from router.configuration import Configuration
from router.loading import ConfigurationLoader
from router.service import Service
from router.stamps import Stamp

log = logging.getLogger("pointsman")


class Settling:
    """Tells when a change has stood still for one look: an editor, or a volume that is being mounted, writes in steps.
    What has once been told of is not told of again until something changes."""

    def __init__(self, stamps: frozenset[Stamp]) -> None:
        self._seen = self._pending = stamps

    def settled(self, now: frozenset[Stamp]) -> bool:
        settled = now != self._seen and now == self._pending
        self._pending = now
        if settled:
            self._seen = now
        return settled


def watching(service: Service, loader: ConfigurationLoader, interval_s: float) -> asyncio.Task[None]:
    """A task that watches until it is cancelled; with an interval of 0 it does nothing."""
    return asyncio.create_task(watch(service, loader, interval_s) if interval_s else asyncio.sleep(0))


async def watch(service: Service, loader: ConfigurationLoader, interval_s: float) -> None:
    """Until cancelled. A change is taken up once it has stood still for one interval."""
    files = Settling(frozenset(service.live.configuration.files.values()))
    while True:
        await asyncio.sleep(interval_s)
        # As it is before the files are read: what changes while they are is seen next time.
        if files.settled(await asyncio.to_thread(loader.stamps, service.live.configuration)):
            log.info("files of the configuration have changed")
            await service.reload()


def tell(
    loader: ConfigurationLoader,
    configuration: Configuration,
    interval_s: float,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Until `stop`: say at this terminal what other processes, which watch the same files, will do with a change."""
    files = Settling(frozenset(configuration.files.values()))
    while not stop.wait(interval_s):
        if not files.settled(loader.stamps(configuration)):
            continue
        try:
            found = loader()
        except ConfigurationError as error:
            say(f"reload refused, policy {configuration.policy.digest} stays:\n{error}")
            continue
        if not found.same_as(configuration):
            say(f"policy {found.policy.digest} is good, and goes live in every replica")
        configuration = found
