"""A backend that misbehaves on purpose: OpenAI chat, whole and streamed, on raw sockets, as a process of its own.

Run: python tests/chaos/server.py NAME RECORDS [--port P] [--latency-ms MS] [--concurrency N] [--cert FILE]

It says `ready PORT` when it listens. `PUT /fault` with {"kind": …, "share": …, "seed": …} changes how it answers from
then on. Whatever it is asked goes into the file RECORDS at once, one JSON object a line, so that nothing of it is lost
with the process: `asked` (with the whole body), `answered`, `gone` (the client left before the answer's end). Times are
CLOCK_MONOTONIC, which is the same for all processes of a machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import struct
import time
from pathlib import Path
from typing import Any

PIECES = 5
"""Events with text in a streamed answer."""
DRIBBLE_S = 0.006
"""Between the bytes of a slow answer."""
FAULTS = (
    "reset", "reset_within", "slow_head", "slow_body", "storm_429", "status_503", "half", "half_until_close",
    "length_too_long", "length_too_long_open", "length_too_short", "two_lengths", "length_and_chunked", "garbage",
    "hang", "second_answer", "close_after",
)  # fmt: skip


class Server:
    def __init__(self, name: str, records: Path, latency_s: float, concurrency: int) -> None:
        self.name = name
        self._latency_s = latency_s
        self._places = asyncio.Semaphore(concurrency)
        self._file = os.open(records, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._fault: dict[str, Any] = {}
        self._random = random.Random(0)

    def record(self, event: str, **facts: object) -> None:
        line = {"event": event, "backend": self.name, "pid": os.getpid(), "at": time.monotonic(), **facts}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            early = await reader.readexactly(1)
            if early == b"\x16":  # TLS where none is spoken: an HTTP server says so, in HTTP
                await _send(writer, whole(b"{}", b"400 Bad Request"))
            while early != b"\x16":
                head = early + await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                method = lines[0].split(" ", 1)[0]
                fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                if method == "PUT":
                    self._fault = json.loads(body)
                    self._random = random.Random(self._fault.get("seed", 0))
                if method != "POST":
                    writer.write(whole(b"{}"))
                    await writer.drain()
                    early = b""
                    continue
                again = await self._exchange(reader, writer, fields.get("x-request-id", ""), body)
                if again is None:
                    break
                early = again
        writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request_id: str, body: bytes
    ) -> bytes | None:
        """One answer, while looking whether the client leaves. What of the next request was read meanwhile; None
        where there is no next."""
        fault = self._fault if self._random.random() < self._fault.get("share", 1.0) else {}
        kind = fault.get("kind", "")
        asked = json.loads(body)
        stream = bool(asked.get("stream"))
        self.record("asked", id=request_id, stream=stream, fault=kind, body=body.decode())
        answering = asyncio.create_task(self._answer(writer, kind, request_id, stream))
        watching = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait((answering, watching), return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not answering.done() and not _read(watching):
                self.record("gone", id=request_id, fault=kind)
                return None
            try:
                keep = await answering
            except ConnectionError:
                self.record("gone", id=request_id, fault=kind)
                return None
            self.record("answered", id=request_id, fault=kind, good=kind in ("", "close_after", "second_answer"))
            return (await watching or None) if keep else None
        finally:
            for task in (answering, watching):
                task.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)

    async def _answer(self, writer: asyncio.StreamWriter, kind: str, request_id: str, stream: bool) -> bool:
        """Whether the connection goes on."""
        if kind == "reset":
            return _reset(writer)
        if kind == "hang":
            await asyncio.sleep(3600)
        if kind == "garbage":
            await _send(
                writer, b"\x16\x03\x01\x00\xa5 this is not HTTP \xff\xfe\r\n\r\n" + random.Random(1).randbytes(300)
            )
            return False
        if kind in ("storm_429", "status_503"):
            status = b"429 Too Many Requests" if kind == "storm_429" else b"503 Service Unavailable"
            await _send(writer, whole(b'{"error": {"message": "busy"}}', status, b"retry-after: 1\r\n"))
            return True
        async with self._places:
            await asyncio.sleep(self._latency_s)
            if not stream:
                return await self._whole(writer, kind, self._content(request_id))
            return await self._stream(writer, kind, request_id)

    def _content(self, request_id: str) -> bytes:
        """An answer says by whom and to whom it is: by that a mixture of two can be told."""
        text = f"{self.name}|{request_id}"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return json.dumps({"id": request_id, "object": "chat.completion", "choices": [choice]}).encode()

    async def _whole(self, writer: asyncio.StreamWriter, kind: str, body: bytes) -> bool:
        good = whole(body)
        framings = {
            "half": (whole(body, length=b"%d" % len(body)))[: -len(body) // 2],
            "half_until_close": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + body[: len(body) // 2],
            "length_too_long": whole(body, length=b"%d" % (len(body) + 50)),
            "length_too_long_open": whole(body, length=b"%d" % (len(body) + 50)),
            "length_too_short": whole(body, length=b"%d" % (len(body) - 20)),
            "two_lengths": whole(body, extra=b"content-length: 7\r\n"),
            "length_and_chunked": whole(body, extra=b"transfer-encoding: chunked\r\n"),
            "second_answer": good + whole(b'{"choices": [{"message": {"content": "nobody|nothing"}}]}'),
        }
        if kind == "reset_within":
            await _send(writer, good[: -len(body) // 2])
            return _reset(writer)
        if kind == "slow_head":
            await _dribble(writer, good)
        elif kind == "slow_body":
            await _send(writer, good[: -len(body)])
            await _dribble(writer, body)
        else:
            await _send(writer, framings.get(kind, good))
        if kind == "length_too_long_open":
            await asyncio.sleep(3600)
        return kind in ("", "slow_head", "slow_body", "second_answer")

    async def _stream(self, writer: asyncio.StreamWriter, kind: str, request_id: str) -> bool:
        events = [self._event(request_id, i) for i in range(PIECES)] + [b"data: [DONE]\n\n"]
        size = sum(map(len, events))
        lengths = {
            "length_too_long": size + 50, "length_too_long_open": size + 50, "length_too_short": size - 30,
        }  # fmt: skip
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        chunked = kind not in lengths and kind != "half_until_close"
        if kind in lengths:
            head += b"content-length: %d\r\n" % lengths[kind]
        if kind == "two_lengths":
            head += b"content-length: 7\r\ncontent-length: 9\r\n"
        elif chunked:
            head += b"transfer-encoding: chunked\r\n"
        if kind == "length_and_chunked":
            head += b"content-length: 7\r\n"
        await (_dribble if kind == "slow_head" else _send)(writer, head + b"\r\n")
        for i, event in enumerate(events):
            piece = b"%x\r\n%s\r\n" % (len(event), event) if chunked else event
            if i == PIECES // 2 and kind in ("half", "half_until_close", "reset_within"):
                await _send(writer, piece[: len(piece) // 2])
                return _reset(writer) if kind == "reset_within" else False
            await (_dribble if kind == "slow_body" else _send)(writer, piece)
            await asyncio.sleep(0.002)
        if chunked:
            await _send(writer, b"0\r\n\r\n")
        if kind == "second_answer":
            await _send(writer, whole(b'{"choices": [{"message": {"content": "nobody|nothing"}}]}'))
        if kind == "length_too_long_open":
            await asyncio.sleep(3600)
        return kind in ("", "slow_head", "slow_body", "second_answer")

    def _event(self, request_id: str, number: int) -> bytes:
        choice = {"index": 0, "delta": {"content": f"{self.name}|{request_id}|{number}"}, "finish_reason": None}
        return b"data: %s\n\n" % json.dumps({"id": request_id, "choices": [choice]}).encode()


def whole(body: bytes, status: bytes = b"200 OK", extra: bytes = b"", length: bytes = b"") -> bytes:
    length = length or b"%d" % len(body)
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %s\r\n%s\r\n"
    return head % (status, length, extra) + body


def _read(task: asyncio.Task[bytes]) -> bytes:
    return b"" if task.exception() is not None else task.result()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _dribble(writer: asyncio.StreamWriter, data: bytes) -> None:
    for i in range(len(data)):
        await asyncio.sleep(DRIBBLE_S if i else 0)
        await _send(writer, data[i : i + 1])


def _reset(writer: asyncio.StreamWriter) -> bool:
    """RST instead of FIN: what was written and not yet read by the other side is lost to it."""
    sock = writer.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def main() -> None:
    parent = os.getppid()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("records", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=5)
    parser.add_argument("--concurrency", type=int, default=1000)
    parser.add_argument("--cert", help="PEM with certificate and key: serve https")
    arguments = parser.parse_args()
    context = None
    if arguments.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.cert)
    server = Server(arguments.name, arguments.records, arguments.latency_ms / 1000, arguments.concurrency)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", arguments.port, ssl=context, backlog=512)
    print(f"ready {listener.sockets[0].getsockname()[1]}", flush=True)
    # Whoever started it may be killed, and then nobody else ends it.
    while os.getppid() == parent:  # noqa: ASYNC110
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
