"""The latest decisions, for whoever asks why. Kept as records: a decision with all that it was made from is ten times
as large, and hundreds of them would drive what requests need out of the processor's caches. One that is asked for is
made again, which gives the same to the bit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from policies.compile import CompiledPolicy
from router.decisionlog.record import Decided, restored

MOST = 512
Ended = tuple[str, bytes, CompiledPolicy]
"""A decision whose request is over: its id, its record as the decision log has it, and the policy that made it."""


class Recent(Mapping[str, Decided]):
    """By the decision's id, the oldest first; those whose requests are not over yet come last."""

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

    def __getitem__(self, id: str) -> Decided:
        going = self._going.get(id)
        if going is not None:
            return going
        for one, record, policy in self._over:
            if one == id:
                return restored(msgspec.json.decode(record), policy)
        raise KeyError(id)

    def __iter__(self) -> Iterator[str]:
        yield from [id for id, _, _ in self._over]
        yield from tuple(self._going)

    def __len__(self) -> int:
        return len(self._over) + len(self._going)
