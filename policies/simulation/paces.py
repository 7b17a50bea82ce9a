"""How long answers take at a place where they were not given: as those that were, each against what was expected of it.

An estimate is an average, and objectives are missed by what is slower. So a simulated answer takes what is expected of
its backend, times what some real answer there took of what was expected of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from policies.estimate import latency_ms, ttft_ms
from policies.pickers import draw
from policies.simulation.traffic import Arrival
from policies.types import Request, Snapshot, Target

MOST_KEPT = 512


class Pace(NamedTuple):
    """What an answer took, as a share of what was expected."""

    whole: float = 1.0
    first: float | None = None  # to the first token; None: it was no stream


class Expected(NamedTuple):
    """Of an answer of known size, once it is served."""

    ms: float
    ttft_ms: float


def expected(target: Target, request: Request, tokens: tuple[int, int] | None, snapshot: Snapshot) -> Expected:
    """By the estimates that decisions go by, with the size that the answer has. A queue counts for what its backend has
    places: how long a request waits is not part of this."""
    at = target.backend_index
    if snapshot.in_flight[at] > target.max_in_flight:
        full = [min(count, target.max_in_flight) for count in snapshot.in_flight]
        snapshot = replace(snapshot, in_flight=tuple(full))
    if tokens is not None and tokens[1]:
        request = replace(request, tokens_out=tokens[1])
    return Expected(latency_ms(target, request, snapshot), ttft_ms(target, snapshot))


def pace_of(arrival: Arrival) -> Pace:
    """Of the answer that an arrival was given."""
    answered = arrival.answered
    if answered is None:
        return Pace()
    then = expected(answered.target, arrival.request, arrival.tokens, arrival.snapshot)
    return Pace(answered.ms / then.ms, None if answered.ttft_ms is None else answered.ttft_ms / then.ttft_ms)


@dataclass(slots=True)
class Paces:
    """Of the latest answers of each model at each backend."""

    known: dict[tuple[str, str], deque[Pace]] = field(default_factory=dict)

    def add(self, arrival: Arrival) -> None:
        if arrival.answered is not None:
            target = arrival.answered.target
            kept = self.known.setdefault((target.backend, target.model), deque(maxlen=MOST_KEPT))
            kept.append(pace_of(arrival))

    def of(self, target: Target, arrival: Arrival, seed: int) -> tuple[Pace, bool]:
        """(the pace of an answer of this target to the arrival, whether it was measured there). It is the arrival's own
        where that was answered there, and else one that its id draws."""
        answered = arrival.answered
        if answered is not None and (answered.target.backend, answered.target.model) == (target.backend, target.model):
            return pace_of(arrival), True
        kept = self.known.get((target.backend, target.model))
        if not kept:
            return Pace(), False
        return _drawn(kept, arrival.request.stream, draw(seed, arrival.request.id, f"pace {target.backend}")), True


def _drawn(kept: Sequence[Pace], stream: bool, lot: int) -> Pace:
    """Streams like streams, as far as there were any."""
    alike = [pace for pace in kept if (pace.first is not None) == stream] or kept
    return alike[lot % len(alike)]
