"""Credentials: what gives whoever reads it access to something.

Key formats are the published ones: AWS (IAM identifiers), Google Cloud (API keys, OAuth), Azure (account keys, client
secrets), GitHub ("Behind GitHub's new authentication token formats", 2021), GitLab, Slack, Stripe, OpenAI and others,
each with a prefix of its own; private keys in PEM armour (RFC 7468) or OpenSSH's; JSON web tokens (RFC 7519) with a
header that decodes; passwords in URLs (RFC 3986, section 3.2.1). A TOKEN has no shape of its own: it is a value beside
a word such as "password" or パスワード that is no plain word, no reference and no placeholder.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from itertools import pairwise

from policies.sensitivity.rules import Found, Rule, Shape, whole
from policies.sensitivity.validators import entropy

_KEYS = (
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    r"\bAIza[0-9A-Za-z_-]{35}",
    r"\bGOCSPX-[0-9A-Za-z_-]{28}",
    r"\bya29\.[0-9A-Za-z_-]{20,}",
    r"\b[0-9A-Za-z_~.-]{3}[0-9]Q~[0-9A-Za-z_~.-]{31,34}",
    r"(?i:\b(?:Account|SharedAccess)Key=)[0-9A-Za-z+/]{42,86}={1,2}",
    r"[?&]sig=[0-9A-Za-z+/%]{40,120}(?:={1,2}|%3[dD])",
    r"\b(?:gh[pousr]_[0-9A-Za-z]{36,255}|github_pat_[0-9A-Za-z_]{22,255})",
    r"\bgl(?:pat|ptt|dt|rt|cbt)-[0-9A-Za-z_.-]{20,}",
    r"\bxox[abeoprs](?:\.xox[bp])?-[0-9A-Za-z-]{10,}|\bxapp-[0-9]-[0-9A-Za-z-]{10,}",
    r"\bhooks\.slack\.com/(?:services|workflows)/[0-9A-Za-z_/]{20,}",
    r"\b(?:sk|rk)_(?:live|test)_[0-9A-Za-z]{16,}|\bwhsec_[0-9A-Za-z+/]{24,}",
    r"\bsk-(?:(?:proj|svcacct|admin|ant|or|lf)-[0-9A-Za-z_-]{16,}|[0-9A-Za-z]{32,})",
    r"\bhf_[A-Za-z]{34}\b|\bnpm_[0-9A-Za-z]{36}\b|\bpypi-AgE[0-9A-Za-z_-]{50,}|\bdop_v1_[0-9a-f]{64}\b",
    r"\bSG\.[0-9A-Za-z_-]{16,32}\.[0-9A-Za-z_-]{30,}|\bSK[0-9a-f]{32}\b|\bdapi[0-9a-f]{32}\b|\bhvs\.[0-9A-Za-z_-]{24,}",
    r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b|\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b|\bPMAK-[0-9a-f]{24}-[0-9a-f]{34}\b",
)
_ILLUSTRATIONS = re.compile(rb"(?i:x{6}|\*{4}|\.{4}|0{12}|your[_-]|<|>|\$\{|\{\{)")


def _key(data: bytes, start: int, end: int) -> Found | None:
    return None if _ILLUSTRATIONS.search(data, start, min(end, start + 300)) else (start, end, 0.95)


_BLOCK = 16 * 1024


def _private_key(data: bytes, start: int, end: int) -> Found:
    """From the armour's first line to its last, or as far as a key could reach; a part of a key is one as well."""
    close = data.find(b"-----END", end, end + _BLOCK)
    if close < 0:
        return start, end, 0.95
    last = data.find(b"-----", close + 8, close + 80)
    return start, (last + 5 if last >= 0 else close + 8), 0.99


def _jwt(data: bytes, start: int, end: int) -> Found | None:
    header = data[start : data.index(b".", start, end)]
    try:
        decoded = json.loads(binascii.a2b_base64(header.translate(_URLSAFE) + b"=" * (-len(header) % 4)))
    except (ValueError, RecursionError):
        return None
    return (start, end, 0.95) if isinstance(decoded, dict) and ("alg" in decoded or "typ" in decoded) else None


_URLSAFE = bytes.maketrans(b"-_", b"+/")
_USERINFO = (
    r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/@:?#\"'<>]{0,64}:[^\s/@?#\"'<>]{1,128}@[0-9A-Za-z\[][0-9A-Za-z.:\]-]*"
)


def _userinfo(data: bytes, start: int, end: int) -> Found | None:
    password = data[data.index(b":", data.index(b"://", start) + 3) + 1 : data.rindex(b"@", start, end)].decode()
    return None if _placeholder(password) else (start, end, 0.95)


_STRONG = (
    r"pass(?:word|wd|phrase|code)s?|pwd|secret(?:[ _-]?(?:access)?[ _-]?key)?|client[ _-]?secret|credentials?"
    r"|パスワード|パスフレーズ|秘密鍵|合言葉|暗証番号|passwort|kennwort"
)
_WEAK = (
    r"api[ _-]?(?:key|token|secret)|access[ _-]?(?:key|token)|auth(?:[ _-]?token|orization)?|token|bearer"
    r"|(?:private|account|signing|encryption)[ _-]?key|トークン|API ?キー|アクセスキー|認証キー"
)
_ASSIGNED = (
    rf"(?i:(?:{_STRONG}|{_WEAK})[A-Za-z0-9_]{{0,24}}[\"'\])}}]{{0,2}}"
    r"(?: ?(?:[:=]|=>|:=|->) ?| (?:is|was|ist)(?: now)?:? | ?(?:は|が|を)[、,:]? ?| (?:for [^\s]{1,24} )?is:? | )"
    r"(?:(?:bearer|basic|token) )?[\"'`「『(]{0,2})"
    r"[!-~]{4,200}"
)
_TOKEN_PROBE = rf"(?i:{_STRONG}|{_WEAK})[A-Za-z0-9_]*[\"'\])}}]*(?:[ :=はがを]|->)[^\n]{{4}}"
_SPLIT = re.compile(
    rf"(?i)(?P<strong>{_STRONG})?(?:{_WEAK})?[A-Za-z0-9_]{{0,24}}?[\"'\])}}]{{0,2}}"
    r"(?P<sign> ?(?:[:=]|=>|:=|->) ?| (?:is|was|ist)(?: now)?:? | ?(?:は|が|を)[、,:]? ?| (?:for [^\s]{1,24} )?is:? | )"
    r"(?:(?:bearer|basic|token) )?[\"'`「『(]{0,2}(?P<value>[!-~]{4,200})$"
)
_CLOSERS = "\"'`,;)]}>.」』"
_VALUE_END = re.compile(r"[\"'`,;<>\\]|&[A-Za-z_][A-Za-z0-9_.-]{0,40}=")
_REFERENCE = re.compile(
    r"[A-Za-z_][A-Za-z_]*(?:[.:/][A-Za-z_]+)*$|.*[(){<\[].*|\$|%[A-Za-z_]+%|@|[A-Za-z]+://"
    r"|[A-Z0-9]*_[A-Z0-9_]*$|[a-z]+[0-9]+(?:\.[A-Za-z_][A-Za-z0-9_]*)+$"
)
"""A name, a call, a variable, an address: what stands for a credential rather than being one."""
_DUMMY = re.compile(
    r"(?i)^[\W_]*$|^(.)\1*$|x{4}|\*{3}|\.{3}|^<|^\$|^\{|^%|your[_-]?|changeme|placeholder|redacted|example"
    r"|null|none|true|false|undefined"
)


def _placeholder(value: str) -> bool:
    return _DUMMY.search(value) is not None


def _assigned(data: bytes, start: int, end: int) -> Found | None:
    text = data[start:end].decode()
    parts = _SPLIT.match(text)
    if parts is None:
        return None
    value = parts["value"]
    value = _VALUE_END.split(value, maxsplit=1)[0].rstrip(_CLOSERS)
    if len(value) < 4 or _placeholder(value):
        return None
    if not _secret(value, parts["strong"], parts["sign"].strip()):
        return None
    begin = end - len(parts["value"].encode())
    return begin, begin + len(value.encode()), 0.75


def _secret(value: str, strong: str | None, sign: str) -> bool:
    """Whether a value beside such a word is a credential, rather than a word, a name or a number."""
    digits = any(char.isdigit() for char in value)
    letters = any(char.isalpha() for char in value)
    others = any(not char.isalnum() and char not in "._-/:" for char in value)
    if value.isdigit():
        return strong == "暗証番号" and len(value) <= 8
    if sum(a != b for a, b in pairwise(value)) < 3:
        return False
    if strong is not None:
        if not sign:  # "password reset-link": only a space between them
            return len(value) >= 8 and digits and letters and entropy(value) >= 2.5
        if _REFERENCE.match(value):
            return False
        return len(value) >= 6 and letters and (digits or others) and entropy(value) >= 2.0
    if _REFERENCE.match(value):
        return False
    return len(value) >= 16 and digits and letters and entropy(value) >= 3.0


RULES: Mapping[str, tuple[Rule, ...]] = {
    "CLOUD_KEY": tuple(Shape("CLOUD_KEY", pattern, _key) for pattern in _KEYS),
    "PRIVATE_KEY": (
        Shape("PRIVATE_KEY", r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----", _private_key),
        Shape("PRIVATE_KEY", r"\bPuTTY-User-Key-File-[23]: ", whole(0.9)),
    ),
    "JWT": (Shape("JWT", r"\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{2,}\.[0-9A-Za-z_-]*", _jwt),),
    "URL_CREDENTIALS": (Shape("URL_CREDENTIALS", _USERINFO, _userinfo, probe=r"://[^\s/@:?#\"'<>]*:[^\s/@?#\"'<>]+@"),),
    "TOKEN": (Shape("TOKEN", _ASSIGNED, _assigned, probe=_TOKEN_PROBE),),
}  # fmt: skip
