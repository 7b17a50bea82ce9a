"""What is known of the fleet now: in flight, latency, health. Folded from outcomes; read as snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.compile import CompiledPolicy
from policies.types import Snapshot, Target
from router.health import Event, Health, step, unavailable

_NOTHING: Mapping[tuple[int, str], float] = {}
_EWMA_WEIGHT = 0.2  # of the newest sample: about the last ten count


@dataclass(slots=True)
class BackendState:
    name: str
    places: asyncio.Semaphore  # of its concurrency
    in_flight: int = 0
    health: Health = field(default_factory=Health)


class FleetState:
    """Mutable, owned by one event loop. Indices are the policy's: backends by fleet position, targets by index."""

    def __init__(
        self, policy: CompiledPolicy, previous: FleetState | None = None, kept: frozenset[str] = frozenset()
    ) -> None:
        """The state of the backends in `kept` goes on from `previous`, and is shared with it: requests that began
        under it still hold their places."""
        before: dict[str, BackendState] = (
            {state.name: state for state in previous.backends} if previous is not None else {}
        )
        self.backends: list[BackendState] = [
            before[spec.name]
            if spec.name in kept
            else BackendState(spec.name, asyncio.Semaphore(spec.limits.max_in_flight))
            for spec in policy.fleet.backends
        ]
        self._names = [(target.backend, target.model) for target in policy.targets]
        self._latency_ms: list[float | None] = [None] * len(policy.targets)
        self._ttft_ms: list[float | None] = [None] * len(policy.targets)
        for i, name in enumerate(previous._names if previous is not None else ()):
            if name[0] in kept and previous is not None:
                at = self._names.index(name)
                self._latency_ms[at], self._ttft_ms[at] = previous._latency_ms[i], previous._ttft_ms[i]

    def snapshot(self, now: float, wall: float, spent: Mapping[tuple[int, str], float] = _NOTHING) -> Snapshot:
        """`now` is on the clock of health's events, `wall` is seconds since 1970."""
        return Snapshot(
            tuple([unavailable(backend.health, now) for backend in self.backends]),
            tuple([backend.in_flight for backend in self.backends]),
            tuple(self._latency_ms),
            tuple(self._ttft_ms),
            wall,
            spent,
        )

    def observe(self, backend_index: int, event: Event, now: float) -> None:
        backend = self.backends[backend_index]
        backend.health = step(backend.health, event, now)

    def observe_latency(self, target: Target, latency_ms: float) -> None:
        """To the whole answer."""
        _fold(self._latency_ms, target.index, latency_ms)

    def observe_ttft(self, target: Target, ttft_ms: float) -> None:
        """To the first byte of a stream."""
        _fold(self._ttft_ms, target.index, ttft_ms)

    def reachable(self, now: float) -> list[str]:
        """Backends that have answered something and may be used."""
        return [b.name for b in self.backends if b.health.seen and unavailable(b.health, now) is None]


def _fold(averages: list[float | None], index: int, sample: float) -> None:
    before = averages[index]
    averages[index] = sample if before is None else before + _EWMA_WEIGHT * (sample - before)
