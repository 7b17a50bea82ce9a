"""One connection to an upstream: an asyncio protocol that carries one exchange at a time.

httptools (llhttp) parses. It is strict about conflicting lengths, obs-fold and bare line feeds; what it lets
through that we do not want (a body cut short, bytes after the end, upgrades) is refused here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import httptools

from backends.http.errors import HttpError, HttpTimeout, ProtocolError, TooLarge

MAX_HEADER_BYTES = 64 * 1024
"""Names and values of one answer's headers, those of interim answers and trailers included."""
HIGH_WATER = 256 * 1024
"""Body bytes waiting for a slow reader before we stop reading from the socket."""

Headers = tuple[tuple[str, str], ...]
_JOINED = 32 * 1024
"""Bodies up to this size go out together with their head, in one piece."""


class Connection(asyncio.Protocol):
    """States: idle, waiting for a head, in a body, closed. The client owns it between exchanges."""

    def __init__(self, where: str, on_idle_close: Callable[[Connection], None], on_wait: Callable[[], None]) -> None:
        """`on_wait` is called whenever it begins to wait for its server: `check` is then to be called now and then."""
        self._where = where
        self._on_idle_close, self._on_wait = on_idle_close, on_wait
        self._parser = httptools.HttpResponseParser(self)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.writable = True
        self.closed = False
        self.idle_since = 0.0
        self._busy = False
        self._reset("GET")

    def _reset(self, method: str) -> None:
        self._method = method
        self.received = False  # any byte of this exchange
        self.status = 0
        self.raw_headers: list[tuple[bytes, bytes]] = []  # names in lower case
        self._limit: int | None = None  # most bytes of a body that is wanted whole; None: it is taken as it comes
        self._header_bytes = 0  # in whole headers
        self._heard = False  # the parser has found something in the bytes that came last
        self._unheard = 0  # bytes since then
        self.head_done = False
        self.complete = False
        self._reusable = True
        self._until_close = False
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline, self._waits_for = 0.0, ("", 0.0)

    @property
    def headers(self) -> Headers:
        return as_text(self.raw_headers)

    # --- for the client -------------------------------------------------------------------------------------------

    def begin(self, method: str, head: bytes, body: Sequence[bytes | memoryview], limit: int | None) -> None:
        """Begin an exchange, of which the answer's body is wanted whole where `limit` says how long it may be. Raises
        HttpError."""
        self._reset(method)
        self._busy, self._limit = True, limit
        if self.closed or self._transport is None:
            raise ProtocolError(f"{self._where}: it closed the connection before it was asked")
        if len(body) == 1 and len(body[0]) <= _JOINED:
            self._transport.write(head + body[0])
        else:
            self._transport.writelines([head, *body])

    async def sent(self, timeout_s: float) -> None:
        """Until the request is written, or answered before that. Raises HttpError."""
        deadline = self._loop.time() + timeout_s
        while not self.writable and not self.head_done:
            self._raise_error()
            await self._wait(deadline, timeout_s, "the request is not taken")

    async def head(self, timeout_s: float) -> None:
        """Until the response's head is in. Raises HttpError."""
        deadline = self._loop.time() + timeout_s
        while not self.head_done:
            self._raise_error()
            await self._wait(deadline, timeout_s, "no answer")

    async def whole(self, first_byte_s: float, idle_s: float) -> bytes:
        """All of the answer's body. Raises HttpError."""
        while not self.complete:
            self._raise_error()
            seen, timeout_s = self._buffered, idle_s if self.head_done else first_byte_s
            deadline = self._loop.time() + timeout_s  # for a byte of the body: framing alone is no progress
            what = "the answer stopped arriving" if self.head_done else "no answer"
            had_head = self.head_done
            while not self.complete and self._buffered == seen and self.head_done == had_head:
                self._raise_error()
                await self._wait(deadline, timeout_s, what)
        self._raise_error()
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def chunk(self, timeout_s: float) -> bytes | None:
        """The body bytes that have arrived, at least one; None at its end. Raises HttpError."""
        deadline = self._loop.time() + timeout_s  # for a byte of the body: framing alone is no progress
        while True:
            if self._chunks:
                data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
                self._chunks.clear()
                self._buffered = 0
                if self._paused and self._transport is not None and not self._transport.is_closing():
                    self._paused = False
                    self._transport.resume_reading()
                return data
            self._raise_error()
            if self.complete:
                return None
            await self._wait(deadline, timeout_s, "the answer stopped arriving")

    def finish(self) -> bool:
        """End the exchange; whether the connection can carry another."""
        self._busy = False
        usable = self.complete and self._reusable and not self.closed and self._error is None
        if usable and self._transport is not None and self._transport.get_write_buffer_size():
            usable = False  # answered before the request was all written: its rest is in the way
        if not usable:
            self.abort()
        return usable

    def abort(self) -> None:
        """Close at once. Whoever waits for more of the answer is told."""
        self._busy = False
        self._fail(ProtocolError(f"{self._where}: closed from this side before the end of the answer"))
        if self._transport is not None and not self.closed:
            self.closed = True
            self._transport.abort()

    async def _wait(self, deadline: float, timeout_s: float, what: str) -> None:
        waiter = self._waiter = self._loop.create_future()
        self._deadline, self._waits_for = deadline, (what, timeout_s)
        self._on_wait()
        try:
            await waiter
        finally:
            self._waiter = None

    def check(self, now: float) -> bool:
        """Whether it waits for its server; no longer than it has time."""
        if self._waiter is None:
            return False
        if now >= self._deadline and not self._waiter.done():
            what, timeout_s = self._waits_for
            self._fail(HttpTimeout(f"{self._where}: {what} for {timeout_s:g} s"))
        return True

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _fail(self, error: HttpError) -> None:
        if self.complete:
            self._reusable = False  # the answer is whole; what follows it only spoils the connection
        elif self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- asyncio.Protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own do not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        if not self._busy or self.complete:
            # Bytes that belong to no exchange: the next answer could not be told from them.
            self._reusable = False
            if not self._busy:
                self._on_idle_close(self)
                self.abort()
            return
        self.received, self._heard = True, False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(self._switches())
        except httptools.HttpParserError as error:
            # A callback's own error arrives as the context of the parser's.
            cause = error.__context__
            known = isinstance(cause, HttpError)
            self._fail(cause if known else ProtocolError(f"{self._where}: not an HTTP/1.1 answer"))
        self._unheard = 0 if self._heard else self._unheard + len(data)
        if self._unheard > 2 * MAX_HEADER_BYTES:  # a header without an end reaches no callback
            self._fail(self._too_large())
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.writable = True
        if not self._busy:
            self._on_idle_close(self)
            return
        if self._until_close and self.head_done and exc is None and not self.complete:
            self.complete = True  # a body without a length ends where the connection does
        elif not self.complete:
            where = "in the middle of its answer" if self.received else "before it answered"
            self._fail(ProtocolError(f"{self._where}: it closed the connection {where}"))
        self._wake()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._wake()

    # --- httptools ------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise ProtocolError(f"{self._where}: a second answer where one was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._heard = True
        self._header_bytes += len(name) + len(value) + len(": \r\n")
        if self._header_bytes > MAX_HEADER_BYTES:
            raise self._too_large()
        if not self.head_done:  # trailers are read past
            self.raw_headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._heard = True
        status = self._parser.get_status_code()
        if status == 101:
            raise self._switches()
        if 100 <= status < 200:
            self.raw_headers.clear()
            return
        self.status = status
        self._check_framing()
        self._reusable = self._parser.should_keep_alive()
        self.head_done = True
        if self._method == "HEAD":
            # llhttp cannot know that no body follows; the length that was announced is not to be awaited.
            self.complete = True
            self._reusable = False

    def _check_framing(self) -> None:
        lengths = encodings = 0
        for name, value in self.raw_headers:
            if name == b"content-length":
                lengths += 1
                if self._limit is not None and value.isdigit() and int(value) > self._limit:
                    raise self._body_too_large(self._limit)
            elif name == b"transfer-encoding":
                encodings += 1 if value.strip().lower() == b"chunked" else 2
        if lengths + encodings > 1:
            raise ProtocolError(f"{self._where}: it gives its answer's length in conflicting ways")
        self._until_close = not lengths and not encodings and self.status not in (204, 304)

    def on_body(self, data: bytes) -> None:
        self._heard = True
        self._chunks.append(data)
        self._buffered += len(data)
        if self._limit is not None:
            if self._buffered > self._limit:
                raise self._body_too_large(self._limit)
        elif self._buffered > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self._heard = True
        if self.head_done:
            self.complete = True

    def _switches(self) -> HttpError:
        return ProtocolError(f"{self._where}: it switches protocols, which nobody asked for")

    def _body_too_large(self, limit: int) -> HttpError:
        return TooLarge(f"{self._where}: the answer is over {limit} bytes")

    def _too_large(self) -> HttpError:
        return TooLarge(f"{self._where}: headers over {MAX_HEADER_BYTES} bytes")


def as_text(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    return tuple((name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in headers)


def connection_factory(
    where: str, on_idle_close: Callable[[Connection], None], on_wait: Callable[[], None]
) -> Callable[[], Any]:
    return lambda: Connection(where, on_idle_close, on_wait)
