"""One configuration, live: its compiled policy, backends, state and counts. A reload makes another and swaps them.

A request takes the live configuration once, when it arrives, and keeps it to its end: so it is decided, sent and
counted under one policy, whatever is loaded meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Mapping

from backends.calls import Backend
from backends.errors import BackendError
from backends.registry import BUILDERS, Builder
from backends.tensors import ModelMetadata
from router.attempts import Result
from router.carbon import Intensities
from router.configuration import Configuration
from router.execute import Executor
from router.guard import GuardedBackend
from router.health import Event
from router.identity import Identity
from router.ledger import Ledger
from router.ledgers.client import Leases
from router.state import FleetState
from router.telemetry.metrics import Metrics

log = logging.getLogger("pointsman")

PROBE_TIMEOUT_S = 5.0
_FIRST_PROBES_S = 0.5  # timeout of the first probe, which start waits for, and pace until a backend has answered


class Live:
    """Belongs to one event loop. Backends that `previous` has with the same settings are taken over as they are:
    connections, health, latencies and all."""

    def __init__(
        self,
        configuration: Configuration,
        metrics: Metrics,
        builders: Mapping[str, Builder],
        probe_interval_s: float,
        previous: Live | None = None,
        leases: Leases | None = None,
    ) -> None:
        self.configuration = configuration
        self.policy = policy = configuration.policy
        self.metrics = metrics
        self._probe_interval_s = probe_interval_s
        kept = _unchanged(configuration, previous.configuration) if previous is not None else frozenset()
        self.state: FleetState = FleetState(policy, previous.state if previous is not None else None, kept)
        self.intensities: Intensities = self.state.intensities
        self.ledger: Ledger = Ledger(policy, previous.ledger.leases if previous is not None else leases)
        before = previous.identity if previous is not None else None
        self.identity: Identity = Identity(configuration.credentials, policy, before)
        self._inner: dict[str, Backend] = {}
        self._new: list[str] = []
        for spec in policy.fleet.backends:
            if previous is not None and spec.name in kept:
                self._inner[spec.name] = previous._inner[spec.name]
            else:
                key = configuration.api_keys.get(spec.name)
                self._inner[spec.name] = builders[spec.protocol](spec, configuration.folder, key)
                self._new.append(spec.name)
        self.backends: dict[str, Backend] = {
            name: GuardedBackend(
                backend, policy.fleet, policy.levels, lambda name: metrics.egress_blocked.labels(name).inc()
            )
            for name, backend in self._inner.items()
        }
        self.executor = Executor(self.backends, self.state, metrics, rng=random.Random())
        self._probes: list[asyncio.Task[None]] = []
        self._users = 0
        self._unused: asyncio.Event | None = None  # where somebody waits for the last of them

    async def start(self) -> None:
        """Load what is new and begin to probe. Raises BackendError listing every backend that cannot start."""
        results = await asyncio.gather(*(self.backends[name].start() for name in self._new), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:
            await self._close(self._new)
            raise BackendError("\n".join(str(error) for error in failed))
        order = list(self.backends)
        await asyncio.gather(*(self._probe_once(order.index(name), _FIRST_PROBES_S) for name in self._new))
        self._probes = [asyncio.create_task(self._probe(i)) for i in range(len(self.backends))]

    def in_process(self, builders: Mapping[str, Builder]) -> dict[str, float]:
        """The backends whose models run in this process, and the intensity of its power now, in g/kWh."""
        own = [name for name in ("onnx", "torch") if builders.get(name) is BUILDERS[name]]
        now = zip(self.policy.fleet.backends, self.intensities.at(time.time()), strict=True)
        return {spec.name: intensity for spec, intensity in now if spec.protocol in own}

    def enter(self) -> Live:
        """A request goes by this configuration, until it calls `leave`."""
        self._users += 1
        return self

    def leave(self) -> None:
        self._users -= 1
        if not self._users and self._unused is not None:
            self._unused.set()

    async def retire(self, successor: Live, timeout_s: float) -> None:
        """Close what the successor has not taken over, once the last request has gone."""
        await self._stop_probing()
        if self._users:
            self._unused = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._unused.wait()
        await self._close([name for name, own in self._inner.items() if successor._inner.get(name) is not own])

    async def aclose(self) -> None:
        await self._stop_probing()
        await self._close(list(self.backends))

    async def _stop_probing(self) -> None:
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    async def _close(self, names: list[str]) -> None:
        await asyncio.gather(*(self.backends[name].aclose() for name in names), return_exceptions=True)

    def stream_broke(self, result: Result) -> None:
        """A stream that had begun well failed on the way."""
        target = result.candidate.target
        self.state.observe(target.backend_index, Event.FAILURE, time.monotonic())
        self.metrics.streams_broken.labels(target.backend, target.tier).inc()

    async def metadata(self, model: str) -> ModelMetadata | None:
        """From the first backend that serves the model and can say."""
        for target in self.policy.targets:
            if target.model == model and "oip" in target.protocols:
                try:
                    found = await self.backends[target.backend].metadata(model)
                except BackendError:
                    continue
                if found is not None:
                    return found
        return None

    async def _probe(self, backend_index: int) -> None:
        while True:
            # Jitter, so that many routers do not knock on one backend in step.
            seen = self.state.backends[backend_index].health.seen
            interval_s = self._probe_interval_s if seen else min(_FIRST_PROBES_S, self._probe_interval_s)
            await asyncio.sleep(interval_s * random.uniform(0.8, 1.2))
            await self._probe_once(backend_index, PROBE_TIMEOUT_S)

    async def _probe_once(self, backend_index: int, timeout_s: float) -> None:
        state = self.state.backends[backend_index]
        name, before = state.name, state.health.probe_failures
        backend = self.backends[name]
        try:
            async with asyncio.timeout(timeout_s):
                await backend.probe()
            event = Event.PROBE_OK
            if before:
                log.warning("probe of %s succeeds again", name)
        except (BackendError, TimeoutError) as error:
            if not before:  # once per outage, not once per probe
                log.warning("probe of %s failed: %s", name, str(error) or type(error).__name__)
            event = Event.PROBE_FAILED
        except Exception:
            log.exception("probe of %s raised", name)
            event = Event.PROBE_FAILED
        now = time.monotonic()
        self.state.observe(backend_index, event, now)


def _unchanged(new: Configuration, old: Configuration) -> frozenset[str]:
    """Names of the backends that are set up the same way in both."""
    before = {spec.name: spec for spec in old.policy.fleet.backends}
    return frozenset(
        spec.name
        for spec in new.policy.fleet.backends
        if before.get(spec.name) == spec
        and new.folder == old.folder
        and new.api_keys.get(spec.name) == old.api_keys.get(spec.name)
        and new.artefacts.get(spec.name) == old.artefacts.get(spec.name)
    )
