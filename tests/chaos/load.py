"""An open-loop client: a seeded random mix of whole and streamed requests at a given rate, whatever becomes of them.

Every request has a connection of its own, which is read to its end: so a second answer, or a byte too many, is seen.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import httptools

from tests.chaos.world import CLEARANCE, DEFAULT_DEADLINE_S, KEYWORD, SECRET

LEVELS = ("public", "internal", "confidential", "restricted")
PATIENCE_S = 20.0
"""After this the client gives a request up: far beyond every deadline here, so it hangs."""


@dataclass(frozen=True)
class Asked:
    """One request to be made."""

    id: str
    model: str = "chat"
    stream: bool = False
    level: str = "public"  # what it is, whether by header or by what stands in it
    by_text: bool = False
    deadline_ms: float | None = None
    leave_after_s: float | None = None
    leave_by_reset: bool = False
    more: str = field(default="", repr=False)  # text

    @property
    def allowed(self) -> tuple[str, ...]:
        """The backends that policy lets it reach."""
        return tuple(name for name, up_to in CLEARANCE.items() if LEVELS.index(self.level) <= LEVELS.index(up_to))

    @property
    def deadline_s(self) -> float:
        return DEFAULT_DEADLINE_S if self.deadline_ms is None else self.deadline_ms / 1000

    def bytes(self) -> bytes:
        text = "hello" if self.level in ("public", "internal") else f"{SECRET} {self.id}"
        text += (f" {KEYWORD}" if self.by_text else "") + self.more
        body = json.dumps(
            {"model": self.model, "messages": [{"role": "user", "content": text}], "stream": self.stream},
            ensure_ascii=False,
        ).encode()
        headers = [
            "POST /v1/chat/completions HTTP/1.1", "host: router", "connection: close", f"content-length: {len(body)}",
            "content-type: application/json", f"x-request-id: {self.id}",
        ]  # fmt: skip
        if not self.by_text:
            headers.append(f"x-data-sensitivity: {self.level}")
        if self.deadline_ms is not None:
            headers.append(f"x-slo-latency-ms: {self.deadline_ms:g}")
        return "\r\n".join(headers).encode() + b"\r\n\r\n" + body


@dataclass
class Outcome:
    """What became of a request, as its client saw it. Times are CLOCK_MONOTONIC, 0 where it did not come to that."""

    asked: Asked
    sent_at: float = 0.0
    head_at: float = 0.0
    ended_at: float = 0.0
    left_at: float = 0.0
    longest_pause_s: float = 0.0  # between pieces of the answer, from its head on
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    answers: int = 0  # whole ones
    broken: str = ""  # of the connection or of the framing
    lag_s: float = 0.0  # of this process, while the request was under way

    @property
    def backend(self) -> str:
        return self.headers.get("x-pointsman-backend", "")

    @property
    def events(self) -> list[bytes]:
        return [line[5:].strip() for line in self.body.split(b"\n") if line.startswith(b"data:")]

    @property
    def code(self) -> str:
        """`ok`, the error's code, `stream_broken`, `left`, or `?` for what is none of these."""
        if self.left_at:
            return "left"
        try:
            if self.status == 200 and not self.asked.stream:
                return "ok" if "choices" in json.loads(self.body) else "?"
            if self.status == 200:
                if self.events and self.events[-1] == b"[DONE]":
                    return "ok"
                return "stream_broken" if "error" in json.loads(self.events[-1]) else "?"
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError, IndexError, TypeError):
            return "?"

    @property
    def good(self) -> bool:
        return self.code == "ok"


class _Parser:
    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._parts: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._outcome.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._outcome.status = self.parser.get_status_code()
        self._outcome.head_at = time.monotonic()

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        self._outcome.answers += 1
        self._outcome.body = b"".join(self._parts)


async def ask(port: int, asked: Asked) -> Outcome:
    """One request, to its end or until its client leaves or loses patience."""
    outcome = Outcome(asked)
    parser = _Parser(outcome)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PATIENCE_S if asked.leave_after_s is None else asked.leave_after_s):
            outcome.sent_at = time.monotonic()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(asked.bytes())
            last = 0.0
            while data := await reader.read(65536):
                now = time.monotonic()
                outcome.longest_pause_s = max(outcome.longest_pause_s, now - last if last else 0.0)
                last = now
                parser.parser.feed_data(data)
    except TimeoutError:
        if asked.leave_after_s is None:
            outcome.broken = f"no end after {PATIENCE_S:g} s"
        elif not outcome.answers:
            outcome.left_at = time.monotonic()
    except httptools.HttpParserError as error:
        outcome.broken = f"not HTTP: {type(error).__name__}"
    except OSError as error:
        outcome.broken = type(error).__name__
    outcome.ended_at = time.monotonic()
    if writer is not None:
        if outcome.left_at and asked.leave_by_reset:
            sock = writer.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    return outcome


@dataclass(frozen=True)
class Mix:
    """Shares of the random mix."""

    stream: float = 0.4
    deadline: float = 0.5  # that state a deadline
    deadlines_ms: tuple[float, ...] = (400, 800, 1500)
    leaving: float = 0.0
    model: str = "chat"
    levels: tuple[str, ...] = ("public", "internal", "confidential", "confidential", "restricted")


def mixed(rng: random.Random, mix: Mix, count: int, prefix: str) -> list[Asked]:
    found = []
    for i in range(count):
        level = rng.choice(mix.levels)
        asked = Asked(
            id=f"{prefix}-{i}",
            model=mix.model,
            stream=rng.random() < mix.stream,
            level=level,
            by_text=level == "confidential" and rng.random() < 0.5,
            deadline_ms=rng.choice(mix.deadlines_ms) if rng.random() < mix.deadline else None,
        )
        if rng.random() < mix.leaving:
            asked = replace(asked, leave_after_s=rng.uniform(0, 0.05), leave_by_reset=rng.random() < 0.5)
        found.append(asked)
    return found


async def run(port: int, requests: Iterable[Asked], rate: float, rng: random.Random) -> list[Outcome]:
    """Each request at its own time, on average `rate` a second, whether others are answered or not."""
    lags = _Lags()
    ticking = asyncio.create_task(lags.tick())
    tasks: list[asyncio.Task[Outcome]] = []
    at = time.monotonic()
    for asked in requests:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        tasks.append(asyncio.create_task(ask(port, asked)))
        at += rng.expovariate(rate)
    outcomes = list(await asyncio.gather(*tasks))
    ticking.cancel()
    for outcome in outcomes:
        outcome.lag_s = lags.worst(outcome.sent_at, outcome.ended_at)
    return outcomes


class _Lags:
    """How late this process's own loop is: what it measures of others is late by as much. A machine that is too busy
    to run us is as busy for the router, so that twice this is what a check of times must forgive."""

    EVERY_S = 0.02

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []

    async def tick(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(self.EVERY_S)
            now = time.monotonic()
            if now - began > 2 * self.EVERY_S:
                self._seen.append((began, now))

    def worst(self, begin: float, end: float) -> float:
        return max((b - a for a, b in self._seen if b >= begin and a <= end), default=0.0)


def drive(
    port: int, mix: Mix, *, rate: float, seconds: float, seed: int, beside: Callable[[], Any] | None = None
) -> list[Outcome]:
    """A run of the mix, from a thread of no loop; `beside` runs in another thread meanwhile."""
    rng = random.Random(seed)
    requests = mixed(rng, mix, max(1, round(rate * seconds)), f"s{seed}-{time.monotonic_ns():x}")

    async def both() -> list[Outcome]:
        if beside is None:
            return await run(port, requests, rate, rng)
        outcomes, _ = await asyncio.gather(run(port, requests, rate, rng), asyncio.to_thread(beside))
        return outcomes

    return asyncio.run(both())


def by_code(outcomes: Iterable[Outcome]) -> Counter[str]:
    return Counter(outcome.code for outcome in outcomes)
