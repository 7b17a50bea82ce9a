"""What tells a number that means something from any other: check digits, issuers, ranges, calendars.

Each takes the text of one match and nothing else; none is asked before a pattern has matched.
"""

from __future__ import annotations

import datetime
import ipaddress
import math
from collections import Counter

from stdnum import iban as stdnum_iban

_ISSUERS: tuple[tuple[int, int, frozenset[int], bool], ...] = tuple(
    (low, high, frozenset(lengths), sure)
    for low, high, lengths, sure in (
        (4, 4, (16, 19), True),  # Visa
        (4, 4, (13, 18), False),
        (51, 55, (16,), True), (2221, 2720, (16,), True),  # Mastercard
        (34, 34, (15,), True), (37, 37, (15,), True),  # American Express
        (300, 305, (14, 16, 17, 18, 19), True), (3095, 3095, (14, 16), True), (36, 36, (14, 16), True),
        (38, 39, (14, 16), True),  # Diners Club
        (3528, 3589, (16, 17, 18, 19), True), (35, 35, (16,), True),
        (1800, 1800, (15,), True), (2131, 2131, (15,), True),  # JCB
        (6011, 6011, (16, 19), True), (644, 649, (16, 19), True), (65, 65, (16, 19), True),  # Discover, RuPay
        (62, 62, (16, 17, 18, 19), True), (81, 82, (16, 19), False),  # UnionPay, RuPay
        (2200, 2204, (16, 17, 18, 19), True), (60, 60, (16,), True), (9792, 9792, (16,), True),  # Mir, RuPay, Troy
        (50, 50, (16, 18, 19), True), (56, 58, (16, 18, 19), True), (63, 63, (16, 18, 19), True),
        (67, 67, (16, 18, 19), True),  # Maestro, Verve, Elo
        (50, 50, (12, 13, 14, 15), False), (56, 58, (12, 13, 14, 15), False), (60, 69, (12, 13, 14, 15), False),
    )
)  # fmt: skip
"""First digits (from, to), lengths, and whether these are rare enough to stand without a word like "card" nearby.

Sources: ISO/IEC 7812-1, and the ranges the card networks publish for merchants."""


_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: the last digit checks the others."""
    reverse = digits.encode()[::-1]
    return (sum(reverse[::2]) + sum(reverse[1::2].translate(_DOUBLED)) - 48 * len(reverse)) % 10 == 0


def card(digits: str) -> bool | None:
    """True: a payment card number; False: one only where a word says so; None: none."""
    if not 12 <= len(digits) <= 19 or digits.count(digits[0]) == len(digits) or not luhn(digits):
        return None
    verdict = False if len(digits) > 12 else None  # issuers get new ranges: beside "card", Luhn's digit is enough
    for low, high, lengths, sure in _ISSUERS:
        if len(digits) in lengths and low <= int(digits[: len(str(low))]) <= high:
            if sure:
                return True
            verdict = False
    return verdict


stdnum_iban.is_valid("GB82WEST12345698765432")  # reads the library's table of countries now, not during a scan


_IBAN_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
IBAN_LENGTHS = {country: length for length, countries in _IBAN_COUNTRIES.items() for country in countries.split()}
"""Country -> length of its account numbers (SWIFT, IBAN Registry)."""


def iban(text: str) -> bool:
    """ISO 13616: the country's length and structure, and the check digits modulo 97."""
    text = text.upper()
    if len(text) != IBAN_LENGTHS.get(text[:2]) or int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 != 1:
        return False
    return bool(stdnum_iban.is_valid(text, check_country=False))


def ssn(digits: str) -> bool:
    """Numbers the Social Security Administration gives out: no area 000, 666 or 9xx, no group 00, no serial 0000
    ("Social Security Number Randomization", SSA), and none of the two that were printed in advertisements."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return not (
        area in ("000", "666")
        or area[0] == "9"
        or group == "00"
        or serial == "0000"
        or digits in ("078051120", "219099999", "123456789")
        or len(set(digits)) == 1
    )


def my_number(digits: str) -> bool:
    """The check digit of the individual number (Ministry of Internal Affairs, ordinance 85 of 2014, article 5)."""
    if len(digits) != 12 or len(set(digits)) == 1:
        return False
    total = sum(int(d) * (n + 1 if n <= 6 else n - 5) for n, d in enumerate(reversed(digits[:11]), start=1))
    rest = total % 11
    return int(digits[11]) == (0 if rest <= 1 else 11 - rest)


def ipv4(text: str) -> bool:
    """An address of a machine: no netmask, no "any", nothing of this machine itself."""
    parts = text.split(".")
    if any(len(part) > 1 and part[0] == "0" for part in parts) or any(int(part) > 255 for part in parts):
        return False
    return parts[0] not in ("0", "127", "255")


def ipv6(text: str) -> bool:
    """All eight groups, or a first group that is in use; with a digit in it. `::1` and what programs write as `a::b`
    are none."""
    if text.count(":") < 2 or not any(char.isdigit() for char in text):
        return False
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    if address.ipv4_mapped is not None:
        return ipv4(str(address.ipv4_mapped))
    if text.count(":") == 7 and "::" not in text:  # all eight groups: nothing else looks like that
        return True
    first = int(address) >> 112
    return 0x2000 <= first <= 0x3FFF or 0xFC00 <= first <= 0xFDFF or 0xFE80 <= first <= 0xFEBF or first == 0x64


def mac(text: str) -> bool:
    """IEEE 802 address, neither all zeros nor broadcast, with one kind of separator."""
    digits = "".join(char for char in text if char.isalnum()).lower()
    return len({char for char in text if not char.isalnum()}) == 1 and len(set(digits)) > 1


def calendar_date(year: int, month: int, day: int) -> bool:
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return 1880 <= year <= 2100


def entropy(text: str) -> float:
    """Bits per character, by the text's own frequencies (Shannon)."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values()) if text else 0.0
