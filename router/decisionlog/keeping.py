"""Whose a chain is, and which of the files stay. A writer that lives holds the lock `decisions-WRITER.lock`."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
from pathlib import Path
from typing import BinaryIO

from router.decisionlog.files import chains

log = logging.getLogger("pointsman")

_LATER = re.compile(r"\.\d{13}\Z")
"""Behind the writer's name, where it could not go on with the chain before: milliseconds since 1970."""
_PATIENCE_S = 1.0
"""Another writer may hold the lock for a moment, to remove a file of one that was gone."""


def own(folder: Path, writer: str) -> BinaryIO:
    """Until it is closed no other process goes on with this writer's chain: two that did would break it. Raises OSError
    where the folder cannot be written, or another process does so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _take(_lock(folder, writer), "ab", _PATIENCE_S)
    except FileExistsError:
        raise OSError(f"the decision log cannot be written to {folder}: it is a file, not a folder") from None
    except OSError as error:
        raise OSError(f"the decision log cannot be written to {folder}: {error.strerror}") from None
    if file is None:
        raise OSError(f"{folder}: another router writes its decision log there; give this one another folder")
    return file


def by_chain(folder: Path) -> dict[str, list[Path]]:
    """Files, oldest first."""
    return {chain.rpartition("/")[2]: files for chain, files in chains([folder]).items()}


def going_on(folder: Path, writer: str) -> str:
    """The name of the writer's latest chain: where one could not be gone on with, the next has a number behind it."""
    later = [name for name in by_chain(folder) if name != writer and _writer(name) == writer]
    return max(later, default=writer)


def let_go(folder: Path, chain: str, writing: Path, keep: int, size: int) -> None:
    """Remove what is too old: of this chain, in which `writing` is being written, all but the latest `keep` files; of
    the chains of writers that are gone the oldest, while those hold more bytes than the writers at work may, `keep`
    files of `size` bytes each. What cannot be removed stays, and the router's log says so."""
    found = by_chain(folder)
    for old in found.pop(chain, [])[:-keep]:
        if old != writing:
            _remove(old)
    mine = _writer(chain)
    states = {writer: writer == mine or _gone(folder, writer) for writer in {_writer(name) for name in found}}
    at_work = 1 + sum(gone is False for gone in states.values())
    left = [
        (*_stat(file), file, _writer(name)) for name, files in found.items() if states[_writer(name)] for file in files
    ]
    too_many = sum(held for _, held, _, _ in left) - keep * size * at_work
    for _, held, old, writer in sorted(left):
        if too_many <= 0:
            break
        too_many -= held
        _remove(old, None if writer == mine else _lock(folder, writer))
    names = {_writer(name) for name in by_chain(folder)} | {mine}
    for lock in folder.glob("decisions-*.lock"):
        if lock.name[len("decisions-") : -len(".lock")] not in names:
            _remove(lock, lock)


def _writer(chain: str) -> str:
    return _LATER.sub("", chain)


def _lock(folder: Path, writer: str) -> Path:
    return folder / f"decisions-{writer}.lock"


def _gone(folder: Path, writer: str) -> bool | None:
    """Whether that writer is. None: it left no lock, or one of somebody else's, so who knows."""
    try:
        held = _take(_lock(folder, writer))
    except OSError:
        return None
    if held is not None:
        held.close()
    return held is not None


def _take(lock: Path, mode: str = "r+b", patience_s: float = 0.0) -> BinaryIO | None:
    """The lock, until it is closed; None where another has it. Raises OSError where it cannot be opened."""
    deadline = time.monotonic() + patience_s
    while True:
        file: BinaryIO = lock.open(mode)  # type: ignore[assignment]
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(lock.stat(), os.fstat(file.fileno())):  # and nobody has removed it just now
                return file
        file.close()
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.02)


def _stat(file: Path) -> tuple[float, int]:
    """(when it was written last, bytes)."""
    try:
        found = file.stat()
    except OSError:  # another writer let it go just now
        return 0.0, 0
    return found.st_mtime, found.st_size


def _remove(file: Path, lock: Path | None = None) -> None:
    """Where there is a lock, only while nobody has it."""
    held = None
    try:
        held = None if lock is None else _take(lock)
        if lock is None or held is not None:
            file.unlink(missing_ok=True)
    except FileNotFoundError:  # the lock: another writer was quicker
        pass
    except OSError as error:
        log.error("decision log: %s cannot be removed: %s", file, error.strerror)
    finally:
        if held is not None:
            held.close()
