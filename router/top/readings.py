"""What /metrics said at a moment, and what happened between two such moments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reading:
    at: float  # on a clock that goes on evenly, s
    samples: Mapping[str, Mapping[Labels, float]]  # by name

    @classmethod
    def of(cls, text: str, at: float) -> Reading:
        """Of the exposition text. Raises ValueError where it is none."""
        samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return cls(at, samples)

    def series(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        wanted = labels.items()
        for found, value in self.samples.get(name, {}).items():
            if wanted <= found:
                yield dict(found), value

    def total(self, name: str, **labels: str) -> float:
        return sum(value for _, value in self.series(name, **labels))

    def values(self, name: str, label: str, **labels: str) -> list[str]:
        """Of a label, in order, those that are there."""
        return sorted({found[label] for found, _ in self.series(name, **labels)} - {""})


@dataclass(frozen=True, slots=True)
class Between:
    """Two readings of one router, the older first. A counter that fell was started anew."""

    before: Reading
    after: Reading

    @property
    def seconds(self) -> float:
        return max(self.after.at - self.before.at, 1e-9)

    def rise(self, name: str, **labels: str) -> float:
        rise = 0.0
        before = self.before.samples.get(name, {})
        for found, value in self.after.samples.get(name, {}).items():
            if labels.items() <= found:
                earlier = before.get(found, 0.0)
                rise += value - earlier if value >= earlier else value
        return rise

    def rate(self, name: str, **labels: str) -> float:
        """A second."""
        return self.rise(name, **labels) / self.seconds

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """Of a histogram, in its unit, as Prometheus estimates it: evenly inside a bucket. None where nothing was
        observed."""
        counts: dict[float, float] = {}
        for found, _ in self.after.series(f"{name}_bucket", **labels):
            bound = float(found["le"])
            counts[bound] = counts.get(bound, 0.0) + self.rise(f"{name}_bucket", **found)
        if not counts or max(counts.values()) <= 0:
            return None
        bounds = sorted(counts)
        wanted, below, under = share * counts[bounds[-1]], 0.0, 0.0
        for bound in bounds:
            if counts[bound] >= wanted:
                if math.isinf(bound):
                    return below
                inside = counts[bound] - under
                return below + (bound - below) * ((wanted - under) / inside if inside else 1.0)
            below, under = bound, counts[bound]
        return below
