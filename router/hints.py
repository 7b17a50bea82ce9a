"""What callers say about a request in its headers. A hint can tighten, never loosen; a doubtful one is refused.

The one exception is x-declassify, which only counts for a tenant that may (`policies/sensitivity/labels.py`)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from policies.compile import CompiledPolicy
from policies.errors import did_you_mean
from policies.types import NOTHING, Value
from router.errors import bad_request

_NAMES = frozenset(
    (
        b"x-data-sensitivity", b"x-usage", b"x-slo-latency-ms", b"x-slo-ttft-ms", b"x-request-id", b"x-no-fallback",
        b"x-session-id", b"x-caller-region", b"x-request-labels", b"x-declassify", b"x-declassify-reason",
        b"x-pointsman-trace",
    )
)  # fmt: skip
_WORD = re.compile(r"[A-Za-z0-9._:/-]{1,64}\Z")
_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")
_LABEL = re.compile(r"[A-Za-z0-9._/-]{1,64}=[A-Za-z0-9._:/-]{0,128}\Z")
_MAX_LABELS = 16
_REASON = re.compile(r"[\x20-\x7e]{1,200}\Z")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Hints(Value, frozen=True, gc=False):
    label: int | None = None
    usage: str = ""
    latency_ms: float | None = None
    ttft_ms: float | None = None
    request_id: str = ""
    no_fallback: bool = False
    session: str = ""
    caller_region: str = ""
    headers: Mapping[str, str] = NOTHING  # those that the policy may ask for
    labels: Mapping[str, str] = NOTHING
    declassify: int | None = None  # asked for; whether the tenant may is not known here
    trace: bool = False


NO_HINTS = Hints()


def parse_hints(headers: Iterable[tuple[bytes, bytes]], policy: CompiledPolicy) -> Hints:
    """Hints from ASGI headers. Raises ApiError 400 on unknown values, and on a hint given twice."""
    known = policy.raw_headers
    if known.isdisjoint(names := [name for name, _ in headers]) and _NAMES.isdisjoint(names):
        return NO_HINTS
    given: dict[str, str] = {}
    allowed: dict[str, str] = {}
    for name, value in headers:
        for wanted, found in ((name in _NAMES, given), (name.decode("latin-1") in policy.headers, allowed)):
            if wanted:
                key = name.decode("latin-1")
                if key in found:
                    raise bad_request(f"the header {key} stands twice", "send it once", param=key)
                found[key] = value.decode("latin-1").strip()
    return Hints(
        _level(given, "x-data-sensitivity", policy),
        _matching(given, "x-usage", _WORD, "1 to 64 letters, digits and ._:/-"),
        _milliseconds(given, "x-slo-latency-ms"),
        _milliseconds(given, "x-slo-ttft-ms"),
        _matching(given, "x-request-id", _ID, "1 to 128 visible ASCII characters"),
        _boolean(given, "x-no-fallback"),
        _matching(given, "x-session-id", _ID, "1 to 128 visible ASCII characters"),
        _matching(given, "x-caller-region", _WORD, "1 to 64 letters, digits and ._:/-"),
        allowed or NOTHING,
        _labels(given),
        _declassify(given, policy),
        _boolean(given, "x-pointsman-trace"),
    )


def _level(given: dict[str, str], name: str, policy: CompiledPolicy) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        return policy.rank(value)
    except KeyError:
        raise bad_request(
            f"{name} names no sensitivity level of the policy",
            did_you_mean(value, policy.levels),
            param=name,
        ) from None


def _declassify(given: dict[str, str], policy: CompiledPolicy) -> int | None:
    """The reason must be there and is not kept: it is free text, and could quote what it is about."""
    level, reason = _level(given, "x-declassify", policy), given.get("x-declassify-reason")
    if level is None and reason is not None:
        raise bad_request("x-declassify-reason stands without x-declassify", param="x-declassify")
    if level is not None and (reason is None or not _REASON.match(reason)):
        what = "send with it why: 1 to 200 printable ASCII characters"
        raise bad_request("x-declassify needs x-declassify-reason", what, param="x-declassify-reason")
    return level


def _matching(given: dict[str, str], name: str, pattern: re.Pattern[str], what: str) -> str:
    value = given.get(name)
    if value is None:
        return ""
    if not pattern.match(value):
        raise bad_request(f"{name} is not valid", f"send {what}", param=name)
    return value


def _labels(given: dict[str, str]) -> dict[str, str]:
    """`team=vision, batch=true`"""
    name = "x-request-labels"
    pairs = [pair.strip() for pair in given[name].split(",")] if name in given else []
    if len(pairs) > _MAX_LABELS or not all(_LABEL.match(pair) for pair in pairs):
        raise bad_request(f"{name} is not valid", f"send at most {_MAX_LABELS} as name=value, name=value", param=name)
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def _milliseconds(given: dict[str, str], name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise bad_request(f"{name} is not a number of milliseconds over 0", param=name)
    return number


def _boolean(given: dict[str, str], name: str) -> bool:
    value = given.get(name, "false").lower()
    if value not in _BOOLEANS:
        raise bad_request(f"{name} is neither true nor false", param=name)
    return _BOOLEANS[value]
