"""JSON from outside, decoded strictly: no NaN, no invalid UTF-8, no nesting without end."""

from __future__ import annotations

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
