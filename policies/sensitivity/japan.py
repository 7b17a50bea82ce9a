"""Japanese identity numbers and addresses.

Sources: the individual number's check digit, ordinance 85 of 2014 of the Ministry of Internal Affairs; postal codes,
Japan Post (seven digits, 3-4); addresses, the Basic Resident Registration's order prefecture, municipality, town,
block, building.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from policies.sensitivity import validators
from policies.sensitivity.rules import Check, Found, Near, Rule, Shape, valid, whole

_DASH = r"[\x{2010}-\x{2015}\x{2212}\x{30FC}-]"

_MY_NUMBER_WORDS = (
    r"(?i:マイナンバー|マイ・ナンバー|個人番号|\bmy ?number\b|\bindividual number\b|\bkojin ?bango\b|\bmynumber\b)"
)
_MY_NUMBER = rf"\b[0-9]{{4}}(?:[ ]|{_DASH})?[0-9]{{4}}(?:[ ]|{_DASH})?[0-9]{{4}}\b"


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


_my_number: Check = valid(lambda text: validators.my_number(_digits(text)), 0.95)

_POSTAL_WORDS = (
    r"(?i:郵便番号|ゆうびん番号|住所|所在地|送付先|お届け先"
    r"|\bpostal code\b|\bpost ?code\b|\bzip(?: ?code)?\b|\baddress\b)"
)
_CODE = rf"\b[0-9]{{3}}{_DASH}[0-9]{{4}}\b"
_MARKED = rf"[〒〶] ?[0-9]{{3}}(?:{_DASH}| )?[0-9]{{4}}\b"


def _marked(data: bytes, start: int, end: int) -> Found:
    digits = start
    while not 48 <= data[digits] <= 57:
        digits += 1
    return digits, end, 0.95


def _code(data: bytes, start: int, end: int) -> Found | None:
    """Not the middle or end of a longer number: 03-123-4567 has a postal code's shape in it."""
    left, right = data[max(start - 2, 0) : start], data[end : end + 2]
    if left[-1:] in (b"-", b"(", b")", b".", b"/") or right[:1] in (b"-", b"/", b"."):
        return None
    return None if left[:1].isdigit() and left[1:] == b" " else (start, end, 0.75)


_PREFECTURE = (
    "(?:北海道|東京都|京都府|大阪府|(?:青森|岩手|宮城|秋田|山形|福島|茨城|栃木|群馬|埼玉|千葉|神奈川|新潟|富山|石川|福井|山梨|長野|岐阜|"
    "静岡|愛知|三重|滋賀|兵庫|奈良|和歌山|鳥取|島根|岡山|広島|山口|徳島|香川|愛媛|高知|福岡|佐賀|長崎|熊本|大分|宮崎|鹿児島|沖縄)県)"
)
_NUMBER = "[0-9一二三四五六七八九十百〇]{1,5}"
_NAME = r"[\p{Han}\p{Hiragana}\p{Katakana}ー々ヶケ]"
_UNIT = rf"(?:丁目|番町|番地?|号|条|の|{_DASH})"
_BLOCK = rf"{_NUMBER}(?:{_UNIT} ?[東西南北]?{_NUMBER}){{0,5}}(?:丁目|番町|番地?|号室?|条)?"
_BUILDING = r"(?: ?[\p{Han}\p{Katakana}ーA-Za-z]{2,20} ?(?:[0-9]{1,2}[F階]|[0-9A-Z]{1,5}号室|[0-9]{3,4}\b))?"
_FULL = rf"{_PREFECTURE} ?{_NAME}{{1,12}}?[市区町村郡] ?{_NAME}{{0,20}}? ?{_BLOCK}{_BUILDING}"
_WITHOUT_PREFECTURE = (
    rf"[\p{{Han}}ヶケ]{{1,6}}[市区] ?{_NAME}{{1,12}}? ?"
    rf"(?:{_NUMBER}丁目 ?{_NUMBER}(?:番地?|{_DASH}) ?(?:{_NUMBER}号?)?"
    rf"|[0-9]{{1,3}}{_DASH}[0-9]{{1,3}}{_DASH}[0-9]{{1,4}}(?:{_DASH}[0-9]{{1,4}})?){_BUILDING}"
)
_PROBE = rf"[市区] ?{_NAME}{{1,12}} ?{_NUMBER}(?:丁目|{_DASH}[0-9])"
_COUNTED = re.compile("\\s?(?:人|名|円|社|年|月|日|時|分|%|件|歳|世帯|億|万|校|ヶ月|か月|位|回|台|店)".encode())


def _address(data: bytes, start: int, end: int) -> Found | None:
    """東京都港区3社 counts firms in a ward."""
    return None if _COUNTED.match(data, end, end + 8) else (start, end, 0.85)


RULES: Mapping[str, tuple[Rule, ...]] = {
    "JP_MY_NUMBER": (
        Near(
            "JP_MY_NUMBER", _MY_NUMBER_WORDS, _MY_NUMBER, _my_number, before=60, after=90,
        ),
    ),
    "JP_POSTAL_CODE": (
        Shape("JP_POSTAL_CODE", _MARKED, _marked, probe="[〒〶] ?[0-9]{3}"),
        Near("JP_POSTAL_CODE", _POSTAL_WORDS, _CODE, _code, after=24),
        Near("JP_POSTAL_CODE", _PREFECTURE, _CODE, _code, before=6, after=0),
    ),
    "JP_ADDRESS": (
        Shape("JP_ADDRESS", _FULL, _address, probe=_PREFECTURE),
        Shape("JP_ADDRESS", _WITHOUT_PREFECTURE, whole(0.6), probe=_PROBE),
    ),
}  # fmt: skip
