"""The latest decisions, for whoever asks why. Kept as records: a decision with all that it was made from is ten times
as large, and hundreds of them would drive what requests need out of the processor's caches. One that is asked for is
made again, which gives the same to the bit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from policies.compile import CompiledPolicy
from router.decisionlog.record import Decided, Outcome, restored

MOST = 512
Ended = tuple[str, bytes, CompiledPolicy]
"""A decision whose request is over: its id, its record as the decision log has it, and the policy that made it."""


class Remembered(NamedTuple):
    """One of them, and how its request ended, as the decision log has it; None: it is not over."""

    decided: Decided
    outcome: Outcome | Mapping[str, Any] | None = None


class Recent:
    """Belongs to one event loop."""

    def __init__(self, going: Callable[[], Iterable[Remembered]], most: int = MOST) -> None:
        """`going`: those whose requests are not over yet, or not told yet."""
        self._going = going
        self._over: deque[Ended] = deque(maxlen=most)

    def end(self, ended: Sequence[Ended]) -> None:
        self._over.extend(ended)

    def latest(self) -> list[Remembered]:
        """The oldest first."""
        over = [_again(record, policy) for _, record, policy in list(self._over)]
        return sorted([*over, *self._going()], key=lambda seen: seen.decided.snapshot.now)

    def get(self, id: str) -> Remembered | None:
        """By the decision's id."""
        found = [seen for seen in self._going() if seen.decided.id == id]
        found += [_again(record, policy) for one, record, policy in list(self._over) if one == id]
        return found[0] if found else None


def _again(record: bytes, policy: CompiledPolicy) -> Remembered:
    known = msgspec.json.decode(record)
    return Remembered(restored(known, policy), known.get("outcome"))
