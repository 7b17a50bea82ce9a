"""Phone numbers, by the numbering plans of the phonenumbers library (ITU-T E.164 and national plans).

The plans are taken out of the library once and asked through RE2, a hundred times faster than parsing each
candidate. Three forms count: international (+81 …, 001 …) of every country; national, with its separators, of the
regions the policy names; and, beside a word such as "phone" or 電話, anything of a phone number's length.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import phonenumbers
from phonenumbers import PhoneMetadata

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
_NANP = re.compile(r"1?[2-9]\d\d[2-9]\d{6}$")
_YEARS = re.compile(r"(?:19|20)\d\d\D(?:19|20)\d\d$")
_MOBILE = ("070", "080", "090", "073", "074", "075", "077", "078", "079")
"""Mobile numbers of Japan and the United Kingdom, which people write without gaps."""
_TYPES = ("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "voip", "personal_number", "uan")


def _patterns(metadata: Any) -> list[str]:
    found = []
    for kind in _TYPES:
        description = getattr(metadata, kind, None)
        pattern = description.national_number_pattern if description is not None else None
        if pattern and pattern != "NA":
            found.append(pattern)
    return found


@functools.cache
def _international() -> Any:
    """Every country's numbers after its calling code, as one expression."""
    arms = []
    for code, regions in sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()):
        patterns: list[str] = []
        for region in regions:
            metadata = (
                PhoneMetadata.metadata_for_nongeo_region(code)
                if region == "001"
                else PhoneMetadata.metadata_for_region(region)
            )
            patterns += _patterns(metadata) if metadata is not None else []
        if patterns:
            arms.append(f"{code}(?:{'|'.join(dict.fromkeys(patterns))})")
    return compiled("|".join(arms), never_capture=True, max_mem=64 << 20)


@functools.cache
def _lengths() -> dict[str, frozenset[int]]:
    """Calling code -> lengths of the numbers after it."""
    found = {}
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, regions[0])
        if metadata is not None and metadata.general_desc is not None:
            found[str(code)] = frozenset(metadata.general_desc.possible_length or ())
    return found


@functools.cache
def _national(regions: Sequence[str]) -> Any:
    """The national form of each region: trunk prefix, where it has one that is always dialled, and number."""
    arms = []
    for region in regions:
        metadata = PhoneMetadata.metadata_for_region(region)
        if metadata is None:
            raise ValueError(f"no numbering plan for region '{region}'")
        prefix = metadata.national_prefix or ""
        optional = "?" if prefix and metadata.country_code in (1, 7) else ""
        patterns = "|".join(dict.fromkeys(_patterns(metadata)))
        arms.append(f"(?:{prefix}){optional}(?:{patterns})")
    return compiled("|".join(arms), never_capture=True, max_mem=32 << 20)


def known_region(region: str) -> bool:
    return region in phonenumbers.SUPPORTED_REGIONS


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
        object.__setattr__(self, "international", _international())
        object.__setattr__(self, "national", _national(self.regions))

    def find(self, data: bytes, /) -> Iterator[Found]:
        position = 0
        while (match := self.candidates.search(data, position)) is not None:
            start, end = match.span()
            position = end
            if start and (data[start - 1 : start].isalnum() or data[start - 1] in b"_&%#@"):
                continue
            unbalanced = data.count(b")", start, end) - data.count(b"(", start, end)
            if unbalanced > 0 and data[end - 1 : end] == b")":
                end -= 1
            elif unbalanced < 0 and data[start : start + 1] == b"(":
                start += 1
            for stop in _stops(data, start, end):
                score = self._score(data, start, stop)
                if score:
                    extension = _EXTENSION.match(data, stop, stop + 16)
                    yield start, (extension.end() if extension else stop), score
                    position = max(stop, start + 1)
                    break
            else:
                if end - start > 13:  # several numbers in a row: the next may begin at the next group
                    position = _next_group(data, start, end)

    def _score(self, data: bytes, start: int, end: int) -> float:
        text = data[start:end].decode()
        digits = "".join(char for char in text if char.isdigit())
        if not 7 <= len(digits) <= 17 or len(set(digits)) == 1 or _FORM.match(text) is None:
            return 0.0
        after = data[end : end + 1]
        if after.isalnum() and not _EXTENSION.match(data, end, end + 16):
            return 0.0
        plus = "+" in text[:2]
        if plus or digits.startswith("00"):
            number = digits.lstrip("0") if plus else digits[2:].lstrip("1") if digits.startswith("0011") else digits[2:]
            number = _without_trunk(text, number)
            if self.international.fullmatch(number.encode()):
                return 0.9 if plus else 0.6
            if _possible(number) and (plus or any(not char.isdigit() for char in text)):
                return 0.6 if plus else 0.5
            return 0.0
        if len(digits) > 13 or _looks_otherwise(text, data, start, end):
            return 0.0
        grouped = any(not char.isdigit() for char in text)
        mobile = len(digits) == 11 and digits.startswith(
            ("070", "080", "090", "077", "078", "079", "075", "074", "073")
        )
        if (grouped or mobile) and self.national.fullmatch(digits.encode()) and _shaped(text, digits):
            return 0.7
        if grouped and "US" in self.regions and _NANP.match(digits) and _shaped(text, digits):
            return 0.5  # the form without an area code that is in use, such as 555
        if self._beside_word(data, start, end):
            return 0.6 if grouped or 9 <= len(digits) <= 12 else 0.0
        return 0.0

    def _beside_word(self, data: bytes, start: int, end: int) -> bool:
        line = max(start - _BEFORE_BYTES, 0)
        return _AFTER.match(data, end, end + 24) is not None or self.words.search(data, line, start) is not None


def _stops(data: bytes, start: int, end: int) -> Iterable[int]:
    """Where a candidate may end: at its end, or, of a long one, after one of its groups, the longest first."""
    yield end
    tries = 0
    text = data[start:end]
    if sum(48 <= byte <= 57 for byte in text) <= 11:
        return
    for i in range(len(text) - 1, 8, -1):
        if 48 <= text[i - 1] <= 57 and not 48 <= text[i] <= 57:
            yield start + i
            tries += 1
            if tries == 4:
                return


def _next_group(data: bytes, start: int, end: int) -> int:
    i = start + 1
    while i < end and 48 <= data[i] <= 57:
        i += 1
    while i < end and not 48 <= data[i] <= 57:
        i += 1
    return i


def _without_trunk(text: str, digits: str) -> str:
    """+44 (0)20 … is dialled without the 0 in parentheses."""
    at = text.find("(0)")
    if at < 0:
        return digits
    before = sum(char.isdigit() for char in text[:at])
    return digits[:before] + digits[before + 1 :]


def _possible(number: str) -> bool:
    lengths = _lengths()
    for size in (1, 2, 3):
        if number[:size] in lengths:
            return len(number) >= 8 and len(number) - size in lengths[number[:size]]
    return False


def _shaped(text: str, digits: str) -> bool:
    """Grouped as people group phone numbers: the last group has three or four digits or all have two or more."""
    groups = re.findall(r"\d+", text)
    if len(groups) == 1:
        return True
    if len(digits) == 10 and digits[0] != "0":
        return [len(group) for group in groups] in ([3, 3, 4], [3, 7], [6, 4])
    if len(digits) == 11 and digits[0] == "1":
        return [len(group) for group in groups] in ([1, 3, 3, 4], [1, 10], [4, 3, 4])
    return all(len(group) >= 2 for group in groups[1:])


def _looks_otherwise(text: str, data: bytes, start: int, end: int) -> bool:
    """Dates, spans of years, IP addresses, decimals and the like."""
    if _DATE.match(text) or _YEARS.match(text):
        return True
    groups = re.findall(r"\d+", text)
    separators = set(re.findall(r"[^\d]", text))
    if separators == {"."} and len(groups) == 4 and all(len(g) <= 3 and int(g) <= 255 for g in groups):
        return True
    if separators == {"."} and len(groups) == 2:
        return True
    if [len(g) for g in groups] == [3, 2, 4] and len(separators) == 1:  # the form of a US social security number
        return True
    if data[end : end + 1] == b"-" and _AFTER.match(data, end, end + 24):
        return False
    return data[end : end + 1] in (b":", b"-", b"_") and data[end + 1 : end + 2].isalnum()
