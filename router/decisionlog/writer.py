"""Writes the log in a thread of its own. What a request costs is a link of the chain, and a place in a bounded queue.

A full queue drops the record and counts it: requests are never held up. Records are written within a tenth of a second,
and every batch is handed to the operating system before the next is taken, so a process that is killed loses what was
still in the queue, and no more than one unfinished line stands in the file. The next writer cuts that line and says so.

Whoever puts makes the link, and the queue is one piece of bytes. Were the thread to do it line by line, it and the
event loop's would take the interpreter from each other again and again, which costs more than the links.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO

import msgspec

from router.decisionlog.chain import GENESIS, hash_of, link, unlink, unlinked
from router.decisionlog.files import file_name
from router.decisionlog.keeping import by_chain, going_on, let_go, own

log = logging.getLogger("pointsman")

_GATHER_S = 0.05
_SETTLED_S = 60.0
"""A writer that has been at work for so long looks for what others have left: by then all are there that were started
together, and one that fails again and again removes nothing."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    folder: Path
    max_bytes: int = 64 * 1024 * 1024  # of a file, before the next is begun
    max_queued: int = 10_000  # records waiting to be written
    keep_files: int = 0  # of a chain, and as many bytes of those whose writers are gone; 0: keep all


class Lost(msgspec.Struct, frozen=True):
    """Records that nobody can write any more. Seconds since 1970."""

    records: int = 0
    since: float = 0.0
    until: float = 0.0

    def and_more(self, records: int, now: float) -> Lost:
        return Lost(self.records + records, self.since or now, now)

    def after(self, told: Lost) -> Lost:
        """What is left to be told."""
        left = self.records - told.records
        return Lost(left, told.until, self.until) if left else Lost()


class DecisionLog:
    """One chain of files. `writer` names it among the writers of the folder; only one process may have a name."""

    def __init__(
        self,
        settings: LogSettings,
        writer: str = "main",
        on_drop: Callable[[], None] = lambda: None,
        more: Callable[[], bool] = lambda: False,
    ) -> None:
        """Opens or begins the chain. `more` says whether somebody has records that he will put in a moment. Raises
        OSError where the folder cannot be written, or another process writes this chain."""
        self._settings, self._on_drop, self._more = settings, on_drop, more
        self._lines, self._queued = bytearray(), 0  # that wait to be written, and how many
        self._asleep = self._writing = self._ending = self._failing = False
        self._signals: SimpleQueue[None] = SimpleQueue()
        self._lost = Lost()  # since the log last told
        self._owned = own(settings.folder, writer)
        self._chain = going_on(settings.folder, writer)
        self._seq, self._prev = 0, GENESIS  # of the last line that was put
        self._putting = threading.Lock()
        self._size = 0  # of the file
        for file in self._files():
            if not file.stat().st_size:  # it was just begun when its writer died
                file.unlink()
        self._let_go_at = time.monotonic() + _SETTLED_S
        self._file = self._open(self._last())
        cut = self._recover(writer)
        self._written = self._seq, self._prev  # of the last one in the files
        started: dict[str, Any] = {"event": "started", "at": time.time()}
        self._link(msgspec.json.encode(started | ({"cut_bytes": cut} if cut else {})))
        self._write(*self._take()[:2])
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)
        self._thread.start()

    def put(self, *records: bytes) -> None:
        """Each is a JSON object."""
        room = max(self._settings.max_queued - self._queued, 0)
        if len(records) > room:
            self._drop(len(records) - room)
            records = records[:room]
        with self._putting:
            self._link(*records)
        if self._asleep:
            self._signals.put(None)

    @property
    def queued(self) -> int:
        """Records that wait to be written."""
        return self._queued

    def close(self) -> None:
        """Write what is queued, say that this is the end, and close. At most a few seconds."""
        self._ending = True
        self._signals.put(None)
        self._thread.join(10)

    def flush(self) -> None:
        """Wait until everything put so far has been written. For tests and for who reads the log at once."""
        deadline = time.monotonic() + 10
        while (self._more() or self._queued or self._writing) and time.monotonic() < deadline:
            self._signals.put(None)
            time.sleep(0.001)

    def _link(self, *records: bytes) -> None:
        seq, prev, lines = self._seq, self._prev, self._lines
        for record in records:
            seq += 1
            line, prev = link(prev, seq, record)
            lines += line
        self._seq, self._prev = seq, prev
        self._queued += len(records)

    # --- the writer's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Lines are gathered for a moment and then written all at once. While some come in every moment, nobody is
        woken: a thread that wants the interpreter costs others more than what it does. For the same reason it waits in
        one call, where an event would take it and give it back several times."""
        quiet = True
        while True:
            if quiet and not self._queued and not self._ending:
                self._asleep = True
                if not self._queued:  # one that came just now would wake nobody
                    self._signals.get()
                self._asleep = False
            if not self._ending:
                with contextlib.suppress(Empty):
                    self._signals.get(timeout=_GATHER_S)
            ending = self._ending
            if ending:
                with self._putting:
                    self._link(msgspec.json.encode({"event": "stopped", "at": time.time()}))
            quiet = not self._queued
            self._writing = True
            self._write_some()
            self._writing = False
            if ending:
                self._file.close()
                self._owned.close()
                return

    def _take(self) -> tuple[bytearray, int, Lost]:
        """What waits to be written, how many records that is, and what the last of them says is lost."""
        with self._putting:
            told = self._lost if self._queued else Lost()
            if told.records:
                self._link(msgspec.json.encode({"event": "lost", "at": time.time(), **msgspec.structs.asdict(told)}))
            lines, queued = self._lines, self._queued
            self._lines, self._queued = bytearray(), 0
        return lines, queued, told

    def _write_some(self) -> None:
        lines, queued, told = self._take()
        try:
            self._write(lines, queued)
        except OSError as error:  # a full disk must not end the router; what is lost is counted
            if not self._failing:  # once per outage
                log.error("decision log: %s: records are lost from now on", error.strerror)
            self._failing = True
            self._drop(queued - (told.records > 0))
            self._mend()
            return
        if not queued:
            return
        if self._failing:
            log.warning("decision log: it can be written again; %d records were lost", told.records)
        self._failing = False
        if told.records:
            with self._putting:
                self._lost = self._lost.after(told)

    def _drop(self, records: int) -> None:
        for _ in range(records):
            self._on_drop()
        if records > 0:
            with self._putting:
                self._lost = self._lost.and_more(records, time.time())

    def _mend(self) -> None:
        """What was put since then follows from lines that are lost: now it follows from what was written."""
        with self._putting:
            later, self._lines, self._queued = self._lines, bytearray(), 0
            self._seq, self._prev = self._written
            self._link(*[unlinked(bytes(line)) for line in later.splitlines(keepends=True)])

    def _write(self, lines: bytearray, queued: int) -> None:
        if not queued:
            return
        if self._size > self._settings.max_bytes:
            self._rotate()
        written = self._file.write(lines)
        if written != len(lines):  # no room for all of it: half a line would break the chain
            os.ftruncate(self._file.fileno(), self._size)
            self._file.seek(self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written = self._written[0] + queued, hash_of(lines)
        self._size += written
        if time.monotonic() >= self._let_go_at:
            self._let_go()

    def _rotate(self) -> None:
        self._file.close()
        self._file = self._open(self._settings.folder / file_name(self._chain, self._written[0] + 1))
        self._let_go_at = 0.0  # not before something is written there

    def _let_go(self) -> None:
        self._let_go_at = math.inf
        folder, keep = self._settings.folder, self._settings.keep_files
        if not keep:
            return
        try:
            let_go(folder, self._chain, Path(self._file.name), keep, self._settings.max_bytes)
        except OSError as error:  # what can be written must not be lost for that
            log.error("decision log: its old files cannot be looked for: %s", error.strerror)

    def _files(self) -> list[Path]:
        return by_chain(self._settings.folder).get(self._chain, [])

    def _last(self) -> Path:
        files = self._files()
        return files[-1] if files else self._settings.folder / file_name(self._chain, 1)

    def _open(self, path: Path) -> BinaryIO:
        file = path.open("ab", buffering=0)
        self._size = file.tell()
        return file

    def _recover(self, writer: str) -> int:
        """Take up the chain at the last whole line; the number of bytes of an unfinished one, which is cut."""
        path = Path(self._file.name)
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
            self._size = whole
        older = (file.read_bytes() for file in reversed(self._files()[:-1]))
        last = data[:whole] or next(older, b"")  # its first line may be the one that was cut
        for line in last.splitlines(keepends=True)[-1:]:
            try:
                record, _ = unlink(line)
                self._seq, self._prev = int(record["seq"]), str(record["hash"])
            except ValueError:
                # Not a line of ours: `verify` will tell. Begin anew rather than build on it.
                self._file.close()
                self._chain = f"{writer}.{time.time_ns() // 1_000_000}"
                self._file = self._open(self._last())
                log.warning("decision log: %s does not end with a record; a new chain begins in %s", path,
                            self._file.name)  # fmt: skip
        return len(data) - whole
