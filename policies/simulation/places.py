"""How full backends are: each has places, requests beyond them wait in order. No clock: moments are arguments."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace


class Places:
    """Of all backends of a fleet. Moments are seconds since 1970. Who is to be served later counts from when that is
    known."""

    def __init__(self, capacities: Sequence[int]) -> None:
        self._capacities = capacities
        self._free_at: list[list[float]] = [[] for _ in capacities]  # when each place that was ever taken is free again
        self._ends: list[tuple[float, int]] = []
        self._in_flight = [0] * len(capacities)

    def in_flight(self, now: float) -> tuple[int, ...]:
        """By backend: requests being served or waiting."""
        ends, in_flight = self._ends, self._in_flight
        while ends and ends[0][0] <= now:
            in_flight[heappop(ends)[1]] -= 1
        return tuple(in_flight)

    def begins(self, backend: int, at: float) -> float:
        """When a request that comes at `at` would be served: then, or when a place is free."""
        free_at = self._free_at[backend]
        return at if len(free_at) < self._capacities[backend] else max(at, free_at[0])

    def take(self, backend: int, begin: float, end: float) -> None:
        """Serve one from `begin`, which `begins` has told, to `end`."""
        free_at = self._free_at[backend]
        if len(free_at) < self._capacities[backend]:
            heappush(free_at, end)
        else:
            heapreplace(free_at, end)
        self.wait(backend, end)

    def wait(self, backend: int, end: float) -> None:
        """One more is there until `end`; it needs no place."""
        heappush(self._ends, (end, backend))
        self._in_flight[backend] += 1
