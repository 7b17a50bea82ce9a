"""The service: one configuration, live. Labels, decides, executes, probes, remembers; knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.calls import Backend, Call, Usage
from backends.errors import BackendError
from backends.registry import BUILDERS, Builder
from backends.tensors import ModelMetadata
from policies.decide import decide
from policies.estimate import cost_usd
from policies.sensitivity.labels import Label
from policies.types import Decision, Request
from router.configuration import Configuration
from router.execute import Executor, Result
from router.guard import GuardedBackend
from router.health import Event, unavailable
from router.hints import Hints
from router.metrics import Metrics
from router.requests import build_request
from router.settings import Settings
from router.state import FleetState
from router.wire.parsed import Parsed

log = logging.getLogger("pointsman")

RECENT_DECISIONS = 512
PROBE_TIMEOUT_S = 5.0
_FIRST_PROBES_S = 0.5  # timeout of the first probe, which start waits for, and pace until a backend has answered


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with what it was made from: what the admin port shows and a decision record will hold."""

    id: str
    request: Request
    label: Label
    decision: Decision


class Service:
    """Everything between a parsed request and an answer. Belongs to one event loop."""

    def __init__(
        self,
        configuration: Configuration,
        settings: Settings | None = None,
        builders: Mapping[str, Builder] = BUILDERS,
    ) -> None:
        self.policy = policy = configuration.policy
        self.settings = settings or Settings()
        self.metrics = Metrics()
        self.state = FleetState(policy)
        self.backends: dict[str, Backend] = {}
        for spec in policy.fleet.backends:
            backend = builders[spec.protocol](spec, configuration.folder, configuration.api_keys.get(spec.name))
            self.backends[spec.name] = GuardedBackend(
                backend, policy.fleet, policy.levels, lambda name: self.metrics.egress_blocked.labels(name).inc()
            )
        self.executor = Executor(self.backends, self.state, self.metrics)
        self.recent: OrderedDict[str, Decided] = OrderedDict()
        self.metrics.policy_info.labels(policy.digest).set(1)
        self._probes: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load every backend and begin to probe. Raises BackendError listing every backend that cannot start."""
        results = await asyncio.gather(*(b.start() for b in self.backends.values()), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:
            await self.aclose()
            raise BackendError("\n".join(str(error) for error in failed))
        await asyncio.gather(*(self._probe_once(i, _FIRST_PROBES_S) for i in range(len(self.backends))))
        self._probes = [asyncio.create_task(self._probe(i)) for i in range(len(self.backends))]

    async def aclose(self) -> None:
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        await asyncio.gather(*(backend.aclose() for backend in self.backends.values()), return_exceptions=True)

    def decide(self, parsed: Parsed, hints: Hints, body_bytes: int) -> Decided:
        """Label the call and decide where it goes."""
        begin = time.perf_counter()
        policy = self.policy
        decision_id = secrets.token_hex(16)
        wall = time.time()
        request, found = build_request(parsed, hints, policy, body_bytes, decision_id, wall)
        decision = decide(request, self.state.snapshot(time.monotonic(), wall), policy, self.settings.seed)
        self.metrics.decision_seconds.observe(time.perf_counter() - begin)
        self.metrics.labels.labels(policy.levels[found.rank]).inc()
        for rejection in decision.rejected:
            if rejection.filter != "capability":  # a backend that serves other models was never a candidate
                self.metrics.rejections.labels(rejection.backend, rejection.filter).inc()
        decided = self.recent[decision_id] = Decided(decision_id, request, found, decision)
        if len(self.recent) > RECENT_DECISIONS:
            self.recent.popitem(last=False)
        return decided

    async def execute(self, decision: Decision, call: Call, deadline_ms: float | None) -> Result:
        seconds = self.settings.default_deadline_s if deadline_ms is None else deadline_ms / 1000
        return await self.executor.execute(decision, call, time.monotonic() + seconds)

    def finished(self, result: Result, request: Request, usage: Usage | None) -> float:
        """Fold a whole, good answer into state and metrics; its cost in USD."""
        target = result.candidate.target
        self.state.observe_latency(target, (time.monotonic() - result.started) * 1000)
        cost = self.cost(result, request, usage)
        self.metrics.cost_usd.labels(target.backend, target.tier).inc(cost)
        if usage is not None:
            self.metrics.tokens.labels(target.backend, "in").inc(usage.tokens_in)
            self.metrics.tokens.labels(target.backend, "out").inc(usage.tokens_out)
        return cost

    def cost(self, result: Result, request: Request, usage: Usage | None) -> float:
        """From the backend's own count of tokens where it gave one, else the estimate."""
        counted = usage or Usage(request.tokens_in, request.tokens_out)
        return cost_usd(result.candidate.target, counted.tokens_in, counted.tokens_out)

    def readiness(self) -> dict[str, Any]:
        """Ready with a policy, which a service always has, and at least one backend that answers."""
        reachable = self.state.reachable(time.monotonic())
        unreachable = [name for name in self.backends if name not in reachable]
        return {"ready": bool(reachable), "reachable": reachable, "unreachable": unreachable}

    def model_ready(self, model: str) -> bool:
        reachable = set(self.state.reachable(time.monotonic()))
        return any(target.model == model and target.backend in reachable for target in self.policy.targets)

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
            interval_s = (
                self.settings.probe_interval_s if seen else min(_FIRST_PROBES_S, self.settings.probe_interval_s)
            )
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
        usable = unavailable(state.health, now) is None
        self.metrics.available.labels(name, backend.spec.tier).set(int(usable))
