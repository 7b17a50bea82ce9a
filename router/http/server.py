"""A listener: its connections, their time limits, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import socket
import time
from collections.abc import Awaitable, Callable

from router.http.connection import ServerConnection
from router.http.request import ClientGone, Inbound

log = logging.getLogger("pointsman")

Handler = Callable[[Inbound], Awaitable[None]]
KEEP_ALIVE_S = 75.0
"""Longer than common load balancers keep their connections, so that they close first."""
HEAD_S = 30.0
"""For the rest of a request's head, and for the rest of a body that nobody wants any more."""
MAX_BODIES = 1024 * 1024 * 1024
_LATE_S = 1.0
_TICK_S = 1.0
_BACKLOG = 2048


class HttpServer:
    """Belongs to one event loop."""

    def __init__(self, handler: Handler, sock: socket.socket, max_bodies: int = MAX_BODIES) -> None:
        """`max_bodies`: bytes of request bodies that are held at once; small ones that come with their head do not
        count."""
        self._handler, self._sock = handler, sock
        self._room = max_bodies
        self._connections: set[ServerConnection] = set()
        self._server: asyncio.Server | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._ending = False
        self._late: set[asyncio.Task[object]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.last = False
        """Each connection is closed after the answer that it waits for, or after its next one, and told so."""
        self.now = time.monotonic()  # to the second: it is for long waits
        self.date = _date()

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(self._connection, sock=self._sock, backlog=_BACKLOG)
        self._ticking = self._loop.call_later(_TICK_S, self._tick)

    def wind_down(self) -> None:
        """Take connections and requests as before, and have clients come back on other connections."""
        self.last = True
        for connection in tuple(self._connections):
            connection.wind_down()

    def retire(self) -> None:
        """Take no more connections and no more requests; what is in progress goes on."""
        self.last = True
        self._stop_listening()
        for connection in tuple(self._connections):
            connection.retire()

    def _stop_listening(self) -> None:
        """Connections that the kernel has accepted are ours, and would be reset with the socket: it does not hand them
        to others that listen on the same port. So they are taken first, and then no more, in the same breath."""
        server, self._server = self._server, None
        self._ending = True
        if server is None:
            return
        waiting: list[socket.socket] = []
        with contextlib.suppress(OSError):  # no more of them
            while True:
                waiting.append(self._sock.accept()[0])
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)
        server.close()
        for connection in waiting:
            connection.setblocking(False)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._connection, connection))
            self._late.add(task)
            task.add_done_callback(self._late.discard)

    def _connection(self) -> ServerConnection:
        return ServerConnection(self)

    @property
    def busy(self) -> int:
        """Connections with a request in progress, or part of one."""
        return sum(not connection.idle or connection.in_request for connection in self._connections)

    async def empty(self) -> None:
        """Until the last connection has ended."""
        await self._empty.wait()

    def close(self) -> None:
        """At once."""
        self.retire()
        if self._ticking is not None:
            self._ticking.cancel()
        for connection in tuple(self._connections):
            connection.abort()

    # --- for connections --------------------------------------------------------------------------------------------

    def opened(self, connection: ServerConnection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def closed(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def make_room(self, size: int) -> bool:
        if size > self._room:
            return False
        self._room -= size
        return True

    def answer(self, request: Inbound) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Inbound) -> None:
        try:
            await self._handler(request)
        except ClientGone:
            pass
        except Exception as error:  # handlers answer for their own errors: this is a defect
            log.error("a request was not answered: %s", type(error).__name__)
        if not request.answered:
            request.abandon()

    def _tick(self) -> None:
        self.now, self.date = time.monotonic(), _date()
        for connection in tuple(self._connections):
            waited = self.now - connection.since
            if self._ending and connection.idle and not connection.in_request and waited > _LATE_S:
                connection.expire()  # it came in the last moment, and asks for nothing
            elif connection.idle and waited > HEAD_S and (connection.in_request or waited > KEEP_ALIVE_S):
                connection.expire()
        self._ticking = self._loop.call_later(_TICK_S, self._tick)


def _date() -> str:
    return f"date: {email.utils.formatdate(usegmt=True)}\r\n"
