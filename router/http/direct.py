"""A large binary body, read from the socket into the place where it stays: no piece of it is copied in Python."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable

LARGE = 256 * 1024
"""Bytes from which on that is worth it."""


class DirectBody(asyncio.BufferedProtocol):
    """Takes a connection's bytes in place of its own protocol until the body is whole."""

    def __init__(
        self, owner: asyncio.Protocol, size: int, begun: bytes, on_whole: Callable[[memoryview], None]
    ) -> None:
        """`begun` is what has been read of the body already."""
        self._owner: asyncio.Protocol | None = owner
        self._on_whole: Callable[[memoryview], None] | None = on_whole
        self._view = memoryview(mmap.mmap(-1, size))  # pages that nobody has written to take no memory yet
        self._view[: len(begun)] = begun
        self._at = len(begun)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        self._at += nbytes
        if self._at == len(self._view) and self._on_whole is not None:
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
