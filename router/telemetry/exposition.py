"""The text that Prometheus gets: of all replicas on this node where they share a directory, else of this process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Exemplar, Metric, Sample
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from router.telemetry.metrics import SHARED, Metrics
from router.telemetry.tallies import Distribution


def render(metrics: Metrics, accept: str = "") -> tuple[bytes, str]:
    """The exposition in the format that an Accept header asks for (OpenMetrics carries exemplars), and its type."""
    metrics.fold()
    source: Collector = metrics.registry
    shared = os.environ.get(SHARED)
    if shared:
        forget_dead(Path(shared))
        source = _OfReplicas(CollectorRegistry(), shared)  # type: ignore[no-untyped-call]
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is none: the header is no reason to tell nothing
        encode, content_type = choose_encoder("")
    return encode(_Shown(source, metrics)), content_type


class _OfReplicas(MultiProcessCollector):
    """What is gone at one replica may be there at another, which has not reloaded yet or has refused to: it must not
    make the sum nothing."""

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in Path(self._path).glob("*.db")]
        metrics = MultiProcessCollector._read_metrics(files)  # type: ignore[no-untyped-call]
        for metric in metrics.values():
            metric.samples = [sample for sample in metric.samples if sample.value == sample.value]
        found: Iterable[Metric] = MultiProcessCollector._accumulate_metrics(metrics, True)  # type: ignore[no-untyped-call]
        return found


class _Shown(Collector):
    """The samples without those that are gone (`gauges.GONE`), buckets with their exemplars. Exemplars are those of
    this replica: the files that replicas share have no room for them."""

    def __init__(self, source: Collector, metrics: Metrics) -> None:
        self._source, self._metrics = source, metrics

    def collect(self) -> Iterator[Metric]:
        for family in self._source.collect():
            samples = [sample for sample in family.samples if sample.value == sample.value]
            distribution = self._metrics.distributions.get(family.name)
            if distribution is not None and distribution.exemplars:
                samples = [_with_exemplar(sample, distribution) for sample in samples]
            family.samples = samples
            yield family


def _with_exemplar(sample: Sample, distribution: Distribution) -> Sample:
    bound = sample.labels.get("le")
    if bound is None:
        return sample
    labels = tuple(sample.labels[name] for name in distribution.metric._labelnames)
    bounds = [*distribution.bounds, float("inf")]
    found = distribution.exemplars.get((labels, bounds.index(float(bound))))
    if found is None:
        return sample
    return sample._replace(exemplar=Exemplar({"trace_id": found.trace_id}, found.value, found.at))


def forget_dead(shared: Path) -> None:
    """Gauges of replicas that are gone: what they had in flight is so no more. What they counted stays counted."""
    for file in shared.glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except PermissionError:
            pass  # alive, and another user's
