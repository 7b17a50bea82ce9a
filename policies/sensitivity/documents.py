"""Numbers of documents and dates of birth: only a word nearby tells them from other numbers and dates.

Shapes: passports, ICAO Doc 9303 (up to nine characters; Japan two letters and seven digits, United States a letter and
eight digits or nine digits); driving licences, Japan twelve digits, United States by state, United Kingdom sixteen
characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from policies.sensitivity import validators
from policies.sensitivity.rules import Found, Near, Rule, whole

_PASSPORT_WORDS = r"(?i:\bpassports?\b|\breisepass\b|パスポート|旅券)"
_PASSPORT = (
    r"\b(?:[A-Z]{2}[0-9]{7}|[A-Z][0-9]{7,8}|[0-9]{9}|[0-9]{2}[A-Z]{2}[0-9]{5}"
    r"|[CFGHJK][0-9CFGHJKLMNPRTVWXYZ]{8})\b"
)

_LICENCE_WORDS = (
    r"(?i:\bdriver'?s?'? ?licen[cs]es?\b|\bdriving licen[cs]es?\b|\bDL ?(?:#|no\.?|number|:)|\bdriver licen[cs]e\b"
    r"|\blicen[cs]e (?:number|no\.?|#)|\bführerschein|運転免許|免許証)"
)
_LICENCE = r"\b[A-Z0-9]{1,9}(?:[ -][A-Z0-9]{2,8}){0,4}\b|\b[A-Z0-9]{5,18}\b"

_RECORD_WORDS = (
    r"(?i:\bmrn\b|\bmedical[ -]record\b|\bpatient[ -]?(?:id|no\.?|number|identifier)\b"
    r"|\bhealth record\b|\bchart (?:no\.?|number)\b"
    r"|\bnhs (?:no\.?|number)\b|カルテ|診察券|患者番号|患者ID|被保険者番号|保険証番号|病歴番号)"
)
_RECORD = r"\b(?:[A-Za-z]{1,4}[ -]?)?[0-9]{2,10}(?:[ -][0-9]{2,6}){0,3}\b"

_BIRTH_WORDS = (
    r"(?i:\bdate of birth\b|\bbirth ?date\b|\bbirthday\b|\bd\.?o\.?b\b|\bborn\b|\bgeburtsdatum\b|\bgeboren\b"
    r"|生年月日|誕生日|生まれ|出生日)"
)
_MONTH = r"(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_DATE = (
    r"\b(?:(?:18|19|20)[0-9]{2}[-/. ][0-9]{1,2}[-/. ][0-9]{1,2}|[0-9]{1,2}[-/. ][0-9]{1,2}[-/. ](?:18|19|20)?[0-9]{2}"
    rf"|{_MONTH} [0-9]{{1,2}}(?:st|nd|rd|th)?,? (?:18|19|20)[0-9]{{2}}"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th|\.)?(?: of)? {_MONTH},? (?:18|19|20)[0-9]{{2}}"
    r"|(?:18|19|20)[0-9]{6}|[MTSHR][0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{1,2})\b"
    r"|(?:(?:18|19|20)[0-9]{2}|(?:明治|大正|昭和|平成|令和) ?(?:[0-9]{1,2}|元)) ?年 ?[0-9]{1,2} ?月 ?[0-9]{1,2} ?日"
)
_NUMBERS = re.compile(r"\d+")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ERAS = {
    "明治": 1867,
    "大正": 1911,
    "昭和": 1925,
    "平成": 1988,
    "令和": 2018,
    "M": 1867,
    "T": 1911,
    "S": 1925,
    "H": 1988,
    "R": 2018,
}


def _birth(data: bytes, start: int, end: int) -> Found | None:
    return (start, end, 0.85) if a_date(data[start:end].decode()) else None


def a_date(text: str) -> bool:
    """Whether a date in one of the written forms is on the calendar."""
    numbers = [int(n) for n in _NUMBERS.findall(text)]
    era = next((year for name, year in _ERAS.items() if text.startswith(name)), None)
    month = next((i for i, name in enumerate(_MONTHS, 1) if name in text.lower()), None)
    if era is not None and len(numbers) >= 2 and month is None:
        year, rest = (era + 1, numbers) if "元" in text else (era + numbers[0], numbers[1:])
        return len(rest) == 2 and validators.calendar_date(year, *rest)
    if month is not None and len(numbers) == 2:
        return validators.calendar_date(numbers[1], month, numbers[0])
    if len(numbers) == 1:
        whole_date = f"{numbers[0]}"
        return validators.calendar_date(int(whole_date[:4]), int(whole_date[4:6]), int(whole_date[6:]))
    if len(numbers) != 3:
        return False
    first, second, third = numbers
    if first > 31:
        return validators.calendar_date(first, second, third)
    year = third if third > 99 else 1900 + third
    return validators.calendar_date(year, first, second) or validators.calendar_date(year, second, first)


def _licence(data: bytes, start: int, end: int) -> Found | None:
    text = data[start:end]
    digits = sum(48 <= byte <= 57 for byte in text)
    size = sum(byte not in b" -" for byte in text)
    if b" " in text and not text.replace(b" ", b"").isdigit():  # words around it look like groups of it
        return None
    return (start, end, 0.7) if digits >= 5 and 6 <= size <= 18 else None


def _record(data: bytes, start: int, end: int) -> Found | None:
    digits = sum(48 <= byte <= 57 for byte in data[start:end])
    return (start, end, 0.8) if digits >= 5 else None


RULES: Mapping[str, tuple[Rule, ...]] = {
    "PASSPORT": (Near("PASSPORT", _PASSPORT_WORDS, _PASSPORT, whole(0.8), before=12, after=40),),
    "DRIVER_LICENSE": (Near("DRIVER_LICENSE", _LICENCE_WORDS, _LICENCE, _licence, after=40),),
    "DATE_OF_BIRTH": (Near("DATE_OF_BIRTH", _BIRTH_WORDS, _DATE, _birth, before=6, after=32),),
    "MEDICAL_RECORD": (Near("MEDICAL_RECORD", _RECORD_WORDS, _RECORD, _record, after=32),),
}
