"""The listeners: the data and admin ports, in the event loop of whoever runs the service."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time

from router.admin import AdminApp
from router.app import DataApp
from router.http.server import Handler, HttpServer
from router.orders import DRAIN
from router.service import Service

log = logging.getLogger("pointsman")

_LOOK_S = 0.05
_ADMIN_S = 0.5
"""Between attempts at the admin port, while another replica on this node has it."""
_LAST_WORDS_S = 1.0
"""For those that are told that the router stops, after `drain_s`."""


class PortInUse(OSError):
    pass


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket. `shared`: other replicas on this node may listen on the same port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} on {host} is in use: stop what holds it, or choose another") from None
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    sock.setblocking(False)
    return sock


class Listeners:
    """The data port always; the admin port as soon as it is free (one replica per node holds it)."""

    def __init__(self, service: Service, data: socket.socket, admin: socket.socket | None) -> None:
        self._service = service
        self._servers: list[HttpServer] = []
        self._awaiting_admin: asyncio.Task[None] | None = None
        self._draining_since: float | None = None
        service.orders.learn(DRAIN, self.drain)
        self._sockets: list[tuple[Handler, socket.socket]] = [(DataApp(service), data)]
        if admin is not None:
            self._sockets.append((AdminApp(service), admin))

    async def start(self) -> None:
        for app, sock in self._sockets:
            await self._serve(app, sock)
        if len(self._sockets) == 1:
            self._awaiting_admin = asyncio.create_task(self._await_admin_port())

    async def _serve(self, handler: Handler, sock: socket.socket) -> None:
        server = HttpServer(handler, sock, self._service.settings.max_bodies_bytes)
        await server.start()
        self._servers.append(server)
        if self._draining_since is not None:
            server.wind_down()

    async def _await_admin_port(self) -> None:
        settings = self._service.settings
        while True:
            try:
                sock = bind(settings.admin_host, settings.admin_port)
            except PortInUse:
                await asyncio.sleep(_ADMIN_S)
                continue
            await self._serve(AdminApp(self._service), sock)
            return

    @property
    def busy(self) -> int:
        """Connections of the data port with a request in progress."""
        return self._servers[0].busy

    def _begin_drain(self) -> float:
        """Not ready from now on, while requests go on being taken: whoever sends them must notice first. Returns how
        many seconds are left for that."""
        if self._draining_since is None:
            self._service.draining = True
            self._draining_since = time.monotonic()
            log.info("told to stop: not serving from now on")
            for server in self._servers:
                server.wind_down()
        passed = time.monotonic() - self._draining_since
        return max(self._service.settings.drain_delay_s - passed, 0.0)

    async def drain(self) -> dict[str, int]:
        """All but the end: returns when a signal that ends the process costs nobody an answer, and at the latest after
        the delay and `drain_s`."""
        await asyncio.sleep(self._begin_drain())
        until = time.monotonic() + self._service.settings.drain_s
        while self.busy and time.monotonic() < until:  # noqa: ASYNC110  # rare, and connections know no more
            await asyncio.sleep(_LOOK_S)
        return {"in_progress": self.busy}

    async def stop(self) -> None:
        """Take no more connections, let requests in progress end; tell those that do not, then close."""
        await asyncio.sleep(self._begin_drain())
        if self._awaiting_admin is not None:
            self._awaiting_admin.cancel()
        for server in self._servers:
            server.retire()
        if not await self._ended(self._service.settings.drain_s):
            self._service.end_requests()
            await self._ended(_LAST_WORDS_S)
        for server in self._servers:
            server.close()

    async def _ended(self, seconds: float) -> bool:
        """Whether all connections have, within so long."""
        try:
            async with asyncio.timeout(seconds):
                for server in self._servers:
                    await server.empty()
        except TimeoutError:
            return False
        return True
