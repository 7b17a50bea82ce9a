"""The chain: every line holds the hash of the line before it and its own, so no line can be edited, removed or moved
unseen. Pure; bytes in, bytes out.

A line is `{"prev": HASH, "seq": N, …, "hash": HASH}`; its hash is SHA-256 over the bytes before `,"hash":`. Somebody
who can rewrite every line after an edit, or cut off the end, is not seen: keep the last hash that `verify` prints
somewhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

GENESIS = "0" * 64
"""What stands for the line before the first."""
_TAIL = len(b',"hash":""}') + 64
_HASH_AT = len(b'"}\n') + 64  # from the end


def link(prev: str, seq: int, record: bytes) -> tuple[bytes, str]:
    """(line with its line feed, its hash). `record` is a JSON object that is not empty."""
    body = b'{"prev":"%b","seq":%d,%b' % (prev.encode(), seq, record[1:-1])
    digest = hashlib.sha256(body).hexdigest()
    return b'%b,"hash":"%b"}\n' % (body, digest.encode()), digest


def unlinked(line: bytes) -> bytes:
    """The record of a line that `link` has made, to be linked elsewhere."""
    begin = line.index(b",", line.index(b',"seq":') + 1) + 1
    return b"{%b}" % line[begin : -_TAIL - 1]


def hash_of(lines: bytes | bytearray) -> str:
    """Of the last of these lines, which ends with its line feed."""
    return lines[-_HASH_AT:-3].decode()


def unlink(line: bytes) -> tuple[dict[str, Any], bool]:
    """(the record, whether its hash is right). Raises ValueError for what is no line of a log."""
    line = line.rstrip(b"\n")
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(record, dict) or type(record.get("seq")) is not int or not {"prev", "hash"} <= record.keys():
        raise ValueError("not a record of a decision log")
    return record, hashlib.sha256(line[:-_TAIL]).hexdigest() == record["hash"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a log's lines tell. `broken`: it is not what was written."""

    line: int  # from 1, over all lines given
    broken: bool
    text: str


@dataclass(slots=True)
class Verification:
    """Walks the lines of one chain in order."""

    records: int = 0
    decisions: int = 0
    first: int | None = None
    last: int = 0
    last_hash: str = GENESIS
    stopped: bool = True  # whether the record before was a clean stop
    broken: bool = False
    _record: dict[str, Any] | None = None  # of the line that was looked at last

    def walk(self, lines: Iterable[bytes]) -> Iterator[Finding]:
        for number, line in enumerate(lines, 1):
            for finding in self._line(number, line):
                self.broken = self.broken or finding.broken
                yield finding
        if not self.stopped:
            told = "the log does not end with a stop: its writer is running or died, or the end was cut off"
            yield Finding(self.records, False, told)

    def read(self, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """The same, for who wants what the lines hold: `broken` says whether it is what was written."""
        for number, line in enumerate(lines, 1):
            self._record = None
            for finding in self._line(number, line):
                self.broken = self.broken or finding.broken
            if self._record is not None:
                yield self._record

    def _line(self, number: int, line: bytes) -> Iterator[Finding]:
        if not line.endswith(b"\n"):
            yield Finding(
                number, False, f"the last {len(line)} bytes are an unfinished line: the writer died while writing it"
            )
            return
        try:
            record, intact = unlink(line)
        except ValueError as error:
            yield Finding(number, True, f"edited: {error}")
            return
        self._record = record
        seq, event = record["seq"], record.get("event")
        if not intact:
            yield Finding(number, True, f"edited: record {seq} does not have the hash that it was written with")
        elif self.first is not None and record["prev"] != self.last_hash:
            yield Finding(number, True, self._misplaced(seq))
        elif self.first is None and record["prev"] != GENESIS:
            yield Finding(number, False, f"begins at record {seq}: what came before is not here")
        if event == "started" and not self.stopped:
            lost = record.get("cut_bytes", 0)
            cut = f", and an unfinished line of {lost} bytes was cut" if lost else ""
            yield Finding(
                number, False, f"the writer before record {seq} died: records it had not yet written are lost{cut}"
            )
        if event == "lost" and intact:
            since, until = (_time(record.get(at)) for at in ("since", "until"))
            lost = f"{record.get('records')} records were lost from {since} to {until}: they could not be written"
            yield Finding(number, False, lost)
        self.stopped = event == "stopped"
        self.first = seq if self.first is None else self.first
        self.records, self.last, self.last_hash = self.records + 1, seq, record["hash"]
        self.decisions += event is None

    def _misplaced(self, seq: int) -> str:
        if seq > self.last + 1:
            return f"removed: records {self.last + 1} to {seq - 1} are missing"
        if seq <= self.last:
            return f"moved: record {seq} stands after record {self.last}"
        return f"replaced: record {seq} does not follow from the record before it"


def _time(at: object) -> str:
    try:
        return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return "?"
