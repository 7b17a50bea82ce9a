"""Looking at processes by pid, as the kernel shows them (Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from router.ledgers.book import IDLE_S
from router.ledgers.client import SYNC_S


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not collected yet does not."""
    found = _stat(pid)
    return found is not None and found[0] not in "ZX"


def descendants(pid: int) -> set[int]:
    """Every process that `pid` started, and those that they did, as of now."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))) is not None:
            parents[int(entry.name)] = found[1]
    result: set[int] = set()
    pending = {pid}
    while pending:
        pending = {child for child, parent in parents.items() if parent in pending} - result
        result |= pending
    return result


def marked(variable: str) -> set[int]:
    """Every process that runs with this environment variable, which children inherit: also those whose parent is
    gone."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {pid for pid in pids if alive(pid) and variable in environment(pid)}


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def environment(pid: int) -> dict[str, str]:
    """As it was when the process started."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in raw.split("\0") if "=" in line)


def listens(pid: int, port: int) -> bool:
    """Whether a process holds a listening IPv4 socket on `port`."""
    try:
        rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
        return any(str(fd.readlink()) in sockets for fd in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return False


def soon(happened: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Once is enough: what one of several replicas says need not be what the next one does."""
    deadline = time.monotonic() + within_s
    while not happened():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def rested(happened: Callable[[], bool], within_s: float = 60.0) -> bool:
    """As `soon`, with a rest before each look that is longer than leases are kept unused: who holds the last of a
    budget gives it back then, and while others ask for it at every moment it may keep it."""

    def after_a_rest() -> bool:
        time.sleep(IDLE_S + SYNC_S + 0.5)
        return happened()

    return soon(after_a_rest, within_s)


def end(process: subprocess.Popen[Any], within_s: float) -> None:
    """Ask it to end, and kill it where it does not."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill(pids: Iterable[int]) -> None:
    """What a failed test leaves behind, each by its own pid."""
    for pid in filter(alive, pids):
        os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> tuple[str, int] | None:
    """(state, parent)"""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])
