"""Pickers: put scored candidates in order. A picker sees scores and the seed, nothing else."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
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
    if any(a.score == b.score for a, b in itertools.pairwise(ranked)):
        ranked.sort(key=lambda c: (-c.score, draw(seed, request_id, c.target.backend)))
    return tuple(ranked)
