"""The latest decisions, for whoever asks why. Kept as records: a decision with all that it was made from is ten times
as large, and hundreds of them would drive what requests need out of the processor's caches. One that is asked for is
made again, which gives the same to the bit."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from policies.compile import CompiledPolicy
from router.decisionlog.record import Decided, restored

MOST = 512
Ended = tuple[str, bytes, CompiledPolicy]
"""A decision whose request is over: its id, its record as the decision log has it, and the policy that made it."""


class Recent:
    """Belongs to one event loop."""

    def __init__(self, most: int = MOST) -> None:
        self._over: deque[Ended] = deque(maxlen=most)
        self._going: dict[str, Decided] = {}

    def begin(self, decided: Decided) -> None:
        self._going[decided.id] = decided

    def end(self, ended: Sequence[Ended]) -> None:
        self._over.extend(ended)
        going = self._going
        for id, _, _ in ended:
            going.pop(id, None)

    def latest(self) -> list[Decided]:
        """The oldest first; those whose requests are not over yet come last."""
        over, going = list(self._over), list(self._going.values())
        return [_again(record, policy) for _, record, policy in over] + going

    def get(self, id: str) -> Decided | None:
        """By the decision's id."""
        found = [_again(record, policy) for one, record, policy in list(self._over) if one == id]
        return found[0] if found else self._going.get(id)


def _again(record: bytes, policy: CompiledPolicy) -> Decided:
    return restored(msgspec.json.decode(record), policy)
