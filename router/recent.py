"""The latest decisions, for whoever asks why. Kept as records: a decision with all that it was made from is ten times
as large, and hundreds of them would drive what requests need out of the processor's caches. One that is asked for is
made again, which gives the same to the bit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

import msgspec

from policies.compile import CompiledPolicy
from router.decisionlog.record import Decided, restored

MOST = 512


class Recent(Mapping[str, Decided]):
    """By the decision's id, the oldest first; those whose requests are not over yet come last."""

    def __init__(self) -> None:
        self._over: OrderedDict[str, tuple[bytes, CompiledPolicy]] = OrderedDict()
        self._going: dict[str, Decided] = {}

    def begin(self, decided: Decided) -> None:
        self._going[decided.id] = decided

    def end(self, decided: Decided, record: bytes) -> None:
        """`record` is JSON, as it goes into the decision log."""
        self._going.pop(decided.id, None)
        self._over[decided.id] = record, decided.policy
        if len(self._over) > MOST:
            self._over.popitem(last=False)

    def __getitem__(self, id: str) -> Decided:
        going = self._going.get(id)
        if going is not None:
            return going
        record, policy = self._over[id]
        return restored(msgspec.json.decode(record), policy)

    def __iter__(self) -> Iterator[str]:
        yield from tuple(self._over)
        yield from tuple(self._going)

    def __len__(self) -> int:
        return len(self._over) + len(self._going)
