"""One pass over everything that says which patterns occur in it at all.

An RE2 set that runs out of memory reports "no match" without an error, so every pass carries a canary at its end: a
pass that misses it has not seen the text, and raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import re2

CANARY = b"\n\x00\x01\x02pointsman\x02\x01\x00"
MAX_MEMORY = 64 * 1024 * 1024


_NOTHING: frozenset[str] = frozenset()


class Blind(Exception):
    """The prefilter did not see the text."""


class Prefilter:
    """Several patterns, asked together."""

    __slots__ = ("_set", "patterns")

    def __init__(self, patterns: Iterable[str], max_memory: int = MAX_MEMORY) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        options = re2.Options()
        options.max_mem = max_memory
        options.never_capture = True
        options.log_errors = False
        self._set: Any = re2.Set.SearchSet(options)
        self._set.Add(re2.escape(CANARY))
        for pattern in self.patterns:
            self._set.Add(pattern.encode())
        self._set.Compile()

    def __repr__(self) -> str:
        return f"Prefilter({len(self.patterns)} patterns)"

    def hits(self, data: bytes) -> frozenset[str]:
        """The patterns that match somewhere. Raises Blind where that cannot be said."""
        found = self._set.Match(data + CANARY)
        if not found or 0 not in found:
            raise Blind("the prefilter ran out of memory")
        return frozenset([self.patterns[i - 1] for i in found if i]) if len(found) > 1 else _NOTHING
