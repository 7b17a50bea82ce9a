"""A large binary body, read from the socket into the place where it stays: no piece of it is copied in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LARGE = 256 * 1024
"""Bytes from which on that is worth it."""


class DirectBody(asyncio.BufferedProtocol):
    """Takes a connection's bytes in place of its own protocol until the body is whole."""

    def __init__(
        self, owner: asyncio.Protocol, size: int, begun: bytes, on_whole: Callable[[memoryview], None]
    ) -> None:
        """`begun` is what has been read of the body already."""
        self._owner, self._on_whole = owner, on_whole
        self._view = memoryview(bytearray(size))  # pages that nobody has written to take no memory yet
        self._view[: len(begun)] = begun
        self._at = len(begun)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._at :]

    def buffer_updated(self, nbytes: int) -> None:
        self._at += nbytes
        if self._at == len(self._view):
            self._on_whole(self._view.toreadonly())

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()
