"""One request as it comes in, and its answer as it goes out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol

from policies.types import RefusalCode
from router.errors import ApiError

Body = bytes | memoryview
"""A memoryview where the body is large and not text (`direct.py`)."""
RawHeaders = list[tuple[bytes, bytes]]
"""Names in lower case and values, in the order that they came in."""
JSON = "content-type: application/json\r\n"
"""As it stands in an answer's head."""
HIGH_WATER = 64 * 1024
"""Bytes of a body that are taken in before anybody asks for them."""
_SMALL = 4096
_JOINED = 32 * 1024
"""Bodies up to this size go out together with their head, in one piece."""
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class ClientGone(Exception):
    """The client closed the connection, or does not read what it is sent: there is nobody to answer."""


class Peer(Protocol):
    """The connection that a request came by."""

    @property
    def date(self) -> str:
        """The header of this second, line end included."""

    writable: bool  # whether what is written is taken in time

    def write(self, *data: bytes) -> None: ...

    def want_body(self, request: Inbound) -> None:
        """Somebody waits for the rest of the body."""

    def abort(self) -> None: ...

    def make_room(self, size: int) -> bool:
        """Whether so many more bytes of bodies may be held; they count from then on. Negative: no more."""

    def done(self, request: Inbound) -> None:
        """The answer is complete."""

    async def drained(self) -> None:
        """Until the client has taken in what was written to it."""


def lines(headers: Iterable[tuple[str, str]]) -> str:
    """Headers as they stand in an answer's head."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


class Inbound:
    """Belongs to one event loop. `gone` says that nobody waits for the answer any more."""

    __slots__ = (
        "_answered", "_parts", "_peer", "_room", "_size", "_waiter", "announced", "begun", "binary", "chunked",
        "complete", "expects_continue", "gone", "headers", "keep_alive", "method", "path", "status", "task",
    )  # fmt: skip

    def __init__(
        self, peer: Peer, method: str, path: str, headers: RawHeaders, *, http_1_1: bool = True, keep_alive: bool = True
    ) -> None:
        self.method, self.path, self.headers = method, path, headers
        self.keep_alive = keep_alive
        self.chunked = http_1_1  # how a body without a length goes out; else the connection's end is its end
        self.expects_continue = False
        self.complete = False  # its body is all there
        self.begun = False  # part of the answer has been written
        self.status = 0  # of the answer, once it has begun
        self.gone = False
        self.task: asyncio.Task[None] | None = None  # that answers it: cancelled when the client goes away
        self._peer = peer
        self._parts: list[Body | bytearray] = []
        self._size = 0
        self._room = 0  # bytes that count as held for it
        self.announced = 0  # bytes of the body, where its length is
        self.binary = False  # it is no text
        self._waiter: asyncio.Future[None] | None = None
        self._answered = False

    # --- in ---------------------------------------------------------------------------------------------------------

    async def body(self, limit: int, timeout_s: float) -> Body:
        """All of the body. Raises ApiError 413 over `limit` bytes, before reading where its length is announced, 408
        where it is not there within `timeout_s`, 429 where too many bytes of bodies are held already; ClientGone."""
        if not self.complete:
            if self.announced > limit:
                raise _too_large(limit)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrive(limit)
            except TimeoutError:
                raise ApiError("request_timeout", f"the body did not come within {timeout_s:g} s") from None
        if self._size > limit:
            raise _too_large(limit)
        parts, self._parts = self._parts, []
        only = parts[0] if len(parts) == 1 else None
        return b"".join(parts) if only is None or isinstance(only, bytearray) else only

    async def _arrive(self, limit: int) -> None:
        if self.expects_continue and not self._size:
            self._peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.expects_continue = False
        while not self.complete and self._size <= limit:
            if self.gone:
                raise ClientGone
            self._hold(max(self.announced, self._size))
            self._waiter = asyncio.get_running_loop().create_future()
            self._peer.want_body(self)
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _hold(self, size: int) -> None:
        more = size - self._room
        if more > 0 and not self._peer.make_room(more):
            raise ApiError(
                RefusalCode.OVERLOADED,
                "the router holds as many bytes of request bodies as it may",
                "try again later, or send less at once",
                headers=(("retry-after", "1"),),
            )
        self._room = max(self._room, size)

    def _let_go(self) -> None:
        self._parts = []
        if self._room:
            self._peer.make_room(-self._room)
            self._room = 0

    @property
    def wanted(self) -> bool:
        """Whether more of the body may come in."""
        return self._answered or self._waiter is not None or self._size <= HIGH_WATER

    def feed(self, data: Body) -> None:
        """Called by the connection for each piece of the body."""
        if self._answered:
            return
        if self._parts and len(data) < _SMALL:  # pieces of a few bytes would take many times their size
            if isinstance(self._parts[-1], bytearray):
                self._parts[-1] += data
            else:
                self._parts.append(bytearray(data))
        else:
            self._parts.append(data)
        self._size += len(data)
        self.wake()

    def taken(self) -> bytes:
        """What has come in so far, which is then somebody else's to keep."""
        parts, self._parts, self._size = self._parts, [], 0
        return b"".join(parts)

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def lost(self) -> None:
        """Called by the connection when it has ended before the answer has."""
        if self.gone:
            return
        self.gone = True
        self._let_go()
        self.wake()
        if self.task is not None and not self._answered:
            self.task.cancel()

    # --- out --------------------------------------------------------------------------------------------------------

    def respond(self, status: int, body: bytes, head: str) -> None:
        """The whole answer; `head` is its headers, as of `lines`, without the length."""
        start = self._head(status, f"{head}content-length: {len(body)}\r\n")
        if self.method == "HEAD":
            self._peer.write(start)
        elif len(body) <= _JOINED:
            self._peer.write(start + body)
        else:
            self._peer.write(start, body)
        self._done()

    def begin(self, head: str) -> None:
        """The head of an answer that comes in pieces."""
        if self.chunked:
            head += "transfer-encoding: chunked\r\n"
        else:
            self.keep_alive = False
        self._peer.write(self._head(200, head))

    def send(self, chunk: bytes) -> None:
        if chunk:
            self._peer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self.chunked else chunk)

    def end(self) -> None:
        """After the last piece."""
        if self.chunked:
            self._peer.write(b"0\r\n\r\n")
        self._done()

    @property
    def slow(self) -> bool:
        """Whether the client is behind with reading: `drained` is to be waited for."""
        return not self._peer.writable

    async def drained(self, timeout_s: float) -> None:
        """Raises ClientGone for a client that does not read."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._peer.drained()
        except TimeoutError:
            raise ClientGone from None
        if self.gone:
            raise ClientGone

    @property
    def answered(self) -> bool:
        """Whether all of the answer has been written."""
        return self._answered

    def abandon(self) -> None:
        """There will be no answer, or no more of it: the connection ends."""
        self._peer.abort()

    def _head(self, status: int, headers: str) -> bytes:
        self.begun, self.status = True, status
        if self.expects_continue and not self.complete:  # whether its body still comes nobody knows
            self.keep_alive = False
        close = "" if self.keep_alive else "connection: close\r\n"
        return f"{_STATUS_LINES[status]}{self._peer.date}{headers}{close}\r\n".encode("latin-1")

    def _done(self) -> None:
        self._answered = True
        self._let_go()
        self._peer.done(self)


def _too_large(limit: int) -> ApiError:
    return ApiError("too_large", f"the body is over {limit} bytes", "send less, or ask who runs the router")
