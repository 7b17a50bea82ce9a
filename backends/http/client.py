"""A client for one origin: a pool of keep-alive connections, timeouts, limits, TLS."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
import urllib.parse
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from backends.http.connection import Connection, Headers, as_text, connection_factory
from backends.http.errors import ConnectError, ConnectTimeout, HttpError, ProtocolError
from backends.http.tls import TlsFiles, reason, ssl_context

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_TARGET = re.compile(r"[\x21-\x7e]+\Z")
_MAX_STARTS = 64


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, until the first byte of the answer, between bytes of its body."""

    connect_s: float = 5.0
    first_byte_s: float = 60.0
    idle_s: float = 60.0


class HttpResponse:
    """A response; `body` is empty when it is streamed, and `chunks` then gives it as it arrives."""

    def __init__(self, client: HttpClient, connection: Connection, body: bytes = b"") -> None:
        self._client = client
        self._connection: Connection | None = connection
        self.status: int = connection.status
        self._raw = connection.raw_headers
        self.body = body

    @property
    def headers(self) -> Headers:
        return as_text(self._raw)

    def header(self, name: str) -> str | None:
        """The first value of a header, by its lower-case name."""
        wanted = name.encode("latin-1")
        for found, value in self._raw:
            if found == wanted:
                return value.decode("latin-1").strip(" \t")
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Body bytes as they arrive. Raises HttpError where the body breaks off."""
        connection = self._connection
        if connection is None:
            return
        idle_s = self._client.timeouts.idle_s
        try:
            # Once closed, the connection may carry another exchange, whose bytes are not ours.
            while self._connection is not None and (data := await connection.chunk(idle_s)) is not None:
                yield data
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Free the connection: back to the pool after the body's end, closed before. May be called twice."""
        self.release()

    def release(self) -> None:
        """`aclose` for who does not wait: nothing in it does."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._client.give_back(connection)


class HttpClient:
    """HTTP/1.1 to one origin. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        *,
        timeouts: Timeouts | None = None,
        tls: TlsFiles | None = None,
        max_connections: int = 256,
        max_idle: int = 64,
        idle_expiry_s: float = 30.0,
        max_body: int = 256 * 1024 * 1024,
    ) -> None:
        """`url` may carry a path prefix. Raises ValueError for anything but http(s)://host[:port][/prefix], and for
        TLS files that cannot be used."""
        parts = urllib.parse.urlsplit(url)
        prefix = parts.path.rstrip("/")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("not a URL of the form http(s)://host[:port][/prefix]")
        if not _TARGET.match(parts.hostname) or not _TARGET.match(prefix or "/"):
            raise ValueError("the URL holds a character that must be escaped (hosts as xn--…, paths as %…)")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = prefix
        literal = f"[{self._host}]" if ":" in self._host else self._host
        self._authority = literal if parts.port is None else f"{literal}:{parts.port}"
        self._where = f"{literal}:{self._port}"
        self._ssl = ssl_context(tls or TlsFiles()) if parts.scheme == "https" else None
        self.timeouts = timeouts or Timeouts()
        self._max_connections, self._max_idle = max_connections, max_idle
        self._idle_expiry_s, self._max_body = idle_expiry_s, max_body
        self._open = 0  # connections, idle ones included, and those being made
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []  # the most recently used last
        # Who waits for one of a full house: gets a connection, or None and with it room to make one. Handed over
        # rather than put back, so that nobody who comes later is served first.
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False
        self._watching: asyncio.TimerHandle | None = None
        self._tick_s = min(max(min(self.timeouts.first_byte_s, self.timeouts.idle_s) / 20, 0.01), 0.25)
        self._starts: dict[tuple[str, str], bytes] = {}  # checked request lines, with the host header

    @property
    def where(self) -> str:
        """host:port of the origin, with which the messages of errors begin."""
        return self._where

    @property
    def connections(self) -> int:
        """Open connections, idle ones included, and those being made."""
        return self._open

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | Sequence[bytes | memoryview] = b"",
        *,
        stream: bool = False,
        again: bool = True,
        prepared: bytes = b"",
    ) -> HttpResponse:
        """Send a request; its response, whole or (`stream`) as soon as its head is in. `prepared` is what `prepare`
        made of those headers that every request has.

        A reused connection that turns out dead before any byte of the answer is replaced once by a fresh one, where
        `again` says that the request may be sent again: nobody can tell whether the server has seen it.
        Raises HttpError; ValueError for headers or a path that could smuggle another request.
        """
        if isinstance(body, bytes):
            parts: Sequence[bytes | memoryview] = (body,)
            head = self._head(method, path, prepared, headers, len(body))
        else:
            parts = body
            head = self._head(method, path, prepared, headers, sum(len(part) for part in parts))
        times, limit = self.timeouts, None if stream else self._max_body
        for attempt in (0, 1):
            connection, reused = await self._take(fresh=attempt > 0)
            try:
                connection.begin(method, head, parts, limit)
                if not connection.writable:
                    await connection.sent(times.first_byte_s)
                if stream:
                    await connection.head(times.first_byte_s)
                    return HttpResponse(self, connection)
                whole = await connection.whole(times.first_byte_s, times.idle_s)
            except HttpError as error:
                stale = reused and not connection.received and isinstance(error, ProtocolError)
                self._drop(connection)
                if stale and again and attempt == 0:
                    continue
                raise
            except BaseException:
                self._drop(connection)
                raise
            response = HttpResponse(self, connection, whole)
            response.release()
            return response
        raise AssertionError("the second attempt returns or raises")

    async def aclose(self) -> None:
        """Close every connection. Requests in progress fail."""
        self._closed = True
        self._close_idle()
        for connection in self._connections:
            connection.abort()  # whoever uses it finds out, and drops it
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(self._is_closed())

    def give_back(self, connection: Connection) -> None:
        """Called by a response that is done with its connection."""
        if not connection.finish() or self._closed:
            self._drop(connection)
        elif (waiter := self._next_waiter()) is not None:
            waiter.set_result(connection)
        elif len(self._idle) >= self._max_idle:
            self._drop(connection)
        else:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)

    async def _take(self, *, fresh: bool) -> tuple[Connection, bool]:
        """A connection for one exchange, and whether it has been used before."""
        if self._closed:
            raise self._is_closed()
        if fresh:  # the others are as old as the one that was dead
            self._close_idle()
        else:
            self._expire()
        if self._idle:
            return self._idle.pop(), True
        if self._open < self._max_connections:
            self._open += 1
        elif (connection := await self._turn()) is not None:
            if not fresh:
                return connection, True
            self._abort(connection)  # and its place is ours
        return await self._connect(), False

    async def _turn(self) -> Connection | None:
        """Wait in line for a connection, or for room to make one (None)."""
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled() and waiter.exception() is None:  # its turn had come: pass it on
                connection = waiter.result()
                if connection is None:
                    self._forget()
                else:
                    self.give_back(connection)
            raise

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                transport, connection = await self._dial()
        except TimeoutError:
            self._forget()
            raise ConnectTimeout(f"{self._where}: no connection within {self.timeouts.connect_s:g} s") from None
        except (OSError, ssl.SSLError, UnicodeError) as error:
            self._forget()
            raise ConnectError(f"{self._where}: {reason(error)}") from None
        except BaseException:
            self._forget()
            raise
        assert isinstance(connection, Connection)
        if self._closed:
            connection.abort()
            self._forget()
            raise self._is_closed()
        self._connections.add(connection)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    async def _dial(self) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """The name is looked up apart: where uvloop's `create_connection` is cancelled during its own lookup, and that
        fails then, an error that nobody retrieved gets into the log."""
        loop = asyncio.get_running_loop()
        factory = connection_factory(self._where, self._lost_while_idle, self._watch)
        name = self._host if self._ssl else None
        failed: OSError | None = None
        for family, _, _, _, address in await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
            host, port = str(address[0]), self._port
            try:
                return await loop.create_connection(
                    factory, host, port, family=family, ssl=self._ssl, server_hostname=name
                )
            except ssl.SSLError:  # it answers: another of its addresses would say the same
                raise
            except OSError as error:
                failed = failed or error
        raise failed or OSError("it has no address")

    def _watch(self) -> None:
        """One timer looks after all connections that wait: one for each exchange, or each chunk, would cost more than
        reading it. It stops when none waits."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._watching = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        if sum([connection.check(now) for connection in tuple(self._connections)]):
            self._watching = loop.call_later(self._tick_s, self._tick)

    def _drop(self, connection: Connection) -> None:
        self._abort(connection)
        self._forget()

    def _abort(self, connection: Connection) -> None:
        connection.abort()
        self._connections.discard(connection)

    def _forget(self) -> None:
        """One connection less: its room goes to the first in line."""
        waiter = self._next_waiter()
        if waiter is None:
            self._open -= 1
        else:
            waiter.set_result(None)

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _is_closed(self) -> ConnectError:
        return ConnectError(f"{self._where}: the client is closed")

    def _lost_while_idle(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
            self._drop(connection)

    def _expire(self) -> None:
        oldest = time.monotonic() - self._idle_expiry_s
        while self._idle and self._idle[0].idle_since < oldest:
            self._drop(self._idle.pop(0))

    def _close_idle(self) -> None:
        while self._idle:
            self._drop(self._idle.pop())

    def _head(self, method: str, path: str, prepared: bytes, headers: Sequence[tuple[str, str]], length: int) -> bytes:
        start = self._starts.get((method, path))
        if start is None:
            start = self._start(method, path)
            if len(self._starts) < _MAX_STARTS:
                self._starts[method, path] = start
        more = prepare(headers) if headers else b""
        if length or method not in ("GET", "HEAD"):
            return b"%b%b%bcontent-length: %d\r\n\r\n" % (start, prepared, more, length)
        return b"%b%b%b\r\n" % (start, prepared, more)

    def _start(self, method: str, path: str) -> bytes:
        target = self._prefix + path
        if not _TARGET.match(target) or not _NAME.match(method):
            raise ValueError("the method or path holds a character that a request line cannot carry")
        return f"{method} {target} HTTP/1.1\r\nhost: {self._authority}\r\n".encode("latin-1")


def prepare(headers: Sequence[tuple[str, str]]) -> bytes:
    """Headers as they stand in a request's head. Raises ValueError for those that could smuggle another request."""
    lines = ""
    for name, value in headers:
        if not _NAME.match(name) or not _VALUE.match(value):
            raise ValueError("a header holds a character that headers cannot carry")
        lines += f"{name}: {value}\r\n"
    return lines.encode("latin-1")
