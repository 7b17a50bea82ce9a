"""Messages between the router and the process with the model: four bytes of length, then MessagePack."""

from __future__ import annotations

import socket
from typing import Any

import msgspec

Request = list[str]
"""Texts."""
Reply = list[list[tuple[int, int, str]]]
"""Of each text: where a name starts and ends, in characters, and what the model calls it. None in its place: the model
could not read them."""


class Closed(Exception):
    """The other side is gone."""


def send(peer: socket.socket, message: Any) -> None:
    data = msgspec.msgpack.encode(message)
    peer.sendall(len(data).to_bytes(4, "big") + data)


def receive(peer: socket.socket) -> bytes:
    return _exactly(peer, int.from_bytes(_exactly(peer, 4), "big"))


def _exactly(peer: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = peer.recv(min(size, 1 << 20))
        if not part:
            raise Closed
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
