"""Personal data that is told by its shape: addresses, accounts, cards, identity numbers.

`RULES` holds one or more rules for each type; `DEFAULT` is what `{use: pii}` looks for where it names no types.
URL is left out of the default: a public web address is no personal data, and nearly every long prompt has one;
what is personal in one (an e-mail address, a password) is found by itself. MAC_ADDRESS and IP_ADDRESS are in it:
both identify a person's device (GDPR recital 30; CJEU C-582/14, Breyer), and addresses that identify nobody
(this machine, netmasks, "any") are not counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from policies.sensitivity import documents, japan, validators
from policies.sensitivity.phones import Phone
from policies.sensitivity.rules import Found, Near, Rule, Shape, valid

_FILES = frozenset(
    {
        "png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "ico", "bmp", "css", "js", "mjs", "ts", "tsx", "jsx",
        "json", "html", "htm", "xml", "yaml", "yml", "toml", "md", "txt", "csv", "tsv", "pdf", "doc", "docx", "xls",
        "xlsx", "ppt", "pptx", "zip", "gz", "tar", "mp3", "mp4", "mov", "wav", "py", "pyc", "rb", "rs", "go", "java",
        "class", "cpp", "hpp", "exe", "dll", "so", "log",
    }
)  # fmt: skip
"""Endings that are files, not domains: icon@2x.png is no mailbox."""

# RFC 5321 and 5322, as mailboxes are really written: dot-atoms, also with the dots in odd places that Japanese
# mobile carriers once allowed; domains may be internationalised (RFC 5890) with an ASCII top level.
_LOCAL = r"[A-Za-z0-9_.+%'/=!#$&*?^`{|}~-]"
_EMAIL = (
    rf"{_LOCAL}+@(?:[0-9A-Za-z](?:[0-9A-Za-z-]*\.)+(?:xn--[0-9A-Za-z-]{{2,59}}|[A-Za-z]{{2,24}})\b"
    r"|[0-9A-Za-z\pL](?:[0-9A-Za-z\pL-]*\.)+[A-Za-z]{2,24}\b)"
)


def _email(data: bytes, start: int, end: int) -> Found | None:
    at = data.index(b"@", start)
    while start < at and data[start] in b".'/=!#$&*?^`{|}~-%+":  # quotes and the like around the address
        start += 1
    local, top = data[start:at], data[data.rindex(b".", at, end) + 1 : end]
    if not local or top.decode().lower() in _FILES:
        return None
    if local == b"git" and data[end : end + 1] == b":":  # git@host:repository
        return None
    query = max(local.rfind(b"="), local.rfind(b"/"), local.rfind(b"?"), local.rfind(b"&"))
    return start + query + 1 if query + 1 < len(local) else start, end, 0.95


_BARE_TOPS = (
    "com|org|net|edu|gov|info|biz|io|dev|app|ai|eu|de|fr|uk|jp|us|ca|au|nl|ch|se|no|dk|fi|es|it|pt|br|mx|in|kr|cn|ru"
)
_URL = (
    r"(?i:\b(?:https?|ftp)://[0-9a-z\[](?:[0-9a-z.-]{0,252}|[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?"
    r"(?:[/?#][0-9a-z\-._~:/?#\[\]@!$&'()*+,;=%]*)?"
    rf"|\b(?:[0-9a-z][0-9a-z-]{{0,62}}\.){{1,6}}(?:{_BARE_TOPS})\b(?:/[0-9a-z\-._~:/?#\[\]@!$&'()*+,;=%]*)?)"
)


def _url(data: bytes, start: int, end: int) -> Found | None:
    while end > start and data[end - 1] in b".,;:!?'*":
        end -= 1
    if data[end - 1 : end] == b")" and b"(" not in data[start:end]:
        end -= 1
    scheme = b"://" in data[start : start + 8]
    if not scheme and (
        data[max(start - 1, 0) : start] in (b"@", b".", b"-", b"_", b"/") or data[end : end + 1] == b"@"
    ):
        return None
    return start, end, 0.9 if scheme else 0.6


_CARD_WORDS = re.compile(
    "(?i:card|credit|debit|charge|billing|purchase|visa|maestro|mastercard|amex|payment|カード|クレジット|デビット|karte|carte)".encode()
)
_FIRST = r"(?:[2-6][0-9]{3}|1800|8[12][0-9]{2}|9792)"  # what card numbers begin with (validators.card)
_CARD = (
    rf"\b{_FIRST}(?:[ -][0-9]{{4}}[ -][0-9]{{4}}[ -][0-9]{{4}}(?:[ -][0-9]{{1,3}})?"
    r"|[ -][0-9]{6}[ -][0-9]{4,5}|[0-9]{2}[ -][0-9]{6,13}|[0-9]{8,15})\b"
)
_CARD_PROBE = r"[0-9]{4}[ -]?[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{2}"


def _card(data: bytes, start: int, end: int) -> Found | None:
    if _part_of_more(data, start, end):
        return None
    separators = data.count(b" ", start, end), data.count(b"-", start, end)
    if all(separators):
        return None
    ends = (end, start + 19) if any(separators) and end - start > 19 else (end,)  # 4-4-4-4, then a security code
    for stop in ends:
        digits = data[start:stop].translate(None, b" -").decode()
        verdict = validators.card(digits)
        if verdict is False:
            verdict = _CARD_WORDS.search(data, max(start - 80, 0), stop + 40) is not None
        if verdict:
            return start, stop, 0.9
    return None


def _part_of_more(data: bytes, start: int, end: int) -> bool:
    """Whether a number goes on on either side: 1.234, 12-345, a8-…"""
    left, right = data[max(start - 2, 0) : start], data[end : end + 2]
    return (left[-1:] in (b".", b"-", b"_") and left[:-1].isalnum()) or (
        right[:1] in (b".", b"-", b"_") and right[1:].isalnum()
    )


_IBAN = r"(?i:\b[a-z]{2}[0-9]{2}(?: ?[a-z0-9]{4}){2,7}(?: ?[a-z0-9]{1,3})?\b)"


def _iban(data: bytes, start: int, end: int) -> Found | None:
    length = validators.IBAN_LENGTHS.get(data[start : start + 2].decode().upper())
    if length is None:
        return None
    stop, characters = start, 0  # words after the number look like groups of it: only the country's length counts
    while characters < length and stop < end:
        characters += data[stop] != 32
        stop += 1
    if data[stop : stop + 1].isalnum() or not validators.iban(data[start:stop].decode().replace(" ", "")):
        return None
    return start, stop, 0.95


_SSN = r"\b(?:[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3} [0-9]{2} [0-9]{4})\b"
_SSN_WORDS = r"(?i:\bssn\b|\bsocial[ -]security\b|\bss ?#|\bsoc(?:ial)? sec\b|社会保障番号|ソーシャルセキュリティ)"


def _ssn(data: bytes, start: int, end: int) -> Found | None:
    digits = data[start:end].decode().replace("-", "").replace(" ", "")
    return (start, end, 0.75) if validators.ssn(digits) and not _part_of_more(data, start, end) else None


_VERSION = re.compile(
    (
        r"(?i:(?:\bv|\brv|\bver\.?|version|build|release|rev(?:ision)?|section|chapter|§|バージョン|版)"
        r"[ :=]{0,2})$"
    ).encode()
)


def _ipv4(data: bytes, start: int, end: int) -> Found | None:
    if _part_of_more(data, start, end) or _VERSION.search(data, max(start - 16, 0), start):
        return None
    return (start, end, 0.8) if validators.ipv4(data[start:end].decode()) else None


def _ipv6(data: bytes, start: int, end: int) -> Found | None:
    if data[max(start - 1, 0) : start] == b":" or data[end : end + 1] == b":":
        return None
    return (start, end, 0.8) if validators.ipv6(data[start:end].decode()) else None


_OCTET = r"[0-9]{1,3}"
_IPV6 = r"\b(?:[0-9A-Fa-f]{1,4}:){1,7}(?::?[0-9A-Fa-f]{1,4}){1,7}(?:\.[0-9]{1,3}){0,3}\b|\b(?:[0-9A-Fa-f]{1,4}:){1,7}:"


def _mac(data: bytes, start: int, end: int) -> Found | None:
    if _part_of_more(data, start, end) or not validators.mac(data[start:end].decode()):
        return None
    plain = data[start + 2 : start + 3] == b"-" and data[start:end].replace(b"-", b"").isdigit()  # 17-19-29-44-11-26
    return None if plain else (start, end, 0.85)


RULES: Mapping[str, tuple[Rule, ...]] = {
    "EMAIL_ADDRESS": (Shape("EMAIL_ADDRESS", _EMAIL, _email, probe=rf"{_LOCAL}@[0-9A-Za-z\x{{80}}-\x{{10FFFF}}]"),),
    "PHONE_NUMBER": (),  # built for the policy's regions
    "CREDIT_CARD": (Shape("CREDIT_CARD", _CARD, _card, probe=_CARD_PROBE, again=True),),
    "IBAN_CODE": (
        Shape("IBAN_CODE", _IBAN, _iban, probe=r"(?i:\b[a-z]{2}[0-9]{2} ?[a-z0-9]{4} ?[a-z0-9]{4})", again=True),
    ),
    "IP_ADDRESS": (
        Shape("IP_ADDRESS", rf"\b{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}\b", _ipv4),
        Shape("IP_ADDRESS", _IPV6, _ipv6, probe=r"[0-9A-Fa-f]:[0-9A-Fa-f:][0-9A-Fa-f:]?[0-9A-Fa-f:]?[0-9A-Fa-f:]?:"),
    ),
    "MAC_ADDRESS": (
        Shape("MAC_ADDRESS", r"\b[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}\b", _mac),
        Shape("MAC_ADDRESS", r"\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\b", _mac),
    ),
    "URL": (Shape("URL", _URL, _url, probe=rf"(?i:[a-z]://|\b[0-9a-z-]{{1,63}}\.(?:{_BARE_TOPS})\b)"),),
    "US_SSN": (
        Shape("US_SSN", _SSN, _ssn, again=True),
        Near("US_SSN", _SSN_WORDS, r"\b[0-9]{9}\b", valid(validators.ssn, 0.8), after=40),
    ),
    **japan.RULES,
    **documents.RULES,
}

DEFAULT: tuple[str, ...] = tuple(name for name in RULES if name != "URL")


def rules_for(entities: tuple[str, ...], regions: tuple[str, ...]) -> tuple[Rule, ...]:
    found: list[Rule] = []
    for name in entities:
        found += (Phone(regions),) if name == "PHONE_NUMBER" else RULES.get(name, ())
    return tuple(found)
