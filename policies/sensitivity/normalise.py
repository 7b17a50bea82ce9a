"""One spelling for the same text, and the way back to where it stood in the original.

Full-width and half-width forms, ligatures and composed characters become one form by Unicode normalisation NFKC
(UAX #15); characters that nobody sees, the default-ignorable ones of the Unicode Character Database
(DerivedCoreProperties.txt: soft hyphen, zero-width space and joiners, direction marks, variation selectors, tags),
are taken out, since they would otherwise hide a number from every pattern.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence

_INVISIBLE_RANGES = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
_INVISIBLE = frozenset(chr(c) for low, high in _INVISIBLE_RANGES for c in range(low, high + 1))

_invisible = re.compile("[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in _INVISIBLE_RANGES) + "]+")

INVISIBLE_PATTERN = "[" + "".join(rf"\x{{{low:X}}}-\x{{{high:X}}}" for low, high in _INVISIBLE_RANGES) + "]"
"""The default-ignorable characters, for RE2."""


_COMMON = re.compile(
    r"[\u00a0\u00b2\u00b3\u00b9\u00bc-\u00be\u2000-\u200a\u2025\u2026\u2122\u2460-\u24ff\u3000\u3200-\u33ff"
    r"\uff01-\uffee]+"
)
"""What is to be changed in everyday text: full-width forms, fixed-width spaces, numbers in circles. (Here and for
invisible characters the standard library's `re` does: one class of characters has nothing to backtrack.)"""


_DASHES = "\u2010\u2011\u2012\u2013\u2212"
_DIGITS = "".join(chr(c) for c in range(0x80, 0x1FFFF) if unicodedata.category(chr(c)) == "Nd")
_VARIANTS = re.compile(f"[{_DASHES}{''.join(c for c in _DIGITS if c <= chr(0xFFFF))}]")
"""Hyphens that word processors make, and the decimal digits of other scripts, which NFKC leaves as they are. Here
those of the basic plane: with one character beyond it the standard library goes through a class range by range, a
hundred times slower."""
_BEYOND = re.compile("[\U00010000-\U0001ffff]")
"""Where the digits of the other planes are, among much else."""
ODD_PATTERN = INVISIBLE_PATTERN[:-1] + _DASHES + _DIGITS + "]"
"""What `normalise` changes and `compose` does not, for RE2."""


_LONGER_RANGES = (
    (0xDF, 0xDF), (0x130, 0x130), (0x149, 0x149), (0x1F0, 0x1F0), (0x390, 0x390), (0x3B0, 0x3B0), (0x587, 0x587),
    (0x1E96, 0x1E9A), (0x1E9E, 0x1E9E), (0x1F50, 0x1F57), (0x1F80, 0x1FFF), (0xFB00, 0xFB17),
)  # fmt: skip
LONGER_PATTERN = "[" + "".join(rf"\x{{{low:X}}}-\x{{{high:X}}}" for low, high in _LONGER_RANGES) + "]"
"""What becomes more than one character without regard to case, such as \u00df, for RE2: its own `(?i)` does not know
that. Between them, Greek letters of which some do."""


def _variant(found: re.Match[str]) -> str:
    char = found[0]
    return "-" if char in _DASHES else str(unicodedata.decimal(char, char))


def compose(text: str) -> str:
    """NFKC: what `normalise` does to text in which ODD_PATTERN is not found."""
    return text if text.isascii() else _compose(text)


def _compose(text: str) -> str:
    if unicodedata.is_normalized("NFKC", text):
        return text
    # The standard library takes 40 µs/KiB for text of which anything changes. Mostly that is a few full-width signs:
    # normalised by themselves they leave text that needs no more, which is quickly told.
    # Nothing composes with the end of a line, so lines are normalised by themselves, too.
    text = _COMMON.sub(_nfkc, text)
    if unicodedata.is_normalized("NFKC", text):
        return text
    return "\n".join([unicodedata.normalize("NFKC", line) for line in text.split("\n")])


def _nfkc(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", found[0])


def normalise(text: str) -> str:
    """NFKC without the characters that nobody sees, and with one hyphen and one set of digits."""
    if text.isascii():
        return text
    return _BEYOND.sub(_variant, _VARIANTS.sub(_variant, _compose(_invisible.sub("", text))))


def fold(text: str) -> str:
    """Normalised text without regard to case."""
    return normalise(text).casefold()


def original_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of `normalise(text)` as spans of `text`, in the order given.

    A span covers the whole of every original character that any part of it comes from.
    """
    if text.isascii() or not spans:
        return list(spans)
    starts = {start: 0 for start, _ in spans}
    ends = {end: 0 for _, end in spans}
    wanted_starts, wanted_ends = sorted(starts), sorted(ends)
    next_start = next_end = at = 0
    for begin, stop, length in _segments(text):
        while next_start < len(wanted_starts) and wanted_starts[next_start] < at + length:
            starts[wanted_starts[next_start]] = begin
            next_start += 1
        while next_end < len(wanted_ends) and wanted_ends[next_end] <= at + length:
            ends[wanted_ends[next_end]] = stop
            next_end += 1
        at += length
        if next_end == len(wanted_ends):
            break
    if next_start < len(wanted_starts) or next_end < len(wanted_ends):
        raise ValueError("a span is outside the text")
    found = []
    for start, end in spans:
        begin, stop = starts[start], ends[end]
        while stop > begin and text[stop - 1] in _INVISIBLE:
            stop -= 1
        while begin < stop and text[begin] in _INVISIBLE:
            begin += 1
        found.append((begin, stop))
    return found


def _segments(text: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, normalised length) of pieces that are normalised each by itself."""
    begin = 0
    for i, char in enumerate(text):
        if i > begin and not _joins(char):
            yield begin, i, _length(text[begin:i])
            begin = i
    if text:
        yield begin, len(text), _length(text[begin:])


def _length(piece: str) -> int:
    return 1 if len(piece) == 1 and piece.isascii() else len(normalise(piece))


@functools.lru_cache(maxsize=65536)
def _joins(char: str) -> bool:
    """Whether a character may change together with the one before it (or is not there at all)."""
    if char.isascii():
        return False
    first = unicodedata.normalize("NFKD", char)[0]
    return char in _INVISIBLE or unicodedata.combining(first) != 0 or first in _second_halves()


@functools.cache
def _second_halves() -> frozenset[str]:
    """Characters that compose with the one before them although they are no combining marks: Hangul vowels and
    finals, and some Indic vowel signs."""
    halves = {chr(c) for c in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for code in (*range(0x00C0, 0x3100), *range(0x11000, 0x12000), *range(0x16000, 0x17000)):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            halves.add(chr(int(parts[1], 16)))
    return frozenset(halves)
