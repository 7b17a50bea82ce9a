"""The little of ASGI that a bare app needs: reading a bounded body, sending answers, noticing a client that left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from router.errors import ApiError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[str, str]]


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


async def read_body(receive: Receive, content_length: bytes | None, limit: int) -> bytes:
    """The whole body. Raises ApiError 413 over `limit` bytes, before reading where the length is announced."""
    too_large = ApiError("too_large", f"the body is over {limit} bytes", "send less, or ask who runs the router")
    if content_length is not None and content_length.isdigit() and int(content_length) > limit:
        raise too_large
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise too_large
        return body
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


async def respond(send: Send, status: int, body: bytes, headers: Headers) -> None:
    await send(_start(status, (*headers, ("content-length", str(len(body))))))
    await send({"type": "http.response.body", "body": body})


async def begin_stream(send: Send, headers: Headers) -> None:
    await send(_start(200, headers))


async def send_chunk(send: Send, chunk: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": not last})


def _start(status: int, headers: Headers) -> Message:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": encoded}


class Departure:
    """While entered, cancels the current task when the client goes away; `async with` then raises ClientGone.

    To be entered once the body has been read: from then on, `receive` returns only to tell of a disconnect.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._dismissed = False

    async def __aenter__(self) -> Departure:
        self._task = asyncio.current_task()
        self._watcher = asyncio.create_task(self._watch())
        return self

    def dismiss(self) -> None:
        """Stop watching, before the answer's end is sent: servers report that as a disconnect too."""
        self._dismissed = True

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._dismissed and self._task is not None:
            self._gone = True
            self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._watcher.cancel()
        if kind is asyncio.CancelledError and self._gone and self._task is not None and self._task.uncancel() == 0:
            raise ClientGone from None
