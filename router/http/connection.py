"""One client's connection: requests are taken off it one after the other, and answered in that order.

httptools (llhttp) parses. It is strict about conflicting and doubled lengths, obs-fold, bare line feeds and spaces
before a colon; what it lets through that could be read in two ways is refused here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

import httptools
import msgspec

from router.http.direct import LARGE, DirectBody
from router.http.request import JSON, Inbound, RawHeaders

if TYPE_CHECKING:
    from router.http.server import HttpServer

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line and its headers, trailers included."""
_WAITING = 16
"""Requests that are read before the one before them is answered: further on a client that leaves is noticed later."""
_TOO_LONG = f"the request's head is over {MAX_HEAD_BYTES} bytes"


class Refused(Exception):
    """What came is no request of ours; `status` is what the client is told."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ServerConnection(asyncio.Protocol):
    """States: idle, in a head, answering (one request at a time; others that came with it wait), closed."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: RawHeaders = []
        self._head_bytes = 0
        self._in_head = False
        self._heard = False  # the parser has found something in the bytes that came last
        self._unheard = 0  # bytes since then
        self._upgrades = False  # the request has a body, and asks for another protocol
        self._incoming: Inbound | None = None  # whose body is coming in
        self._current: Inbound | None = None  # that is being answered
        self._waiting: deque[Inbound] = deque()
        self._direct: DirectBody | None = None  # that reads in place of this
        self._closing = False  # no other request is taken
        self._paused = False
        self._drain_waiter: asyncio.Future[None] | None = None
        self.writable = True
        self.since = 0.0
        """When it began to wait for its client: for a request, or for the rest of one."""

    @property
    def date(self) -> str:
        return self._server.date

    @property
    def idle(self) -> bool:
        """Whether it has nobody to answer."""
        return self._current is None

    @property
    def in_request(self) -> bool:
        """Whether part of a request has come in, and not all."""
        return self._in_head or (self._incoming is not None and not self._incoming.complete)

    # --- asyncio.Protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own do not inherit from asyncio's
        self.since = self._server.now
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._closing and self._incoming is None:
            return
        self._heard = False
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, Refused):
                self._refuse(cause.status, str(cause))
            elif self._closing and self._incoming is None:
                pass  # bytes behind a request that was to be the last
            else:
                self._refuse(400, f"this is no valid HTTP/1.1 request: {error}")
        self._unheard = 0 if self._heard else self._unheard + len(data)
        if self._unheard > 2 * MAX_HEAD_BYTES:  # a header without an end reaches no callback
            self._refuse(431, _TOO_LONG)
        incoming = self._incoming
        if len(self._waiting) >= _WAITING or not self.writable or (incoming is not None and not incoming.wanted):
            self._pause()

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._upgrades:
                self._closing = True  # we go on in HTTP/1.1; what else was sent belongs to another protocol
                return
            # llhttp takes everything behind the head for the other protocol. We stay with this one, in which it is the
            # body: the same request once more, without what asks for the other.
            self._upgrades = False
            asks = (b"upgrade", b"http2-settings")
            lines = [
                b"%b: %b\r\n" % (name, value)
                for name, value in self._headers
                if name not in asks and (name != b"connection" or value.lower() == b"close")
            ]
            head = b"%b %b HTTP/1.1\r\n%b\r\n" % (self._parser.get_method(), self._url, b"".join(lines))
            self._parser = httptools.HttpRequestParser(self)
            self._parser.feed_data(head + data[upgrade.args[0] :])

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._direct = None
        self._server.closed(self)
        for request in (self._current, self._incoming, *self._waiting):
            if request is not None:
                request.lost()
        self._waiting.clear()
        self._wake_drain()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._wake_drain()
        if self._current is None:
            self._next()

    # --- httptools ------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url, self._headers, self._head_bytes, self._in_head, self._heard = b"", [], 0, True, True
        if self._current is None:
            self.since = self._server.now

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if self._in_head:  # trailers are read past
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._closing:
            return
        parser = self._parser
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Refused(505, "this server speaks HTTP/1.1")
        request = Inbound(
            self, parser.get_method().decode(), _path(self._url), self._headers,
            http_1_1=version == "1.1",
            keep_alive=version == "1.1" and parser.should_keep_alive() and not self._server.last,
        )  # fmt: skip
        hosts, upgrades, has_body = 0, False, False
        for name, value in self._headers:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                has_body = True
                if value.lower() != b"chunked" or version == "1.0":
                    raise Refused(501, "the only transfer-encoding here is chunked")
            elif name == b"content-length":
                request.announced = int(value)
                has_body = has_body or request.announced > 0
            elif name == b"content-type":
                request.binary = value == b"application/octet-stream"
            elif name == b"upgrade":
                upgrades = parser.should_upgrade()
            elif name == b"expect" and value.lower() == b"100-continue":
                request.expects_continue = version == "1.1"
        if hosts > 1 or (not hosts and version == "1.1"):
            raise Refused(400, "a request has one host header")
        if upgrades and has_body:
            self._upgrades = True  # and comes again (`_feed`)
            return
        if upgrades:
            request.keep_alive = False
        self._closing = not request.keep_alive
        self._incoming = request
        if self._current is None and self.writable:
            self._start(request)
        else:
            self._waiting.append(request)

    def on_body(self, data: bytes) -> None:
        self._heard = True
        if self._incoming is not None:
            self._incoming.feed(data)

    def on_message_complete(self) -> None:
        self._heard = True
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.complete = True
            incoming.wake()
            if self._current is None:  # it was answered before it was all here
                self._next()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        self._heard = True
        if self._head_bytes > MAX_HEAD_BYTES:
            raise Refused(431, _TOO_LONG)

    # --- for the request --------------------------------------------------------------------------------------------

    def write(self, *data: bytes) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            if len(data) == 1:
                transport.write(data[0])
            else:
                transport.writelines(data)

    def want_body(self, request: Inbound) -> None:
        if request is not self._current:
            return
        transport = self._transport
        large = request is self._incoming and request.binary and request.announced >= LARGE
        if large and self._direct is None and transport is not None and not transport.is_closing():
            self._direct = DirectBody(self, request.announced, request.taken(), self._whole)
            transport.set_protocol(self._direct)
        self._resume()

    def make_room(self, size: int) -> bool:
        return self._server.make_room(size)

    async def drained(self) -> None:
        while not self.writable and self._transport is not None and not self._transport.is_closing():
            self._drain_waiter = asyncio.get_running_loop().create_future()
            try:
                await self._drain_waiter
            finally:
                self._drain_waiter = None

    def done(self, request: Inbound) -> None:
        if request is not self._current:
            return
        self._current = None
        if self.writable:  # else it still waits for its client to read
            self.since = self._server.now
        if request.complete:
            self._next() if request.keep_alive else self.close()
            return
        # The rest of its body is read past: were the connection closed with bytes unread, the answer could be lost.
        self._resume()
        if not request.keep_alive and self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    # ----------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Once what was written has gone."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def expire(self) -> None:
        """It has waited for its client long enough: for a request, or to have its answer taken."""
        unread = self._transport is not None and self._transport.get_write_buffer_size() > 0
        self.abort() if unread else self.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def wind_down(self) -> None:
        """Let the next answer be the last, where its client can still be told. An idle connection stays: its client
        may be sending a request just now."""
        last = self._waiting[-1] if self._waiting else self._current
        if last is not None and not last.begun:
            last.keep_alive = False
            self._closing = True

    def retire(self) -> None:
        """Take no other request than those that have come in."""
        self._closing = True
        if self._current is None and not self._waiting:
            self.close()
        elif self._waiting:
            self._waiting[-1].keep_alive = False
        elif self._current is not None:
            self._current.keep_alive = False

    def _start(self, request: Inbound) -> None:
        self._current = request
        request.task = self._server.answer(request)

    def _whole(self, body: memoryview) -> None:
        """The body that was read directly is all there. The parser has not seen it, and begins anew behind it."""
        if self._transport is not None:
            self._transport.set_protocol(self)
        self._direct = None
        self._parser = httptools.HttpRequestParser(self)
        if self._incoming is not None:
            self._incoming.feed(body)
        self.on_message_complete()

    def _next(self) -> None:
        if not self.writable:
            return  # who does not read is not answered any further
        if self._waiting:
            self._start(self._waiting.popleft())
        elif self._closing and self._incoming is None:
            self.close()
        if len(self._waiting) < _WAITING:
            self._resume()

    def _pause(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _refuse(self, status: int, message: str) -> None:
        """The connection cannot be read any further. Requests that are all here are answered, and then it ends; without
        any the client is told why."""
        self._closing = True
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.lost()
            if incoming in self._waiting:
                self._waiting.remove(incoming)
        current = self._current
        if self._waiting:
            self._waiting[-1].keep_alive = False
        elif current is not None and current is not incoming:
            current.keep_alive = False
        elif current is not None and current.begun:
            self.close()
        else:
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": "bad_request"}
            refusal = Inbound(self, "GET", "", [], keep_alive=False)
            refusal.complete = True
            self._current = refusal
            refusal.respond(status, msgspec.json.encode({"error": error}), JSON)

    def _wake_drain(self) -> None:
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)


def _path(url: bytes) -> str:
    """The path of a request target, percent-encoding read."""
    if not url.startswith(b"/"):  # absolute form, or that of CONNECT and OPTIONS
        try:
            url = httptools.parse_url(url).path or b"/"
        except httptools.HttpParserInvalidURLError:
            raise Refused(400, "the request target is not valid") from None
    path = url.partition(b"?")[0].partition(b"#")[0].decode("latin-1")
    return unquote(path) if "%" in path else path
