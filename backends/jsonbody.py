"""JSON from outside, decoded strictly: no NaN, no invalid UTF-8, no nesting without end, no key twice."""

from __future__ import annotations

import re
from typing import Any

import msgspec


class NotJson(ValueError):
    """The message says what is wrong and at which byte, never what stands there."""


def decode(data: bytes | memoryview) -> Any:
    """The decoded value. Raises NotJson."""
    try:
        return msgspec.json.decode(data)
    except RecursionError:
        raise NotJson("is nested too deep") from None
    except UnicodeDecodeError:
        raise NotJson("is not valid UTF-8") from None
    except msgspec.DecodeError as error:
        _, found, tail = str(error).rpartition("(byte ")
        where = f" (at byte {tail.rstrip(')')})" if found else ""
        raise NotJson(f"is not valid JSON{where}") from None


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?', re.DOTALL)
"""A string of valid JSON, and the colon behind it where it is a key. Linear: no two parts can take the same byte."""


_DEEPEST = 500
_KEY_ENDS = (b'":', b'" ', b'"\t', b'"\n', b'"\r')


def decode_unambiguous(data: bytes | memoryview) -> Any:
    """As `decode`, and refuses a key that stands twice in one object: of two values, what is scanned here and what a
    backend goes by could be different ones."""
    value = decode(data)
    # Behind every key stands a colon, or space and a colon. Where there are not more such places than keys, and that is
    # nearly always, there is no need to look which of them are keys.
    keys = _keys(value)
    if isinstance(data, bytes) and sum([data.count(end) for end in _KEY_ENDS]) == keys:
        return value
    if sum(1 for colon in _STRING.findall(data) if colon) != keys:
        raise NotJson("has a key that stands twice in one object")
    return value


def _keys(value: Any) -> int:
    """How many keys there are. Raises NotJson over a depth that no call of an API has: Python's own limit is between
    1,000 and 10,000, by its version."""
    count, level = 0, [value]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for one in level:
            if type(one) is dict:
                count += len(one)
                below += one.values()
            elif type(one) is list:
                below += one
        if not below:
            return count
        level = below
    raise NotJson("is nested too deep")
