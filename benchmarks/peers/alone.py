"""Parts of a request by themselves: the decision, the scan, in-process models."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.decide import measure

_TEXTS = {
    "english": "The committee met on Tuesday and agreed to move the review to the last week of the month, so that "
    "everybody has time to read the draft, and asked for a short summary of what has changed since spring. ",
    "japanese": "委員会は火曜日に開かれ、全員が草案を読む時間を取れるように審査を月末の週に移すことに合意しました。"
    "また、春以降に変わった点について短いまとめを作るよう求めました。",
}


def decisions() -> dict[str, float]:
    """Microseconds of one `decide`, all backends allowed, by rules x backends."""
    return {
        f"{rules}x{backends}": round(measure(rules, backends, backends, 1)[1], 1)
        for rules, backends in ((20, 10), (1000, 100))
    }


def scanning() -> dict[str, float]:
    """Microseconds for each KiB of clean text, by language; pii, secrets and keywords look for something."""
    import tempfile

    from benchmarks.peers import pointsman
    from router.loading import ConfigurationLoader

    with tempfile.TemporaryDirectory() as folder:
        detectors = ConfigurationLoader((pointsman.configuration(Path(folder), 9),), {})().policy.detectors
    found = {}
    for name, text in _TEXTS.items():
        long = text * (16 * 1024 // len(text.encode()))
        times = []
        for _ in range(30):
            began = time.perf_counter()
            detectors.outcomes([long])
            times.append(time.perf_counter() - began)
        found[name] = round(min(times) * 1e6 / (len(long.encode()) / 1024), 2)
    return found


def onnx() -> Any:
    """What `python -m benchmarks.onnx_batching` measures."""
    from benchmarks.onnx_batching import measure as batching

    return batching(True)
