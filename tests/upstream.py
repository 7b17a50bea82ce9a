"""Real servers on loopback that answer as a test says: `upstream` in HTTP, `scripted` byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answers:
    """What the next requests get. `raw` is everything that goes onto the wire, head included."""

    status: int = 200
    body: bytes | object = b""
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    raw: bytes | None = None
    chunks: list[bytes] | None = None
    pause_s: float = 0.0  # between chunks
    cut: bool = False  # close the connection before the last chunk of a chunked body


class Upstream:
    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []  # inference only; probes are answered beside
        self.answers = Answers()
        self.choose: Callable[[Asked], Answers] = lambda asked: self.answers  # an answer for each request


@contextmanager
def upstream(probe: Callable[[], int] = lambda: 200) -> Iterator[Upstream]:
    """GETs get an empty object with the status of `probe`; every POST gets `answers`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None: ...

        def do_GET(self) -> None:
            self._send(Answers(status=probe(), body={}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.asked.append(Asked(self.command, self.path, headers, body))
            self._send(found.choose(found.asked[-1]))

        def _send(self, answers: Answers) -> None:
            if answers.raw is not None:
                self.wfile.write(answers.raw)
                self.close_connection = True
                return
            self.send_response(answers.status)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            if answers.chunks is None:
                body = answers.body if isinstance(answers.body, bytes) else json.dumps(answers.body).encode()
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for chunk in answers.chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
                time.sleep(answers.pause_s)
            if answers.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    found = Upstream(f"http://127.0.0.1:{server.server_port}")
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Peer:
    """The server's end of one connection, for a script to play on. It is closed when the script returns."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number  # of the connection, from 0
        self.reader, self.writer = reader, writer

    async def request(self) -> bytes:
        """The next request, head and body. Raises IncompleteReadError where the client has closed instead."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return head + (await self.reader.readexactly(int(lengths[0][15:])) if lengths else b"")

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a TCP segment of its own."""
        for i, piece in enumerate(pieces):
            if i:
                await asyncio.sleep(0.01)
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, body: bytes = b"ok") -> bytes:
        """A good answer to the next request, which is returned."""
        asked = await self.request()
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        return asked

    async def silence(self) -> None:
        """Until the client closes."""
        while await self.reader.read(65536):
            pass


@dataclass
class Scripted:
    url: str
    peers: list[Peer] = field(default_factory=list)  # every connection so far
    open: int = 0


@asynccontextmanager
async def scripted(
    script: Callable[[Peer], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Scripted]:
    """A server that plays `script` on every connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(len(found.peers), reader, writer)
        found.peers.append(peer)
        found.open += 1
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client left
        finally:
            found.open -= 1
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    found = Scripted(f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield found
    finally:
        server.close()
