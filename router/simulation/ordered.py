"""Requests in the order in which they arrived, as many as are asked for, and what they teach of backends."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from policies.pickers import draw, drawn
from policies.simulation.paces import Paces
from policies.simulation.traffic import Arrival

LOOK_AHEAD_S = 900.0
"""A log holds requests in the order in which they ended. One that took longer than this is simulated later than it
came."""
_SPREAD_S = 5.0


def ordered(chains: Iterable[Iterable[Arrival]], paces: Paces, load: float = 1.0, seed: int = 0) -> Iterator[Arrival]:
    """Of all chains together, each request `load` times on average, which is told by its id and the seed. `paces`
    learns from each as it comes, and looks ahead where it knows little."""
    paces.ahead = Paces()
    merged = heapq.merge(*(_of_one(chain, paces.ahead, load, seed) for chain in chains), key=lambda arrival: arrival.at)
    for arrival in merged:
        paces.add(arrival)
        yield paces.sized(arrival, seed)


def _of_one(chain: Iterable[Arrival], ahead: Paces, load: float, seed: int) -> Iterator[Arrival]:
    waiting: list[tuple[float, int, Arrival]] = []
    newest = given = 0.0
    numbers = itertools.count()  # no two are alike, so that no two arrivals are compared
    for read in chain:
        ahead.add(read)
        for arrival in _repeated(read, load, seed):
            heapq.heappush(waiting, (arrival.at, next(numbers), arrival))
        newest = max(newest, read.at)
        while waiting and waiting[0][0] < newest - LOOK_AHEAD_S:
            given = max(given, waiting[0][0])
            yield _not_before(heapq.heappop(waiting)[2], given)
    while waiting:
        yield heapq.heappop(waiting)[2]


def _not_before(arrival: Arrival, at: float) -> Arrival:
    return arrival if arrival.at >= at else replace(arrival, at=at)


def _repeated(arrival: Arrival, load: float, seed: int) -> Iterator[Arrival]:
    """Copies come a moment later, so that they are not all served at once."""
    request = arrival.request
    whole, part = divmod(load, 1)
    for copy in range(int(whole) + drawn(part, seed, request.id, "load")):
        if not copy:
            yield arrival
            continue
        id = f"{request.id}#{copy}"
        later = _SPREAD_S * draw(seed, id, "load") / 2**64
        yield replace(arrival, at=arrival.at + later, request=replace(request, id=id))
