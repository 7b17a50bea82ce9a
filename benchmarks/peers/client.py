"""A client for streams and tensors, by sockets and httptools: what it takes for itself is little."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

import httptools

from benchmarks.peers.upstream import BODY


@dataclass(slots=True)
class Seen:
    """What came of one request."""

    first_s: float = 0.0  # until the first byte of the body
    events: int = 0
    whole: bool = False  # it came to its end
    status: int = 0


class Reader(asyncio.Protocol):
    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done, self.seen, self.began = done, Seen(), 0.0
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def on_body(self, data: bytes) -> None:
        if not self.seen.first_s:
            self.seen.first_s = time.perf_counter() - self.began
        self.seen.events += data.count(b"data: {")

    def on_message_complete(self) -> None:
        self.seen.whole, self.seen.status = True, self._parser.get_status_code()
        self.connection_lost(None)


async def ask(port: int, path: str, content_type: str, body: bytes, more: str = "") -> Seen:
    """One request on a connection of its own; the time to connect does not count."""
    loop = asyncio.get_running_loop()
    reader = Reader(loop.create_future())
    transport, _ = await loop.create_connection(lambda: reader, "127.0.0.1", port)
    more += f"content-length: {len(body)}\r\n"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\n{more}\r\n"
    reader.began = time.perf_counter()
    transport.writelines([head.encode(), body])
    await reader.done
    transport.close()
    return reader.seen


def stream_body(events: int, pause_ms: float) -> bytes:
    """A request for so many events, so far apart (`slow_upstream.py`)."""
    return json.dumps({**BODY, "stream": True, "max_tokens": events, "seed": pause_ms}, ensure_ascii=False).encode()


async def stream(port: int, body: bytes) -> Seen:
    return await ask(port, "/v1/chat/completions", "application/json", body)


async def tensor(port: int, mib: int) -> Seen:
    """A binary tensor of so many MiB (Open Inference Protocol, binary tensor data extension)."""
    size = mib * 2**20
    inputs = [{"name": "x", "datatype": "FP32", "shape": [size // 4], "parameters": {"binary_data_size": size}}]
    head = json.dumps({"inputs": inputs}).encode()
    more = f"inference-header-content-length: {len(head)}\r\n"
    return await ask(port, "/v2/models/t/infer", "application/octet-stream", head + bytes(size), more)
