"""`pointsman …` as it is, and on SIGUSR1 it writes down its asyncio tasks: the only view of them from outside.

Run: python tests/chaos/witness.py FILE serve FOLDER …
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

from router.cli import main


def watch(file: Path) -> None:
    def write(signum: int, frame: object) -> None:
        try:
            tasks = asyncio.all_tasks()
        except RuntimeError:  # not in the loop just now: whoever asked asks again
            return
        names = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
        part = file.with_suffix(".part")
        part.write_text("".join(f"{count} {name}\n" for name, count in sorted(names.items())))
        part.replace(file)

    signal.signal(signal.SIGUSR1, write)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
