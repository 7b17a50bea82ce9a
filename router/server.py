"""The listeners: the data and admin apps on uvicorn, in the event loop of whoever runs the service."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import socket
from collections.abc import Iterator

import uvicorn

from router.admin import AdminApp
from router.app import DataApp
from router.service import Service

log = logging.getLogger("pointsman")

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


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the engine's: two servers share this process."""
        yield


class Listeners:
    """The data port always; the admin port as soon as it is free (one replica per node holds it)."""

    def __init__(self, service: Service, data: socket.socket, admin: socket.socket | None) -> None:
        self._service = service
        self._servers: list[_Uvicorn] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._awaiting_admin: asyncio.Task[None] | None = None
        self._sockets = [(DataApp(service), data)] + ([(AdminApp(service), admin)] if admin else [])

    async def start(self) -> None:
        for app, sock in self._sockets:
            await self._serve(app, sock)
        if len(self._sockets) == 1:
            self._awaiting_admin = asyncio.create_task(self._await_admin_port())

    async def _serve(self, app: object, sock: socket.socket) -> None:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,  # longer than common load balancers keep theirs, so that they close first
            timeout_graceful_shutdown=math.ceil(self._service.settings.drain_s + _LAST_WORDS_S),
            backlog=2048,
        )
        server = _Uvicorn(config)
        task = asyncio.create_task(server.serve(sockets=[sock]))
        self._servers.append(server)
        self._tasks.append(task)
        while not server.started:
            if task.done():
                task.result()
                raise OSError("the listener stopped while it started")
            await asyncio.sleep(0.01)

    async def _await_admin_port(self) -> None:
        settings = self._service.settings
        while True:
            try:
                sock = bind(settings.admin_host, settings.admin_port)
            except PortInUse:
                await asyncio.sleep(2)
                continue
            await self._serve(AdminApp(self._service), sock)
            return

    async def stop(self) -> None:
        """Take no more connections, let requests in progress end; tell those that do not, then close."""
        self._service.draining = True
        if self._awaiting_admin is not None:
            self._awaiting_admin.cancel()
        for server in self._servers:
            server.should_exit = True
        waiting = [task for task in self._tasks if not task.done()]
        if waiting:
            waiting = list((await asyncio.wait(waiting, timeout=self._service.settings.drain_s))[1])
        if waiting:
            self._service.end_requests()
            await asyncio.wait(waiting, timeout=2 * _LAST_WORDS_S)
        for task in self._tasks:
            task.cancel()
