"""Measured energy of models in the router's process, where the kernel tells what the processors drew (RAPL).

A process is taken to have drawn its share of the machine's busy CPU time, and a backend its share of the time that the
process served for its backends. Elsewhere energy is modelled from watts and service time (`policies.accounts`).
"""

from __future__ import annotations

from collections.abc import Mapping

from policies.estimate import carbon_g
from router.telemetry.metrics import Metrics
from router.telemetry.rapl import ProcessShare, Rapl


class MeasuredEnergy:
    """Belongs to one thread."""

    def __init__(
        self, metrics: Metrics, replicas: int = 1, rapl: Rapl | None = None, share: ProcessShare | None = None
    ) -> None:
        """Each of `replicas` on this machine counts its part of what all of it drew, so that their sum is that."""
        self._metrics, self._replicas = metrics, replicas
        self._rapl, self._share = rapl or Rapl(), share or ProcessShare()
        self._served: dict[tuple[str, str], float] = {}  # seconds by backend and tier, since the last reading
        self._readable = self._rapl.read() is not None
        self.backends: Mapping[str, float] = {}
        """Those whose models run in this process, and the grams of CO2 equivalent per kWh of its power."""

    def measures(self, backend: str) -> bool:
        return self._readable and backend in self.backends

    def served(self, backend: str, tier: str, seconds: float) -> None:
        self._served[backend, tier] = self._served.get((backend, tier), 0.0) + seconds

    def fold(self) -> None:
        """Call more often than the counters wrap: within minutes."""
        if not self._readable:
            return
        joules, share = self._rapl.read(), self._share.read()
        if joules is None:
            return
        metrics = self._metrics
        metrics.host_joules.inc(joules / self._replicas)
        served, self._served = self._served, {}
        seconds = sum(served.values())
        for (backend, tier), own in served.items():
            part = joules * (share or 0.0) * own / seconds if seconds else 0.0
            metrics.energy_joules.add((backend, tier, "measured"), part)
            metrics.carbon_grams.add((backend, tier), carbon_g(part, self.backends.get(backend, 0.0)))
