"""The files of a log: `decisions-WRITER-SEQ.jsonl`, SEQ the number of the first record. One chain per writer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_NAME = re.compile(r"decisions-(?P<writer>.+)-(?P<seq>\d{12})\.jsonl\Z")


def file_name(writer: str, seq: int) -> str:
    return f"decisions-{writer}-{seq:012d}.jsonl"


def chains(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """The files of each writer, oldest first, among files and folders of files. Other files are a chain each."""
    found: dict[str, list[Path]] = {}
    seen: set[Path] = set()  # one that is named twice counts once
    for path in paths:
        files = sorted(p for p in path.iterdir() if _NAME.match(p.name)) if path.is_dir() else [path]
        for file in files:
            if file.resolve() in seen:
                continue
            seen.add(file.resolve())
            match = _NAME.match(file.name)
            found.setdefault(f"{file.parent}/{match['writer']}" if match else str(file), []).append(file)
    return {writer: sorted(files, key=lambda file: file.name) for writer, files in found.items()}


def why_none(paths: Sequence[Path]) -> str:
    """Why there is no log in these files and folders; "" where there is one."""
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        return f"no such file or folder: {', '.join(missing)}"
    return "" if chains(paths) else "no decision log there"


def numbered(files: Iterable[Path]) -> Iterator[tuple[Path, int, bytes]]:
    """The lines of all of them, one after the other, each with its file and its number there. A file that is gone by
    the time that it is its turn was rotated away, and is passed over, but for the last."""
    *older, last = files
    for file in (*older, last):
        try:
            stream = file.open("rb")
        except FileNotFoundError:
            if file is last:
                raise
            continue
        with stream:
            for number, line in enumerate(stream, 1):
                yield file, number, line


def lines(files: Iterable[Path]) -> Iterator[bytes]:
    """The same, without their places."""
    return (line for _, _, line in numbered(files))
