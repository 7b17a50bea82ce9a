"""Rules: how one kind of entity is located and checked. Everything a rule says is a place, a type and a score.

Locating is RE2's work, on UTF-8 bytes: its time is linear in the text whatever the text (Cox, "Regular Expression
Matching in the Wild", 2010). A rule is run only where all its probes, which the prefilter asks in one pass over
everything, have matched.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import re2

Found = tuple[int, int, float]
"""Start and end in bytes of the normalised text, and how sure: 0 to 1."""
Check = Callable[[bytes, int, int], Found | None]
"""A precise look at what a pattern matched: the place, maybe narrowed, or None where it is nothing."""


class Entity(NamedTuple):
    """One finding: what, where in the original text, how sure. Never the text itself."""

    start: int
    end: int
    type: str
    score: float


class Rule(Protocol):
    @property
    def entity(self) -> str: ...

    @property
    def probes(self) -> tuple[str, ...]:
        """RE2 patterns; where one of them matches nowhere, the rule would find nothing."""

    def find(self, data: bytes, /) -> Iterator[Found]: ...


def compiled(pattern: str, **options: Any) -> Any:
    """A pattern for bytes. Raises re2.error."""
    settings = re2.Options()
    settings.log_errors = False
    for name, value in options.items():
        setattr(settings, name, value)
    return re2.compile(pattern.encode(), settings)


def spans(expression: Any, data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    for match in expression.finditer(data, start, end):
        yield match.span()


@dataclass(frozen=True, slots=True)
class Shape:
    """Something that is told by its shape, then by a check.

    A match that fails the check is looked at again from the word after its first where `again` is set: "12 4111…"
    must not hide the card number in it. Such patterns must be short; others go on after the match.
    """

    entity: str
    pattern: str
    check: Check
    probe: str = ""  # covers the pattern, and is cheaper
    again: bool = False
    located: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "located", compiled(self.pattern))

    @property
    def probes(self) -> tuple[str, ...]:
        return (self.probe or self.pattern,)

    def find(self, data: bytes, /) -> Iterator[Found]:
        position = 0
        while (match := self.located.search(data, position)) is not None:
            start, end = match.span()
            found = self.check(data, start, end)
            if found is not None:
                yield found
            position = (found[1] if found else start + 1) if self.again else end
            position = max(position, start + 1)


@dataclass(frozen=True, slots=True)
class Near:
    """Something that only a word nearby tells from any other number: the value counts `after` or `before` the word.

    A value found carries the word on: under a column's heading the second row counts as the first does. The nearer
    the word, the higher the score.
    """

    entity: str
    word: str
    value: str
    check: Check
    before: int = 0  # bytes from the end of the value to the word
    after: int = 40  # bytes from the word to the start of the value
    words: Any = field(init=False, repr=False, compare=False)
    values: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", compiled(self.word))
        object.__setattr__(self, "values", compiled(self.value))

    @property
    def probes(self) -> tuple[str, ...]:
        return (self.word,)  # values alone are everywhere

    def find(self, data: bytes, /) -> Iterator[Found]:
        done = (
            0  # where the last value ended: no value is looked at by every word before it, or time would not be linear
        )
        for start, end in spans(self.words, data):
            if self.before:
                for low, high in spans(self.values, data, max(done, start - self.before - 64, 0), start):
                    found = self.check(data, low, high) if high >= start - self.before else None
                    if found is not None:
                        done = found[1]
                        yield found[0], found[1], max(found[2] - (start - high) / 500, 0.1)
            position, origin = max(end, done), end
            while (match := self.values.search(data, position, origin + self.after + 64)) is not None:
                low, high = match.span()
                if low > origin + self.after:
                    break
                position = max(high, low + 1)
                found = self.check(data, low, high)
                if found is not None:
                    yield found[0], found[1], max(found[2] - (low - origin) / 500, 0.1)
                    done = origin = found[1]


def whole(score: float) -> Check:
    """The shape alone is enough."""
    return lambda data, start, end: (start, end, score)


def valid(test: Callable[[str], bool], score: float) -> Check:
    """The matched text passes a test."""

    def check(data: bytes, start: int, end: int) -> Found | None:
        return (start, end, score) if test(data[start:end].decode()) else None

    return check


def resolve(entities: Iterable[Entity]) -> list[Entity]:
    """Overlapping findings to one each: the longest, then the surest. In order of place."""
    kept: list[Entity] = []
    together: list[Entity] = []  # what hangs together by overlaps is resolved by itself: mostly it is one
    end = 0
    for one in sorted(set(entities)):
        if together and one.start >= end:
            kept += _resolved(together)
            together = []
        end = max(end, one.end) if together else one.end
        together.append(one)
    return kept + _resolved(together)


def _resolved(entities: list[Entity]) -> list[Entity]:
    if len(entities) < 2:
        return entities
    kept: list[Entity] = []
    for one in sorted(entities, key=lambda e: (e.start - e.end, -e.score, e.start, e.type)):
        i = bisect.bisect_left(kept, one)
        if (i > 0 and kept[i - 1].end > one.start) or (i < len(kept) and kept[i].start < one.end):
            continue
        kept.insert(i, one)
    return kept


def merge(entities: Iterable[Entity]) -> list[Entity]:
    """Overlapping findings to one that covers all of them, with the type of the longest. In order of place."""
    covered: list[Entity] = []
    longest = 0
    for one in sorted(set(entities)):
        if covered and one.start < covered[-1].end:
            last = covered[-1]
            kind, score = (one.type, one.score) if one.end - one.start > longest else (last.type, last.score)
            covered[-1] = Entity(last.start, max(last.end, one.end), kind, score)
            longest = max(longest, one.end - one.start)
        else:
            covered.append(one)
            longest = one.end - one.start
    return covered
