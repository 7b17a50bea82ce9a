"""The organisation's own words and patterns.

Words are compared without regard to width, composition and case. A word of ASCII letters stands by itself
(`NDA` is not in `Linda`); other words, such as Japanese ones, are found anywhere, for there are no spaces to tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import re2

from policies.sensitivity.normalise import fold
from policies.sensitivity.rules import Found, compiled, spans

MAX_MATCH = 512
"""Most bytes that one finding of an organisation's pattern spans; what bounds the time of a pattern such as `a.*b`."""


@dataclass(frozen=True, slots=True)
class Words:
    """KEYWORD: any of a list of words, in folded text. Ten thousand cost what ten do: one automaton reads them all."""

    words: tuple[str, ...] = field(repr=False)
    entity: str = "KEYWORD"
    folded: bool = True
    pattern: str = field(init=False, repr=False)
    located: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = sorted({fold(word).strip() for word in self.words} - {""}, key=lambda w: (-len(w), w))
        pattern = "|".join(_bounded(word) for word in words) or r"[^\x00-\x{10FFFF}]"
        object.__setattr__(self, "pattern", pattern)
        object.__setattr__(self, "located", compiled(pattern, never_capture=True, max_mem=64 << 20))

    @property
    def probes(self) -> tuple[str, ...]:
        return (self.pattern,)

    def find(self, data: bytes, /) -> Iterator[Found]:
        for start, end in spans(self.located, data):
            yield start, end, 1.0


def _bounded(word: str) -> str:
    left = r"\b" if word[0].isascii() and (word[0].isalnum() or word[0] == "_") else ""
    right = r"\b" if word[-1].isascii() and (word[-1].isalnum() or word[-1] == "_") else ""
    return left + "".join(r"\s+" if char == " " else re2.escape(char) for char in word) + right


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of the organisation's own, RE2 syntax, in normalised text.

    RE2 itself is linear, but finding every match of `a.*b` would read on to the end for each of them: matches are
    looked for in windows, so one spans at most MAX_MATCH bytes.
    """

    entity: str
    pattern: str = field(repr=False)
    located: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "located", compiled(self.pattern, never_capture=True))

    @property
    def probes(self) -> tuple[str, ...]:
        return (self.pattern,)

    def find(self, data: bytes, /) -> Iterator[Found]:
        position, size = 0, len(data)
        whole = False
        while position <= size:
            window = min(position + 2 * MAX_MATCH, size)
            match = self.located.search(data, position, window)
            if match is None or (match.start() > position + MAX_MATCH and window < size):
                if window == size and match is None:
                    break
                position += MAX_MATCH
                continue
            start, end = match.span()
            if end - start > MAX_MATCH:
                end = start + MAX_MATCH
            if end > start:
                whole = True
                yield start, end, 1.0
            position = max(end, start + 1)
        if not whole and self.located.search(data) is not None:  # longer than any window
            yield 0, size, 0.5


def problem(pattern: str) -> tuple[str, int | None] | None:
    """What is wrong with a pattern and the character it begins at, if that is known; None for a good one."""
    try:
        expression = compiled(pattern, never_capture=True)
    except re2.error as error:
        said = error.args[0]
        message = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        what, _, part = message.rpartition(": ")
        at = pattern.find(part) if what and part else -1
        return message, (at if at >= 0 else None)
    if expression.search(b"") is not None:
        return "matches the empty text, and so everything", None
    return None


def unusable(patterns: Iterable[str]) -> bool:
    """Whether patterns that are good by themselves do not fit together."""
    from policies.sensitivity.prefilter import Blind, Prefilter

    try:
        Prefilter(patterns).hits(b"")
    except (re2.error, Blind):
        return True
    return False
