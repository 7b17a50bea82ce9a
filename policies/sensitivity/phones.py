"""Phone numbers, by the numbering plans of the phonenumbers library (ITU-T E.164 and national plans).

The plans are taken out of the library once and asked through RE2, a hundred times faster than parsing each
candidate. Three forms count: international (+81 …, 001 …) of every country; national, with its separators, of the
regions the policy names; and, beside a word such as "phone" or 電話, anything of a phone number's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from policies.sensitivity.numbering import international, national, possible
from policies.sensitivity.rules import Found, compiled

REGIONS = ("JP", "US", "GB", "DE")

_DASH = r"\x{2010}-\x{2015}\x{2212}\x{30FC}-"
_PROBE = rf"[0-9](?:[ ./(){_DASH}]{{0,3}}[0-9]){{6}}"
_CANDIDATE = rf"(?:\+ ?\(?|\(\+?)?[0-9](?:[ ./(){_DASH}]{{0,3}}[0-9]){{6,24}}\)?"
_PY_GAP = r"[ ./\u2010-\u2015\u2212\u30fc-]"
_FORM = re.compile(
    r"(?:\+ ?|\(\+)?\(?\d{1,15}"
    rf"(?:(?:{_PY_GAP}{{0,2}}\(|\){_PY_GAP}{{0,2}}|{_PY_GAP}|{_PY_GAP}{{3}})\d{{1,14}}){{0,7}}\)?$"
)
_EXTENSION = re.compile(rb"(?i:[ ,]{0,2}(?:x|ext\.?|extension|#)[ :]?)[0-9]{1,6}\b")
_WORDS = (
    r"(?i:\b(?:tele)?phones?\b|\btel\b|\bmobile\b|\bcell(?:phone|ular)?\b|\bcall(?:ed|ing)?\b|\bfax\b|\bdial(?:ling)?\b"
    r"|\bhotline\b|\bsms\b|\bwhatsapp\b|\breach(?:ed|able)?\b|\banswering\b|\bcontact\b|\blandline\b|\boffice\b|\bdesk\b"
    r"|\bhandy\b|\btelefon(?:nummer)?\b|\bt[eé]l[eé]phone\b|電話|携帯|スマホ|ファックス|ファクス|連絡先|内線)"
)
_AFTER = re.compile(
    rb"\s?[-(,:]?\s?(?i:office|home|work|fax|mobile|cell|desk|tel|phone|direct|main)\b|\s?\(?(?:\xe6\x90\xba\xe5\xb8\xaf|\xe9\x9b\xbb\xe8\xa9\xb1)"
)
_BEFORE_BYTES = 40
_DATE = re.compile(r"(?:(?:19|20)\d\d([-./])\d{1,2}\1\d{1,2}|\d{1,2}([-./])\d{1,2}\2(?:\d{4}|\d{2}))(?: \d{1,2})?$")
_SEPARATORS = " ./()+-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc".encode()  # its bytes are in no digit
_AMERICAN = re.compile(rb"(?:1[ .-]?)?\(?[2-9][0-9]{2}\)?[ .-]{0,2}[2-9][0-9]{2}[ .-]?[0-9]{4}(?![0-9])")
_BEGINS = re.compile(rb"\+[1-9(]|(?<![0-9])\(?0[0-9]|(?<![0-9])" + _AMERICAN.pattern)
"""Where in a row of numbers a phone number may begin."""
_GROUP_BEFORE = re.compile(rb"[0-9] ")  # the last groups of a row, such as an IBAN's, are no number by themselves
_STATE = re.compile(rb"\b[A-Z]{2}[,.]?[\s#*/;]{1,9}$")
_NANP = re.compile(r"1?[2-9]\d\d[2-9]\d{6}$")
_YEARS = re.compile(r"(?:19|20)\d\d\D(?:19|20)\d\d$")
_GROUP = re.compile(rb"[0-9]+")
_NO_DIGIT = re.compile(r"\D")
_MOBILE = ("070", "080", "090", "073", "074", "075", "077", "078", "079")
"""Mobile numbers of Japan and the United Kingdom, which people write without gaps."""


@dataclass(frozen=True, slots=True)
class Phone:
    """PHONE_NUMBER."""

    regions: tuple[str, ...] = REGIONS
    entity: str = "PHONE_NUMBER"
    probes: tuple[str, ...] = (_PROBE,)
    candidates: Any = field(init=False, repr=False, compare=False)
    words: Any = field(init=False, repr=False, compare=False)
    international: Any = field(init=False, repr=False, compare=False)
    national: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidates", compiled(_CANDIDATE))
        object.__setattr__(self, "words", compiled(_WORDS))
        object.__setattr__(self, "international", international())
        object.__setattr__(self, "national", national(self.regions))

    def find(self, data: bytes, /) -> Iterator[Found]:
        position = last = 0
        while (match := self.candidates.search(data, position)) is not None:
            start, end = match.span()
            position = end
            if start and (data[start - 1 : start].isalnum() or data[start - 1] in b"_&%#@"):
                position = self._next(data, start, end)
                continue
            unbalanced = data.count(b")", start, end) - data.count(b"(", start, end)
            if unbalanced > 0 and data[end - 1 : end] == b")":
                end -= 1
            elif unbalanced < 0 and data[start : start + 1] == b"(":
                start += 1
            within = (
                start - last > 2 and data[start] not in b"+(" and _GROUP_BEFORE.match(data, max(start - 2, 0), start)
            )
            for stop in self._stops(data, start, end):
                score = 0.0 if within and b" " in data[start:stop] else self._score(data, start, stop)
                if score:
                    extension = _EXTENSION.match(data, stop, stop + 16)
                    yield start, (extension.end() if extension else stop), score
                    position = last = max(stop, start + 1)
                    break
            else:
                position = self._next(data, start, end)

    def _stops(self, data: bytes, start: int, end: int) -> Iterator[int]:
        """Where a candidate may end: at its end, or, of several numbers in a row, after a group of it."""
        digits = len(data[start:end].translate(None, _SEPARATORS))
        if digits <= 17:
            yield end
        if digits <= 11:
            return
        if data[start] in b"+(0":
            tries = 0
            for i in range(end - 1, start + 6, -1):
                if 48 <= data[i] <= 57:
                    digits -= 1
                    if digits <= 15 and not 48 <= data[i - 1] <= 57 and (stop := _digit_before(data, i)) > start + 6:
                        yield stop
                        tries += 1
                        if tries == 4:
                            return
        elif (american := _AMERICAN.match(data, start, end)) is not None:
            yield american.end()

    def _next(self, data: bytes, start: int, end: int) -> int:
        """Where to go on after a candidate that was none: where in it the next number may begin, or after it."""
        if end - start < 14:
            return end
        following = _BEGINS.search(data, start + 1, end)
        return following.start() if following is not None else end

    def _score(self, data: bytes, start: int, end: int) -> float:
        part = data[start:end]
        digits = part.translate(None, _SEPARATORS).decode()
        abroad = part[0] == 43 or digits.startswith("00") or part.startswith(b"(+")
        if not 7 <= len(digits) <= (17 if abroad else 13) or digits.count(digits[0]) == len(digits):
            return 0.0
        text = part.decode()
        if _FORM.match(text) is None or (text.startswith("+ ") and text[2:].isdigit()):  # … + 13305118750: a sum
            return 0.0
        if data[end : end + 1].isalnum() and not _EXTENSION.match(data, end, end + 16):
            return 0.0
        if abroad:
            return self._score_international(text, digits)
        groups = [len(group) for group in _GROUP.findall(part)]
        if _looks_otherwise(text, groups, data, start, end):
            return 0.0
        grouped = len(text) > len(digits)
        mobile = len(digits) == 11 and digits.startswith(_MOBILE)
        if (grouped or mobile) and _shaped(groups, digits):
            if self.national.fullmatch(digits.encode()):
                return 0.7
            if grouped and "US" in self.regions and _NANP.match(digits):
                return 0.5  # the form without an area code that is in use, such as 555
        if (grouped or 9 <= len(digits) <= 12) and self._beside_word(data, start, end):
            return 0.6
        return 0.0

    def _score_international(self, text: str, digits: str) -> float:
        plus = "+" in text[:2]
        number = _without_trunk(text, digits if plus else digits[2:])
        if self.international.fullmatch(number.encode()):
            return 0.9 if plus else 0.6
        if possible(number) and (plus or len(text) > len(digits)):
            return 0.6 if plus else 0.5
        return 0.0

    def _beside_word(self, data: bytes, start: int, end: int) -> bool:
        line = max(start - _BEFORE_BYTES, 0)
        return _AFTER.match(data, end, end + 24) is not None or self.words.search(data, line, start) is not None


def _digit_before(data: bytes, position: int) -> int:
    """The end of the last group of digits before a position."""
    while position > 0 and not 48 <= data[position - 1] <= 57:
        position -= 1
    return position


def _without_trunk(text: str, digits: str) -> str:
    """+44 (0)20 … is dialled without the 0 in parentheses."""
    at = text.find("(0)")
    if at < 0:
        return digits
    zero = sum(char.isdigit() for char in text[at:])
    return digits[:-zero] + digits[-zero:][1:]


def _shaped(groups: list[int], digits: str) -> bool:
    """Grouped as people group phone numbers: the last group has three or four digits or all have two or more."""
    if len(groups) == 1:
        return True
    if len(digits) == 10 and digits[0] != "0":
        return groups in ([3, 3, 4], [3, 7], [6, 4])
    if len(digits) == 11 and digits[0] == "1":
        return groups in ([1, 3, 3, 4], [1, 10], [4, 3, 4])
    return min(groups[1:]) >= 2


def _looks_otherwise(text: str, groups: list[int], data: bytes, start: int, end: int) -> bool:
    """Dates, spans of years, IP addresses, decimals and the like."""
    if len(groups) > 1:
        if _DATE.match(text) or _YEARS.match(text):
            return True
        separators = set(_NO_DIGIT.findall(text))
        if separators == {"."}:
            if len(groups) == 2 or 1 in groups[1:]:
                return True
            if len(groups) == 4 and all(len(g) <= 3 and int(g) <= 255 for g in text.split(".")):
                return True
        if groups == [5, 4] and _STATE.search(data, max(start - 12, 0), start):  # MA 02110-1301
            return True
        if groups == [3, 2, 4] and len(separators) == 1:  # the form of a US social security number
            return True
    if data[end : end + 1] == b"-" and _AFTER.match(data, end, end + 24):
        return False
    return data[end : end + 1] in (b":", b"-", b"_") and data[end + 1 : end + 2].isalnum()
