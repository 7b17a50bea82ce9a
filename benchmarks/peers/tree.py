"""Processes that are measured: started in a group of their own, and what they and all their children have used."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from router.demo.processes import answers

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class DidNotStart(RuntimeError):
    pass


def members(root: int) -> list[int]:
    """A process and everything that descends from it, as far as it still runs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children.get(pid, ())
    return found


def cpu_s(root: int) -> float:
    """CPU seconds of the whole tree, of its children that have ended too."""
    total = 0
    for pid in members(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


def rss_mib(root: int) -> float:
    """Resident memory of the whole tree; what its processes share is counted for each."""
    pages = 0
    for pid in members(root):
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return pages * _PAGE / 2**20


class Process:
    """One program that serves. A context; it and its children end with it."""

    def __init__(
        self, command: Sequence[str], ready_url: str, log: Path, env: Mapping[str, str] | None = None,
        cwd: Path | None = None, timeout_s: float = 90.0,
    ) -> None:  # fmt: skip
        self._command, self._url, self._log = list(command), ready_url, log
        self._env, self._cwd, self._timeout_s = dict(env or {}), cwd, timeout_s
        self.ready_s = 0.0
        """From its start until `ready_url` answered 200."""

    def __enter__(self) -> Process:
        began = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=os.environ | self._env, cwd=self._cwd, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid
        while not answers(self._url):
            if self._process.poll() is not None or time.perf_counter() - began > self._timeout_s:
                self.__exit__()
                tail = self._log.read_text(errors="replace").splitlines()[-5:]
                raise DidNotStart("\n".join(tail) or "it said nothing")
            time.sleep(0.02)
        self.ready_s = time.perf_counter() - began
        return self

    def __exit__(self, *error: object) -> None:
        started = members(self.pid)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pid in started[1:]:  # those that do not end with their parent
            try:
                if os.getsid(pid) == self.pid:
                    os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
