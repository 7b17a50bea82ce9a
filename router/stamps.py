"""Whether a file is what it was."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[str, int, int]
"""A file's name, size and time of change: another stamp, another content."""


def stamp(path: Path) -> Stamp:
    """(name, -1, -1) where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return str(path), -1, -1
    return str(path), found.st_size, found.st_mtime_ns


class Seen(dict[Path, Stamp]):
    """Files that a configuration is made from, each with its stamp before it was read: what changes while it is read
    has another one afterwards."""

    def add(self, path: Path) -> None:
        if path not in self:
            self[path] = stamp(path)
