"""Pseudonymisation: entities out, placeholders in, and back again in the answer.

One map per request, one-to-one: the same value of the same type always has the same placeholder, another value another
one, so that a model can still tell people apart. A placeholder is `[TYPE_N]`: capitals, digits and brackets, which
models copy as they stand, and which no JSON or SSE encoding changes. Text that already looks like one is replaced
itself, and so comes back as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import re2

from policies.sensitivity.normalise import fold

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]{0,40}_[0-9]{1,6}\]")
_BEGINNING = re.compile(r"\[(?:[A-Z][A-Z0-9_]{0,47})?\Z")
"""An end of text that could begin one: there is one `[` in a placeholder, and it comes first."""
_LOOK_ALIKE = "TEXT"
"""The type of what is no entity and only looks like a placeholder."""
MAX_VALUES = 2000
"""Most values of one request to look for copies of; with more it is not masked."""
NOT_MASKABLE = frozenset({"KEYWORD"})
"""Types that say something about the whole text: with the word gone, the text is what it was."""


class Remains(Exception):
    """A value that was found is left in a place where it cannot be replaced. Says nothing of it."""


class Span(Protocol):
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def type(self) -> str: ...


Finder = Callable[[str], Iterable[Span]]
"""The entities in one text, in order of place and without overlaps. Raises where it cannot be scanned."""


@dataclass(slots=True)
class Pseudonyms:
    """The map of one request. Never logged, never shared: its repr shows counts only."""

    values: dict[str, str] = field(default_factory=dict, repr=False)  # placeholder -> what it stands for
    _given: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)
    _counts: dict[str, int] = field(default_factory=dict)

    def placeholder(self, kind: str, value: str) -> str:
        known = self._given.get((kind, value))
        if known is None:
            number = self._counts[kind] = self._counts.get(kind, 0) + 1
            known = self._given[kind, value] = f"[{kind}_{number}]"
            self.values[known] = value
        return known

    def mask(self, text: str, find: Finder) -> str:
        """The text with its entities replaced, and with what looks like a placeholder replaced as well."""
        spans = [(s.start, s.end, s.type) for s in find(text) if s.type not in NOT_MASKABLE]
        spans += [(match.start(), match.end(), _LOOK_ALIKE) for match in PLACEHOLDER.finditer(text)]
        if not spans:
            return text
        parts: list[str] = []
        done = 0
        for start, end, kind in sorted(spans):
            if start < done:  # what overlaps is already gone
                start = done
            if start < end:
                parts += [text[done:start], self.placeholder(kind, text[start:end])]
                done = end
        return "".join((*parts, text[done:]))


def mask_strings(value: Any, pseudonyms: Pseudonyms, find: Finder, keep: frozenset[str] = frozenset()) -> Any:
    """Decoded JSON with every string value masked. Keys stay, and so do the values of the top-level keys in `keep`;
    whoever relies on the result scans it again."""
    if isinstance(value, dict):
        return {k: v if k in keep else mask_strings(v, pseudonyms, find) for k, v in value.items()}
    if isinstance(value, list):
        return [mask_strings(one, pseudonyms, find) for one in value]
    return pseudonyms.mask(value, find) if isinstance(value, str) else value


def strings_of(value: Any) -> Iterator[str]:
    """Every string value in decoded JSON: what `mask_strings` masks."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from strings_of(one)
    elif isinstance(value, str):
        yield value


def mask_copies(value: Any, pseudonyms: Pseudonyms, keep: frozenset[str] = frozenset()) -> Any:
    """Decoded JSON that `mask_strings` has masked, with every further copy of what was found replaced as well: a value
    that only the word beside it gave away stands elsewhere without that word. Raises Remains where a copy is left that
    cannot be replaced."""
    values = {v: p for p, v in pseudonyms.values.items() if not PLACEHOLDER.fullmatch(v)}
    if not values:
        return value
    if len(values) > MAX_VALUES:
        raise Remains
    alternatives = "|".join(re2.escape(one) for one in sorted(values, key=len, reverse=True))
    copies = re2.compile(alternatives)
    others = re2.compile("|".join(re2.escape(fold(one)) for one in values))

    def swept(text: str) -> str:
        parts, done = [], 0
        for match in PLACEHOLDER.finditer(text):  # our own: a value may look like a part of one
            parts += [copies.sub(lambda found: values[found[0]], text[done : match.start()]), match[0]]
            done = match.end()
        parts.append(copies.sub(lambda found: values[found[0]], text[done:]))
        if others.search(fold(PLACEHOLDER.sub(" ", "".join(parts)))):
            raise Remains
        return "".join(parts)

    def sweep(one: Any, skip: frozenset[str] = frozenset()) -> Any:
        if isinstance(one, dict):
            for key in one:
                if others.search(fold(key)):
                    raise Remains
            return {k: v if k in skip else sweep(v) for k, v in one.items()}
        if isinstance(one, list):
            return [sweep(item) for item in one]
        if isinstance(one, str):
            return swept(one)
        if isinstance(one, int | float) and others.search(str(one)):
            raise Remains
        return one

    return sweep(value, keep)


def quoted(value: str) -> str:
    """As it stands between the quotes of a JSON string."""
    return json.dumps(value, ensure_ascii=False)[1:-1]


@dataclass(slots=True)
class Restorer:
    """Puts values back into text that arrives in pieces. What comes out, joined, is the same however it was cut; only
    the longest end that could begin a placeholder is held back."""

    pseudonyms: Pseudonyms
    in_json: bool = False  # whether the text is itself JSON, as the arguments of a tool call are
    unrestored: int = 0  # what looked like a placeholder and is none of ours
    _held: str = field(default="", repr=False)

    def feed(self, piece: str) -> str:
        text = self._held + piece
        beginning = _BEGINNING.search(text)
        cut = beginning.start() if beginning else len(text)
        self._held = text[cut:]
        return self._restore(text[:cut])

    def flush(self) -> str:
        """The end: what was held back cannot become a placeholder any more."""
        held, self._held = self._held, ""
        return self._restore(held)

    def whole(self, text: str) -> str:
        return self.feed(text) + self.flush()

    def _restore(self, text: str) -> str:
        if "[" not in text:
            return text
        return PLACEHOLDER.sub(self._value, text)

    def _value(self, match: re.Match[str]) -> str:
        value = self.pseudonyms.values.get(match[0])
        if value is None:
            self.unrestored += 1
            return match[0]
        return quoted(value) if self.in_json else value
