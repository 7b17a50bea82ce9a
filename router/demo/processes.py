"""Starts the demo's servers as child processes, waits for them, and leaves none behind.

with Processes(progress=print) as processes:
    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    processes.start("cloud-llm", "router.demo.llm_server", "--port", port, "--alias", "chat", ready_url=url)
"""

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from router.demo.lifeline import PARENT

_TAIL_LINES = 50
_TAIL_BYTES = 16 * 2**10
_POLL_S = 0.1
# A proxy named in the environment is for the outside world; these servers are on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StartError(RuntimeError):
    """A server's port was taken, it ended before it was ready or was not ready in time.

    The message begins with a line that says which, and goes on with what the server printed.
    """


@dataclass(frozen=True)
class Child:
    """A server that was started, and the file which takes its output (nameless, so a crash leaves none)."""

    name: str
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    started: float
    """When, on time.monotonic's clock."""


class Processes:
    """A context manager for servers run as `python -m MODULE`; leaving it ends them all.

    Each child is in a session of its own, so that a terminal's Ctrl-C reaches only this process, which then
    ends them in its own order. Should this process be killed, they notice by themselves (`lifeline`).
    """

    def __init__(self, progress: Callable[[str], None] = lambda line: None, grace_s: float = 5.0) -> None:
        """`progress` gets a line per event; `grace_s` is the time from SIGTERM to SIGKILL in `stop`."""
        self._progress = progress
        self._grace_s = grace_s
        self._children: dict[str, Child] = {}
        # Linux sends the death signal when the forking *thread* ends, so one that lasts does all the forking:
        # callers may then start servers from short-lived threads.
        self._forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="demo-forker")

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(
        self,
        name: str,
        module: str,
        *args: object,
        env: Mapping[str, str] | None = None,
        ready_url: str | None = None,
        timeout_s: float = 60.0,
    ) -> int:
        """Run `python -m module args...` and, given `ready_url`, wait for it; returns the pid.

        `env` is added to this process's environment. To start several at once, leave `ready_url` out and
        call `wait_ready` for each. A name is free again once its process has ended.
        Raises ValueError for one that is running, StartError as `wait_ready` does.
        """
        if name in self.running():
            raise ValueError(f"{name} is already running")
        if ready_url is not None and answers(ready_url):
            raise StartError(f"{name} was not started: another server answers at {ready_url}")
        command = [sys.executable, "-m", module, *map(str, args)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {}), PARENT: str(os.getpid())}
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the child is stopped or replaced
        process = self._forker.submit(
            subprocess.Popen,
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ).result()
        if (ended := self._children.pop(name, None)) is not None:  # a restart goes to the end of the order
            ended.log.close()
        self._children[name] = Child(name, process, log, time.monotonic())
        self._progress(f"{name}: starting (pid {process.pid})")
        if ready_url is not None:
            self.wait_ready(name, ready_url, timeout_s)
        return process.pid

    def wait_ready(self, name: str, url: str, timeout_s: float = 60.0) -> None:
        """Wait until GET `url` answers 200.

        Raises StartError, with the last lines the server printed, when it ends first or `timeout_s` passes.
        """
        child = self._children[name]
        deadline = time.monotonic() + timeout_s
        while True:
            there = answers(url)
            # Asked even when there is an answer: it may be another server's that has the port.
            code = child.process.poll()
            if code is not None:
                raise StartError(f"{name} ended with exit code {code} before it was ready\n{self.tail(name)}")
            if there:
                break
            if time.monotonic() > deadline:
                raise StartError(f"{name} was not ready within {timeout_s:g} s\n{self.tail(name)}")
            time.sleep(_POLL_S)
        self._progress(f"{name}: ready after {time.monotonic() - child.started:.1f} s")

    def running(self) -> dict[str, int]:
        """The pids of the servers that are alive, by name."""
        return {name: c.process.pid for name, c in self._children.items() if c.process.poll() is None}

    def tail(self, name: str) -> str:
        """The last 50 lines (at most 16 KiB) that a server has printed; not to be had after `stop`."""
        file = self._children[name].log.fileno()
        # Not read(): the child writes at the same file position as we would read from.
        text = os.pread(file, _TAIL_BYTES, max(0, os.fstat(file).st_size - _TAIL_BYTES))
        return "\n".join(text.decode(errors="replace").splitlines()[-_TAIL_LINES:])

    def stop_one(self, name: str) -> None:
        """End one server, as `stop` does; it may be started again under its name."""
        self._end([self._children[name]])

    def stop(self) -> None:
        """End every server, the last started first: SIGTERM, then SIGKILL for any alive after the grace.

        May be called twice. Only the processes started here are touched, each by its own pid.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of them
        self._end(list(reversed(self._children.values())))
        self._forker.shutdown()
        for child in self._children.values():
            child.log.close()

    def _end(self, children: list[Child]) -> None:
        for child in children:
            child.process.terminate()
        deadline = time.monotonic() + self._grace_s
        for child in children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._progress(f"{child.name}: did not end within {self._grace_s:g} s, killed")
                child.process.kill()
                child.process.wait()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free now; another process may still take it before it is used. It is none of
    those that the kernel gives to whoever asks for any: gRPC's servers ask so, and share theirs (SO_REUSEPORT) with
    whoever binds it after them, so that each gets half of the other's connections."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def answers(url: str) -> bool:
    """Whether GET answers 200."""
    try:
        with _OPENER.open(url, timeout=1.0) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):  # OSError: refused, reset, timed out, or not 200
        return False
