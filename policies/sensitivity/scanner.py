"""All detectors of a policy, compiled to one scan.

normalise → one prefilter pass over all texts joined → the rules whose probes matched, on each text → the same for what
escapes and base64 hide → overlaps resolved. Labelling counts types; `find` tells places, for what must be replaced.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from policies.sensitivity.normalise import LONGER_PATTERN, ODD_PATTERN, compose, normalise, original_spans
from policies.sensitivity.prefilter import Blind, Prefilter
from policies.sensitivity.rules import Entity, Rule, merge, resolve
from policies.sensitivity.views import BASE64_PATTERN, ESCAPE_PATTERN, TooMuch, View, decoded, unescaped

SCAN_BYTES = 8 * 1024 * 1024


class Detector(Protocol):
    """Something that looks into texts by itself, beside the scan."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> int:
        """Rank a finding raises the request to."""

    def scan(self, texts: Iterable[str], /) -> Mapping[str, int]:
        """Entities found in all texts together: type -> count. Never the text itself."""


@runtime_checkable
class Locator(Detector, Protocol):
    """One that also tells where, so that what it finds can be masked."""

    def find(self, texts: Sequence[str], /) -> Sequence[Sequence[Entity]]:
        """The entities of each text."""


Combine = Callable[[Iterable[Entity]], list[Entity]]
"""Findings that overlap, made into ones that do not."""
Planned = tuple[Rule, frozenset[str], bool]
"""A rule, its probes, and whether it reads folded text."""
Readings = list[list[Entity]]
"""What one detector found in one text: as it stands, with escapes read, with base64 read."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What one detector of the policy looks for."""

    name: str
    label: int
    rules: tuple[Rule, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one detector found: type -> count; None where it failed."""

    name: str
    label: int
    found: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Part:
    """One detector of a scanner, seen by itself."""

    name: str
    label: int
    scanner: Scanner = field(repr=False)
    index: int = 0

    def scan(self, texts: Iterable[str], /) -> Mapping[str, int]:
        found = self.scanner.outcomes(texts)[self.index].found
        if found is None:
            raise Blind("the scan failed")
        return found


@dataclass(frozen=True, slots=True)
class Scanner(Sequence[Detector]):
    """The detectors of a policy; a sequence of them, but `outcomes` asks all of them in one pass."""

    sets: tuple[RuleSet, ...] = ()
    others: tuple[Detector, ...] = ()
    limit: int = SCAN_BYTES
    clean: tuple[Outcome, ...] = field(init=False, repr=False, compare=False)  # of a scan that finds nothing
    plan: tuple[tuple[Planned, ...], ...] = field(init=False, repr=False, compare=False)  # the rules of each set
    plain: Prefilter = field(init=False, compare=False)
    folded: Prefilter | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        plan = tuple(tuple((r, frozenset(r.probes), _folded(r)) for r in one.rules) for one in self.sets)
        plain = [probe for one in plan for rule, _, folded in one if not folded for probe in rule.probes]
        words = [probe for one in plan for rule, _, folded in one if folded for probe in rule.probes]
        always = (ODD_PATTERN, ESCAPE_PATTERN, BASE64_PATTERN)
        object.__setattr__(self, "plan", plan)
        object.__setattr__(self, "clean", tuple(Outcome(one.name, one.label, {}) for one in self.sets))
        # Words are looked for in folded text. To know that there are none it need not be folded: RE2 sees them without
        # regard to case, but for the few characters that fold to several.
        hints = [f"(?i:{word})" for word in words] + [LONGER_PATTERN] * bool(words)
        object.__setattr__(self, "plain", Prefilter((*always, *plain, *hints)))
        object.__setattr__(self, "folded", Prefilter(words) if words else None)

    def __len__(self) -> int:
        return len(self.sets) + len(self.others)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return tuple(self)[index]

    def __iter__(self) -> Iterator[Detector]:
        for i, one in enumerate(self.sets):
            yield Part(one.name, one.label, self, i)
        yield from self.others

    @property
    def names(self) -> tuple[str, ...]:
        return (*(one.name for one in self.sets), *(one.name for one in self.others))

    @property
    def slow(self) -> bool:
        """Whether a scan may wait for something else than this thread."""
        return bool(self.others)

    def outcomes(self, texts: Iterable[str], ignored: re.Pattern[str] | None = None) -> list[Outcome]:
        """What each detector found in all texts together, in the order of the policy. Places of a text that match
        `ignored` are nothing to those that read words, not characters: placeholders stand for names, and look it."""
        texts = list(texts)
        found = self._outcomes(texts) if self.sets else []
        for detector in self.others:
            try:
                counts = detector.scan(texts) if ignored is None else _beside(detector, texts, ignored)
                found.append(Outcome(detector.name, detector.label, dict(counts)))
            except Exception:  # whatever went wrong in a detector, the answer is the same: it failed
                found.append(Outcome(detector.name, detector.label, None))
        return found

    def find(self, text: str) -> list[Entity]:
        """Every entity in one text, in order of place, overlaps resolved. Raises where the text cannot be scanned."""
        return resolve([*self._find(text, resolve), *self._located([text])[0]])

    def cover(self, texts: Iterable[str]) -> dict[str, list[Entity]]:
        """The places of each text in which anything was found: of findings that overlap the whole, so that no part of
        one is left. In order of place. Raises where a text cannot be scanned."""
        texts = list(dict.fromkeys(texts))
        located = self._located(texts)
        return {text: merge([*self._find(text, merge), *more]) for text, more in zip(texts, located, strict=True)}

    def _located(self, texts: Sequence[str]) -> list[list[Entity]]:
        found: list[list[Entity]] = [[] for _ in texts]
        for detector in self.others:
            if isinstance(detector, Locator):
                for of_text, more in zip(found, detector.find(texts), strict=True):
                    of_text += more
        return found

    def _outcomes(self, texts: list[str]) -> list[Outcome]:
        failed: set[int] = set()
        try:
            each = list(self._each(texts, failed))
        except Exception:  # nobody has seen the text, or not all of it
            return [Outcome(one.name, one.label, None) for one in self.sets]
        if not each and not failed:
            return list(self.clean)
        counts: list[Counter[str]] = [Counter() for _ in self.sets]
        for readings in each:
            for count, found in zip(counts, readings, strict=True):
                count.update(_distinct(found))
        return [Outcome(one.name, one.label, None if i in failed else counts[i]) for i, one in enumerate(self.sets)]

    def _each(self, texts: list[str], failed: set[int]) -> Iterator[list[Readings]]:
        """The findings of each text in which there may be some; places are those of the normalised text."""
        joined = "\n".join(texts)
        self._measure(len(joined))
        data = compose(joined).encode(errors="surrogatepass")
        self._measure(len(data))
        hits = self.plain.hits(data)
        odd = ODD_PATTERN in hits
        if odd:
            joined = normalise(joined)
            data = joined.encode(errors="surrogatepass")
            hits = self.plain.hits(data)
        if not hits:
            return
        for text in texts:
            if len(texts) > 1:
                data = (normalise(text) if odd else compose(text)).encode(errors="surrogatepass")
                hits = self.plain.hits(data)
            yield self._look(data, hits, failed)

    def _measure(self, size: int) -> None:
        if size > self.limit:
            raise TooMuch(f"{size} bytes to scan, {self.limit} allowed")

    def _find(self, text: str, combine: Combine) -> list[Entity]:
        self._measure(len(text))
        normal = normalise(text)
        data = normal.encode(errors="surrogatepass")
        self._measure(len(data))
        failed: set[int] = set()
        found = self._look(data, self.plain.hits(data), failed, combine)
        if failed:
            raise Blind("a detector failed")
        return _places(text, normal, data, [entity for one in found for reading in one for entity in reading])

    def _look(self, data: bytes, hits: frozenset[str], failed: set[int], combine: Combine = resolve) -> list[Readings]:
        """What each detector finds in one text in each way to read it, at places in the normalised text."""
        views = [
            View(data),
            unescaped(data) if ESCAPE_PATTERN in hits else None,
            decoded(data) if BASE64_PATTERN in hits else None,
        ]
        found: list[Readings] = [[[] for _ in views] for _ in self.sets]
        for i, view in enumerate(views):
            if view is not None:
                seen = hits if i == 0 else self.plain.hits(view.data)
                self._read(view, seen, [one[i] for one in found], failed, combine)
        return found

    def _read(
        self, view: View, hits: frozenset[str], found: list[list[Entity]], failed: set[int], combine: Combine
    ) -> None:
        folded = b"" if self.folded is None else _fold(view.data)
        words = frozenset[str]() if self.folded is None else self.folded.hits(folded)
        known: dict[int, list[Entity]] = {}
        for i, rules in enumerate(self.plan):
            entities: list[Entity] = []
            for rule, probes, is_folded in rules:
                if not probes <= (words if is_folded else hits):
                    continue
                try:
                    if id(rule) not in known:
                        known[id(rule)] = list(_entities(rule, view, folded))
                    entities += known[id(rule)]
                except Exception:  # the others still look
                    failed.add(i)
                    break
            kept = combine(entities) if entities else []
            if view.pieces:
                kept = [Entity(*view.origin(e.start, e.end), e.type, e.score) for e in kept]
            found[i] += kept


def _beside(detector: Detector, texts: Sequence[str], ignored: re.Pattern[str]) -> Mapping[str, int]:
    """What a detector counts, without what overlaps a match of `ignored`."""
    if not isinstance(detector, Locator):
        return detector.scan(texts)
    counts: Counter[str] = Counter()
    for text, entities in zip(texts, detector.find(texts), strict=True):
        taken = [match.span() for match in ignored.finditer(text)] if entities else []
        counts.update(e.type for e in entities if not any(e.start < end and start < e.end for start, end in taken))
    return counts


def _distinct(readings: Readings) -> Iterator[str]:
    """The types found, one for each thing: what stands in the text with and without escapes counts once."""
    plain, escaped, hidden = readings
    yield from (entity.type for entity in (*plain, *hidden))
    i = 0
    for entity in escaped:  # both are in order of place
        while i < len(plain) and plain[i].end <= entity.start:
            i += 1
        same = i
        while same < len(plain) and plain[same].start < entity.end and plain[same].type != entity.type:
            same += 1
        if same == len(plain) or plain[same].start >= entity.end:
            yield entity.type


def _folded(rule: Rule) -> bool:
    return bool(getattr(rule, "folded", False))


def _fold(data: bytes) -> bytes:
    return (
        data.lower()
        if data.isascii()
        else data.decode(errors="surrogatepass").casefold().encode(errors="surrogatepass")
    )


def _entities(rule: Rule, view: View, folded: bytes) -> Iterator[Entity]:
    """What a rule finds in one reading, at places in that reading."""
    if not _folded(rule):
        for start, end, score in rule.find(view.data):
            yield Entity(start, end, rule.entity, round(score, 3))
        return
    found = list(rule.find(folded))
    if found and folded != view.data and not view.data.isascii():
        places = _unfold(view.data.decode(errors="surrogatepass"), sorted({p for a, b, _ in found for p in (a, b)}))
        found = [(places[start], places[end], score) for start, end, score in found]
    for start, end, score in found:
        yield Entity(start, end, rule.entity, score)


def _unfold(text: str, wanted: Sequence[int]) -> dict[int, int]:
    """Bytes of the folded text to bytes of the text."""
    places: dict[int, int] = {}
    here = there = i = 0
    for char in text:
        while i < len(wanted) and wanted[i] <= there:
            places[wanted[i]] = here
            i += 1
        there += len(char.casefold().encode(errors="surrogatepass"))
        here += len(char.encode(errors="surrogatepass"))
    for position in wanted[i:]:
        places[position] = here
    return places


def _places(text: str, normal: str, data: bytes, found: list[Entity]) -> list[Entity]:
    """Bytes of the normalised text to characters of the original."""
    if text.isascii():
        return found
    characters: dict[int, int] = {}
    done = count = 0
    for position in sorted({p for entity in found for p in (entity.start, entity.end)}):
        count += len(data[done:position].decode(errors="surrogatepass"))
        done = position
        characters[position] = count
    moved = [(characters[e.start], characters[e.end]) for e in found]
    if normal != text:
        moved = original_spans(text, moved)
    return [Entity(start, end, e.type, e.score) for (start, end), e in zip(moved, found, strict=True)]
