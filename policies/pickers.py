"""Pickers: put scored candidates in order. A picker sees scores and the seed, nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from operator import attrgetter

from policies.types import Candidate

_score = attrgetter("score")


def draw(seed: int, request_id: str, name: str) -> int:
    """A number that depends on nothing but its arguments: the same in every process, replayable for ever."""
    digest = hashlib.blake2b(f"{seed}\0{request_id}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def best_score(candidates: Sequence[Candidate], seed: int, request_id: str) -> tuple[Candidate, ...]:
    """Highest score first; equal scores by a draw per request, so that equals share the load."""
    ranked = sorted(candidates, key=_score, reverse=True)
    if len({c.score for c in ranked}) < len(ranked):
        ranked.sort(key=lambda c: (-c.score, draw(seed, request_id, c.target.backend)))
    return tuple(ranked)


def weighted_split(
    ranked: Sequence[Candidate], weights: Mapping[str, float], seed: int, key: str
) -> tuple[Candidate, ...]:
    """The candidates with a weight, in an order drawn by weight for `key`; then the others as they were.

    Weighted rendezvous hashing: each draws a lot by itself, so a backend that goes away gives up its own share only,
    and everybody else stays where they are.
    """

    def lot(candidate: Candidate) -> float:
        backend = candidate.target.backend
        uniform = (draw(seed, key, backend) + 0.5) / 2**64
        return math.log(uniform) / weights[backend]  # closest to 0 wins; below 0 always

    inside = sorted((c for c in ranked if c.target.backend in weights), key=lot, reverse=True)
    return (*inside, *(c for c in ranked if c.target.backend not in weights))


def drawn(share: float, seed: int, request_id: str, name: str) -> bool:
    """Whether a request is among the `share` that `name` gets a copy of."""
    return draw(seed, request_id, name) < share * 2**64
