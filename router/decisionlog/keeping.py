"""Whose a chain is, and which of the files stay. A writer that lives holds the lock `decisions-WRITER.lock`."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from router.decisionlog.files import chains

log = logging.getLogger("pointsman")

_LATER = re.compile(r"\.\d+\Z")
_PATIENCE_S = 1.0
"""Another writer may hold the lock for a moment, to remove files of one that was gone."""


def own(folder: Path, writer: str) -> BinaryIO:
    """Until it is closed no other process goes on with this writer's chain: two that did would break it. Raises OSError
    where the folder cannot be written, or another process does so."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = _lock(folder, writer).open("ab")
        except FileExistsError:
            raise OSError(f"the decision log cannot be written to {folder}: it is a file, not a folder") from None
        except OSError as error:
            raise OSError(f"the decision log cannot be written to {folder}: {error.strerror}") from None
        if not _locked(file, _PATIENCE_S):
            file.close()
            raise OSError(f"{folder}: another router writes its decision log there; give this one another folder")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(_lock(folder, writer).stat(), os.fstat(file.fileno())):
                return file
        file.close()  # just now somebody took it for that of a writer that is gone, and removed it


def going_on(folder: Path, writer: str) -> str:
    """The name of the writer's latest chain: where one could not be gone on with, the next has a number behind it."""
    names = [name for name in _files(folder) if name.startswith(f"{writer}.")]
    return max([writer, *names], key=lambda name: (len(name), name))


def let_go(folder: Path, writer: str, chain: str, keep: int) -> None:
    """Remove what is too old: of the chain that the writer is at, all but the latest `keep` files; of those that nobody
    is at any more, all but as many together. What cannot be removed stays, and the router's log says so."""
    found = _files(folder)
    with contextlib.ExitStack() as held:  # so that nobody begins to be at them meanwhile
        others = {_writer(name) for name in found} - {writer}
        gone = {other for other in others if held.enter_context(_gone(folder, other))}
        left = [file for name in found if name != chain and _writer(name) in gone | {writer} for file in found[name]]
        for old in (*found.get(chain, [])[:-keep], *sorted(left, key=_written)[:-keep]):
            _remove(old)
        for other in gone - {_writer(name) for name in _files(folder)}:
            _remove(_lock(folder, other))


def _files(folder: Path) -> dict[str, list[Path]]:
    return {chain.rpartition("/")[2]: files for chain, files in chains([folder]).items()}


def _writer(chain: str) -> str:
    return _LATER.sub("", chain)


@contextlib.contextmanager
def _gone(folder: Path, writer: str) -> Iterator[bool]:
    """Whether that writer is. One that left no lock may be at work: who knows."""
    with contextlib.ExitStack() as held:
        try:
            gone = _locked(held.enter_context(_lock(folder, writer).open("r+b")))
        except OSError:
            gone = False
        yield gone


def _lock(folder: Path, writer: str) -> Path:
    return folder / f"decisions-{writer}.lock"


def _locked(file: BinaryIO, patience_s: float = 0.0) -> bool:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # another writer let it go just now
        return 0.0


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.error("decision log: %s cannot be removed: %s", file, error.strerror)
