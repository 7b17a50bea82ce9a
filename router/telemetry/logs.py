"""Log lines: as text or as JSON, at a level that can be changed while the router runs. No line holds a payload.

The level is that of our own lines. What libraries log below a warning is never shown: it could hold what they work on.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import msgspec

from router.telemetry.trail import CURRENT, Ended, Trail

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
OURS = "pointsman"
"""Our loggers are this one and those below it."""

_Exception = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
log = logging.getLogger(OURS)


class UnknownLevel(ValueError):
    pass


def configure(form: str, level: str) -> None:
    """For a process of ours: everything that is logged goes to standard error. What an embedder has set up stays."""
    logging.basicConfig(level=logging.WARNING, handlers=[_prepared(logging.StreamHandler(sys.stderr), form)])
    set_level(level)


def join(host: logging.Logger, form: str, level: str) -> None:
    """For a process of somebody else's, such as Ray's: our lines go where its own do. As text they look like its own;
    as JSON, all of them look like ours."""
    log.parent = host
    for handler in host.handlers if form == "json" else ():
        target = getattr(handler, "target", None)  # of one that only buffers
        _prepared(target if isinstance(target, logging.Handler) else handler, form)
        handler.addFilter(_stamp)
    set_level(level)


def level() -> str:
    return logging.getLevelName(log.getEffectiveLevel()).lower()


def set_level(name: str) -> None:
    """Of our own lines, from now on. Raises UnknownLevel."""
    if name not in LEVELS:
        raise UnknownLevel(f"there is no such log level; there are: {', '.join(LEVELS)}")
    log.setLevel(name.upper())


async def obey(name: str) -> str:
    """The order to all processes (`router/orders.py`); who gives it has checked the name."""
    set_level(name)
    return level()


def tell(ended: Ended, trail: Trail) -> None:
    """One line for a request that has ended."""
    rule = ended.decided.decision.rule if ended.decided is not None else ""
    ms = round(ended.seconds * 1000, 1)
    facts: dict[str, Any] = {"outcome": ended.outcome, "status": ended.status, "ms": ms, "attempts": ended.attempts}
    facts |= {name: value for name, value in (("backend", ended.backend), ("rule", rule)) if value}
    log.info(
        "request %s: %s (%d) from %s by rule %s in %.1f ms",
        trail.request_id or "-", ended.outcome, ended.status, ended.backend or "-", rule or "-", ms,
        extra={"facts": facts},
    )  # fmt: skip


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(told)s")

    def format(self, record: logging.LogRecord) -> str:
        record.told = _message(record)
        return super().format(record)

    def formatException(self, ei: _Exception) -> str:
        return "\n".join([f"{_type(ei)}:", *_frames(ei)])


class JsonFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "at": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            # A file's name may hold what is no UTF-8, and must not cost the line.
            "message": _message(record).encode(errors="backslashreplace").decode(),
        }
        trail: Trail | None = getattr(record, "trail", None)
        if trail is not None:
            known = ("request_id", trail.request_id), ("decision", trail.decision), ("trace_id", trail.trace_id)
            line |= {name: value for name, value in known if value}
        line |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[0] is not None:
            line |= {"error": _type(record.exc_info), "where": _frames(record.exc_info)}
        return msgspec.json.encode(line).decode()


def _prepared(handler: logging.Handler, form: str) -> logging.Handler:
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(_stamp)
    return handler


def _stamp(record: logging.LogRecord) -> bool:
    """Whose request it is about: known now, and no more when a handler that buffers writes it."""
    if not hasattr(record, "trail"):
        record.trail = CURRENT.get()
    return True


def _message(record: logging.LogRecord) -> str:
    """asyncio adds to its own what it was doing, with the texts of exceptions: they can hold a payload."""
    message = record.getMessage()
    return message.partition("\n")[0] if record.name == "asyncio" else message


def _type(ei: _Exception) -> str:
    return ei[0].__name__ if ei[0] is not None else ""


def _frames(ei: _Exception) -> list[str]:
    """Where it happened, without the exception's message, which can hold what was being worked on."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(ei[2], limit=20)]
