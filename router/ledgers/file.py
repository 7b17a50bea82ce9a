"""A central ledger in this process; in memory, or in a file that outlives it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from router.ledgers.central import LedgerLost
from router.ledgers.leases import GRACE_S, Cell, Grant, Holder, Report, fold

_COMPACT_BYTES = 1024 * 1024
_Line = tuple[str, float, float, dict[str, Holder]]  # account, end, gone, holders
_decoder = msgspec.json.Decoder(_Line)


class BadLedger(OSError):
    """The file is not a ledger, is damaged, or belongs to another process."""


class FileLedger:
    """The file is a journal: each line is all that is known of one account in one period, the last one counts. A line
    is on the disk before what it grants is given. So a crash forgets nothing that was granted, and at most an
    unfinished last line, whose grant nobody got."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        """Raises OSError where the file cannot be used; BadLedger, which is one, says why."""
        self._clock = clock
        self._cells: dict[tuple[str, float], Cell] = {}
        self._lock = threading.Lock()
        # Its own: scans may have taken all of the loop's.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._path, self._file = path, -1
        self._size = self._compact_at = 0
        self._broken = False
        if path is not None:
            self._open(path)

    async def sync(self, replica: str, seq: int, reports: Sequence[Report]) -> list[Grant]:
        if self._path is None:
            return self.fold(replica, seq, reports)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.fold, replica, seq, reports)

    def fold(self, replica: str, seq: int, reports: Sequence[Report]) -> list[Grant]:
        """`sync`, waiting for the disk. Raises LedgerLost where it cannot be written."""
        now = self._clock()
        with self._lock:
            changed: dict[tuple[str, float], Cell] = {}
            grants = []
            for report in reports:
                at = (report.account, report.end)
                before = changed.get(at) or self._cells.get(at) or Cell()
                cell, grant = fold(before, replica, seq, report, now)
                grants.append(grant)
                if cell is not before:
                    changed[at] = cell
            self._write(changed)
            self._cells |= changed
            for at in [at for at in self._cells if now >= at[1] + GRACE_S]:
                del self._cells[at]
            return grants

    async def aclose(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)  # and with it the lock
            self._file = -1
        self._thread.shutdown(wait=False)

    # --- the file ---------------------------------------------------------------------------------------------------

    def _open(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._lock_file(path)
            raw = path.read_bytes()
            whole = raw.rfind(b"\n") + 1
            for number, line in enumerate(raw[:whole].splitlines(), 1):
                try:
                    account, end, gone, holders = _decoder.decode(line)
                except msgspec.DecodeError:
                    raise BadLedger(
                        f"{path}: line {number} is not a ledger's; move the file away to begin anew"
                    ) from None
                self._cells[account, end] = Cell(holders, gone)
            os.ftruncate(self._file, whole)
            _sync_folder(path)
            self._size, self._compact_at = whole, max(_COMPACT_BYTES, 2 * whole)
        except BaseException:
            os.close(self._file)
            raise

    def _lock_file(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadLedger(f"{path}: another process has this ledger open") from None

    def _write(self, changed: dict[tuple[str, float], Cell]) -> None:
        if self._path is None or not changed:
            return
        if self._file < 0 or self._broken:
            raise LedgerLost("the ledger's file is closed or could not be written")
        data = b"".join(_line(at, cell) for at, cell in changed.items())
        try:
            if os.write(self._file, data) != len(data):
                raise OSError("short write")
            os.fdatasync(self._file)
        except OSError as error:
            try:  # what nobody was granted must not stay, or half a line would spoil the next one
                os.ftruncate(self._file, self._size)
            except OSError:
                self._broken = True
            raise LedgerLost(f"the ledger's file cannot be written: {error.strerror or error}") from None
        self._size += len(data)
        if self._size > self._compact_at:
            self._compact(self._path, self._cells | changed)

    def _compact(self, path: Path, cells: dict[tuple[str, float], Cell]) -> None:
        """The same with one line for each account, in a new file that takes the old one's place whole."""
        now = self._clock()
        data = b"".join(_line(at, cell) for at, cell in cells.items() if now < at[1] + GRACE_S)
        beside = path.with_name(path.name + ".new")
        self._compact_at = max(_COMPACT_BYTES, 2 * len(data), 2 * self._size)  # where it fails: later again
        try:
            new = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(new, data) != len(data):
                    raise OSError("short write")
                os.fsync(new)
                fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
                beside.replace(path)
            except OSError:
                os.close(new)
                raise
        except OSError:
            return  # the old file is whole, and goes on
        os.close(self._file)
        self._file, self._size, self._compact_at = new, len(data), max(_COMPACT_BYTES, 2 * len(data))
        try:
            _sync_folder(path)
        except OSError:  # a power cut could bring the old file back, without what comes now
            self._broken = True


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _line(at: tuple[str, float], cell: Cell) -> bytes:
    line: _Line = (*at, cell.gone, dict(cell.holders))
    return msgspec.json.encode(line) + b"\n"
