"""What restoring masked values costs a streamed answer, by event. Run: .venv/bin/python benchmarks/restore.py"""

from __future__ import annotations

import json
import platform
import time

from policies.sensitivity.pseudonyms import Pseudonyms
from router.restore import EventRestorer

PIECES = ["Hello", " [EMAIL", "_ADDRESS_", "1]", ", how", " are", " you"] * 300


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode()


def main() -> None:
    pseudonyms = Pseudonyms()
    for i in range(20):
        pseudonyms.placeholder("EMAIL_ADDRESS", f"user{i}@example.co.jp")
    events = [event(piece) for piece in PIECES]
    firsts, averages = [], []
    for _ in range(9):
        restorer = EventRestorer(pseudonyms)
        begin = time.perf_counter()
        restorer.feed(events[0])
        firsts.append(time.perf_counter() - begin)
        for one in events[1:]:
            restorer.feed(one)
        averages.append((time.perf_counter() - begin) / len(events))
    print(f"python {platform.python_version()}, {platform.machine()}; best of 9 rounds, 20 values in the map")
    print(f"first event {min(firsts) * 1e6:6.1f} µs    each event {min(averages) * 1e6:6.1f} µs")


if __name__ == "__main__":
    main()
