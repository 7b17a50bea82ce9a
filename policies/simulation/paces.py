"""How long answers take where they were not given: as real ones there took, of another size and with another load.

Estimates are averages, and objectives are missed by what is slower than that. So a simulated answer takes the time of
one that was measured at that place, put right for its size and for how full the backend is. What size and load do is
seen from the answers themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from policies.estimate import latency_ms, size, ttft_ms
from policies.pickers import draw
from policies.simulation.traffic import Arrival
from policies.types import Request, Snapshot, Target

MOST_KEPT = 512
_ENOUGH = 30
"""Answers from which it can be told what size and load do."""
_DRAWN = 8
_LEAST_SPREAD = 0.01
"""Variance of loads, and of sizes as shares of their mean, that says something."""


class Took(NamedTuple):
    """Times in milliseconds. `first` is to the first token of a stream."""

    ms: float
    first: float


class Sample(NamedTuple):
    """An answer that was measured."""

    size: float  # tokens, or KiB of tensors
    load: float  # of its backend, 0 to 1
    ms: float
    first: float | None  # None: it was no stream


def size_of(arrival: Arrival, request: Request) -> float:
    if arrival.tokens is not None and request.protocol != "oip":
        return float(arrival.tokens[1])
    return size(request)


def load_of(target: Target, snapshot: Snapshot) -> float:
    """How full its backend is, from 0 to 1. Who waits for a place does not slow down who has one."""
    return min(snapshot.in_flight[target.backend_index] / target.max_in_flight, 1.0)


class History:
    """The latest answers of one model at one backend."""

    def __init__(self) -> None:
        self._kept: deque[Sample] = deque(maxlen=MOST_KEPT)
        self._line: _Line | None = None
        self._new = 0  # since the line was drawn

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, sample: Sample) -> None:
        self._kept.append(sample)
        self._new += 1

    def took(self, size: float, load: float, lot: int, own: Sample | None) -> Took:
        """What an answer of such a size takes at such a load: as `own` took, or else one that the lot draws."""
        if self._line is None or self._new > len(self._kept) // 16:
            self._line, self._new = _Line.through(self._kept), 0
        line = self._line
        sample = own or self._near(line, line.at(size, load), lot)
        then = line.at(sample.size, sample.load)
        first = sample.ms if sample.first is None else sample.first
        return Took(sample.ms * line.at(size, load) / then, first * line.at(sample.size, load) / then)

    def _near(self, line: _Line, wanted: float, lot: int) -> Sample:
        """Of some that the lot draws the one of which most nearly as much is expected: the less is to be put right, the
        less it matters that no backend is a line."""
        drawn = []
        for _ in range(_DRAWN):
            lot = (lot * 6364136223846793005 + 1442695040888963407) % 2**64
            drawn.append(self._kept[(lot >> 32) % len(self._kept)])
        return min(drawn, key=lambda sample: abs(line.at(sample.size, sample.load) - wanted))


class _Line(NamedTuple):
    """What is usual, as a line in size and load (least squares)."""

    usual: float  # at no size and no load
    by_size: float
    by_load: float
    least: float

    def at(self, size: float, load: float) -> float:
        return max(self.usual + self.by_size * size + self.by_load * load, self.least)

    @classmethod
    def through(cls, samples: Sequence[Sample]) -> _Line:
        """Neither makes an answer quicker. Where loads were too much alike to tell, it grows with the load as decisions
        expect it to."""
        count = len(samples)
        mean = sum(one.ms for one in samples) / count
        mean_size = sum(one.size for one in samples) / count
        mean_load = sum(one.load for one in samples) / count
        sizes = loads = both = with_size = with_load = 0.0
        for one in samples:
            by_size, by_load, by_ms = one.size - mean_size, one.load - mean_load, one.ms - mean
            sizes += by_size * by_size
            loads += by_load * by_load
            both += by_size * by_load
            with_size += by_size * by_ms
            with_load += by_load * by_ms
        enough = count >= _ENOUGH
        sized = enough and sizes / count > _LEAST_SPREAD * mean_size * mean_size
        loaded = enough and loads / count > _LEAST_SPREAD
        rest = sizes * loads - both * both
        if sized and loaded and rest > 0.1 * sizes * loads:
            size_slope = (with_size * loads - with_load * both) / rest
            load_slope = (with_load * sizes - with_size * both) / rest
            sized, loaded = size_slope > 0, load_slope > 0
            if sized and loaded:
                return cls._of(mean, mean_size, mean_load, size_slope, load_slope)
        size_slope = max(with_size / sizes, 0.0) if sized else 0.0
        # Where the two went together, it is one effect: not both.
        load_slope = max(with_load / loads, 0.0) if loaded and not size_slope else 0.0
        if not enough or loads / count <= _LEAST_SPREAD:
            load_slope = mean / (1 + mean_load)
        return cls._of(mean, mean_size, mean_load, size_slope, load_slope)

    @classmethod
    def _of(cls, mean: float, mean_size: float, mean_load: float, by_size: float, by_load: float) -> _Line:
        return cls(mean - by_size * mean_size - by_load * mean_load, by_size, by_load, 0.05 * mean)


@dataclass(slots=True)
class Paces:
    """What is known of all backends, from the requests so far; and where that is little, from those ahead."""

    known: dict[tuple[str, str, bool], History] = field(default_factory=dict)  # by backend, model, whether streamed
    tokens: dict[str, deque[int]] = field(default_factory=dict)  # by model, of the latest answers
    ahead: Paces | None = None
    sized_others: int = 0  # requests that got the tokens of others

    def add(self, arrival: Arrival) -> None:
        answered, sample = arrival.answered, _sample(arrival)
        if answered is None or sample is None:
            return
        key = answered.target.backend, answered.target.model, sample.first is not None
        self.known.setdefault(key, History()).add(sample)
        if arrival.tokens is not None:
            self.tokens.setdefault(arrival.request.model, deque(maxlen=MOST_KEPT)).append(arrival.tokens[1])

    def sized(self, arrival: Arrival, seed: int) -> Arrival:
        """One that nobody answered gets an answer of as many tokens as some other request for the model, within the
        limit of its own: the limit itself would be far too much."""
        request = arrival.request
        kept = self.tokens.get(request.model) or (self.ahead.tokens.get(request.model) if self.ahead else None)
        if arrival.tokens is not None or not kept:
            return arrival
        self.sized_others += 1
        tokens = kept[draw(seed, request.id, "tokens") % len(kept)]
        return replace(arrival, tokens=(request.tokens_in, min(tokens, request.tokens_out)), estimated=True)

    def of(
        self, target: Target, arrival: Arrival, request: Request, snapshot: Snapshot, seed: int
    ) -> tuple[Took, bool]:
        """(what an answer of this target to the arrival takes, whether answers were measured there)."""
        history = self._history(target, request.stream)
        if self.ahead is not None and (history is None or len(history) < _ENOUGH):
            later = self.ahead._history(target, request.stream)
            history = later if later is not None and len(later) > len(history or ()) else history
        if history is None:
            return _expected(target, arrival, request, snapshot), False
        answered, own = arrival.answered, None
        if answered is not None and (answered.target.backend, answered.target.model) == (target.backend, target.model):
            own = _sample(arrival)
        lot = draw(seed, request.id, f"pace {target.backend}")
        return history.took(size_of(arrival, request), load_of(target, snapshot), lot, own), True

    def _history(self, target: Target, stream: bool) -> History | None:
        """Of streams for a stream, as far as there were any."""
        alike, other = (self.known.get((target.backend, target.model, one)) for one in (stream, not stream))
        return alike or other


def _sample(arrival: Arrival) -> Sample | None:
    answered = arrival.answered
    if answered is None:
        return None
    load = load_of(answered.target, arrival.snapshot)
    return Sample(size_of(arrival, arrival.request), load, answered.ms, answered.ttft_ms)


def _expected(target: Target, arrival: Arrival, request: Request, snapshot: Snapshot) -> Took:
    """As decisions estimate it, for the size that the answer has. A queue does not count: it is simulated."""
    if snapshot.in_flight[target.backend_index] > target.max_in_flight:
        full = [min(count, target.max_in_flight) for count in snapshot.in_flight]
        snapshot = replace(snapshot, in_flight=tuple(full))
    if arrival.tokens is not None and arrival.tokens[1]:
        request = replace(request, tokens_out=arrival.tokens[1])
    return Took(latency_ms(target, request, snapshot), ttft_ms(target, snapshot))
