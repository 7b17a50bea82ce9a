"""What the arguments of commands may be. Each raises ArgumentTypeError for what is none."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

WHEN = "as 7d, 12h, 30m before now, or a time such as 2026-04-01T09:00:00+09:00"
"""What `ago` takes, for help."""


def number(text: str, low: float, high: float, what: str, kind: Callable[[str], Any] = int) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number


def pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def load(text: str) -> tuple[str, int]:
    name, count = pair(text)
    return name, count0(count)


def moment(text: str) -> float:
    from policies.calendar import moment

    try:
        return moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-04-01T09:00:00+09:00") from None


def ago(text: str) -> float:
    """Seconds before now, as a number below 0, or a moment in seconds since 1970."""
    unit = {"d": 86400.0, "h": 3600.0, "m": 60.0}.get(text[-1:])
    if unit is None or not text[:-1].replace(".", "", 1).isdigit():
        try:
            return moment(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, nor so long ago such as 7d, 12h or 30m") from None
    return -duration(text[:-1]) * unit


def window(since: float, until: float | None, now: float) -> tuple[float, float]:
    """What `ago` has made of --since and --until, in seconds since 1970. What is still to come is in no window. Raises
    ValueError where nothing is left between them."""
    begin, end = (at + now if at < 0 else at for at in (since, now if until is None else until))
    end = min(end, now)
    if end <= begin:
        raise ValueError("--until is not after --since")
    return begin, end


def port(text: str) -> int:
    port: int = number(text, 1, 65535, "a port from 1 to 65535")
    return port


def seconds0(text: str) -> float:
    seconds: float = number(text, 0, 1e6, "a number from 0", float)
    return seconds


def percent(text: str) -> float:
    percent: float = number(text, 0, 100, "a number from 0 to 100", float)
    return percent


def share(text: str) -> float:
    share: float = number(text, 0, 1, "a number from 0 to 1", float)
    return share


def factor(text: str) -> float:
    factor: float = number(text, 0.001, 1000, "a number from 0.001 to 1000", float)
    return factor


def base_url(text: str) -> str:
    parts = urlsplit(text)
    try:
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:  # a port that is none
        good = False
    if not good or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError("not a URL such as http://127.0.0.1:4318")
    return text


def count(text: str) -> int:
    count: int = number(text, 1, 1e6, "a number from 1")
    return count


def count0(text: str) -> int:
    count: int = number(text, 0, 1e12, "a number from 0")
    return count


def duration(text: str) -> float:
    duration: float = number(text, 1e-6, 1e9, "a number over 0", float)
    return duration


def size(text: str) -> int:
    units = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "B": 1, "": 1}
    unit = next(unit for unit in units if text.endswith(unit))
    size: float = number(text.removesuffix(unit), 1e-3, 1e12, "a size such as 500KiB or 32MiB", float)
    return int(size * units[unit])
