"""A large binary body, read from the socket into the place where it stays: all but its first MiB is copied nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LARGE = 256 * 1024
"""Bytes from which on that is worth it."""
_FIRST = 1024 * 1024
"""Bytes that there is room for before more than so many have come: an announcement alone must not take memory. (Pages
that the system gives when they are first written to would do so, too, and cost twice the rest.)"""


class DirectBody(asyncio.BufferedProtocol):
    """Takes a connection's bytes in place of its own protocol until the body is whole."""

    def __init__(
        self, owner: asyncio.Protocol, size: int, begun: bytes, on_whole: Callable[[memoryview], None]
    ) -> None:
        """`begun` is what has been read of the body already."""
        self._owner: asyncio.Protocol | None = owner
        self._on_whole: Callable[[memoryview], None] | None = on_whole
        self._size = size
        self._view = memoryview(bytearray(min(size, max(_FIRST, len(begun) + 1))))
        self._view[: len(begun)] = begun
        self._at = len(begun)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._at == len(self._view) < self._size:
            view = memoryview(bytearray(self._size))
            view[: self._at] = self._view
            self._view = view
        return self._view[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        self._at += nbytes
        if self._at == self._size and self._on_whole is not None:
            whole, view = self._on_whole, self._view.toreadonly()
            self._let_go()
            whole(view)

    def _let_go(self) -> None:
        """Of all that would keep it, and it keep, until the collector comes."""
        self._owner, self._on_whole, self._view = None, None, memoryview(b"")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        owner = self._owner
        self._let_go()
        if owner is not None:
            owner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.pause_writing()

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner.resume_writing()
