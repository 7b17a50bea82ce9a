"""What the power of each backend emits now, as the fleet, a table or a series says; worked out once a second."""

from __future__ import annotations

import math
from collections.abc import Sequence

from policies.carbon import Intensity


class Intensities:
    """By backend, in the fleet's order."""

    def __init__(self, intensities: Sequence[Intensity]) -> None:
        self.scheduled = any(one.series is not None for one in intensities)
        """Whether they change with the hour. Where they do not, `Target.g_per_kwh` says the same."""
        self._intensities = tuple(intensities)
        self._second = -math.inf
        self._now: tuple[float, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Who says so, as a rule. A series that does not speak at an hour still stands here: see `sources_at`."""
        return tuple(one.source for one in self._intensities)

    def at(self, wall: float) -> tuple[float, ...]:
        """Grams of CO2 equivalent per kWh at `wall`, in seconds since 1970, to the second."""
        second = math.floor(wall)
        if second != self._second:
            self._second, self._now = second, tuple([one.at(second) for one in self._intensities])
        return self._now

    def sources_at(self, wall: float) -> tuple[str, ...]:
        """Who says what `at` says."""
        second = math.floor(wall)
        return tuple(one.source_at(second) for one in self._intensities)
