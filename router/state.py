"""What is known of the fleet now: in flight, latency, health. Folded from outcomes; read as snapshots."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.compile import CompiledPolicy
from policies.types import Snapshot, Target
from router.health import Event, Health, step, unavailable

_EWMA_WEIGHT = 0.2  # of the newest sample: about the last ten count


@dataclass(slots=True)
class BackendState:
    name: str
    in_flight: int = 0
    health: Health = field(default_factory=Health)


class FleetState:
    """Mutable, owned by one event loop. Indices are the policy's: backends by fleet position, targets by index."""

    def __init__(self, policy: CompiledPolicy) -> None:
        self.backends = [BackendState(backend.name) for backend in policy.fleet.backends]
        self._latency_ms: list[float | None] = [None] * len(policy.targets)
        self._ttft_ms: list[float | None] = [None] * len(policy.targets)

    def snapshot(self, now: float, wall: float) -> Snapshot:
        """`now` is on the clock of health's events, `wall` is seconds since 1970."""
        return Snapshot(
            tuple([unavailable(backend.health, now) for backend in self.backends]),
            tuple([backend.in_flight for backend in self.backends]),
            tuple(self._latency_ms),
            tuple(self._ttft_ms),
            wall,
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
