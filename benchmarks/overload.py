"""What becomes of requests when more come than the fleet can answer: a real router, a real backend of 50 a second.

Run: .venv/bin/python -m benchmarks.overload [--seconds 8] [--deadline-ms 500]

Open loop: requests come at their rate whether others are answered or not, each with a deadline. Goodput is answers
within the deadline, as the client sees it, by second of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.served import CAPACITY, CONCURRENCY, LATENCY_MS, Served
from tests.chaos.load import Asked, Outcome, by_code, run

TIMES = (1, 3, 10)
QUEUED = (256, 10)
"""`max_queued`: the default, and about as many as can be answered within the deadline."""
HEADS = ("queued", "load", "sent", "goodput/s", "late", "p50 ms", "p99 ms", "refused p50", "RSS MiB", "our lag")


def measure(served: Served, rate: float, seconds: float, deadline_ms: float) -> tuple[list[str], str]:
    before = served.rss_mib()
    stamp = time.monotonic_ns()
    requests = [Asked(f"o{stamp:x}-{i}", deadline_ms=deadline_ms) for i in range(round(rate * seconds))]
    outcomes = asyncio.run(run(served.port, requests, rate, random.Random(1)))
    good = [one for one in outcomes if one.good]
    in_time = [one for one in good if _took_ms(one) <= deadline_ms]
    took = sorted(map(_took_ms, good))
    refused = [_took_ms(one) for one in outcomes if not one.good]
    codes = by_code(outcomes)
    codes.pop("ok", None)
    cells = [
        str(len(outcomes)),
        f"{len(in_time) / seconds:.1f}",
        str(len(good) - len(in_time)),
        f"{statistics.median(took):.0f}" if took else "-",
        f"{took[int(0.99 * (len(took) - 1))]:.0f}" if took else "-",
        f"{statistics.median(refused):.0f} ms" if refused else "-",
        f"{before:.0f} to {served.rss_mib():.0f}",
        f"{max(one.lag_s for one in outcomes) * 1000:.0f} ms",
    ]
    return cells, ", ".join(f"{code} {count}" for code, count in sorted(codes.items())) or "-"


def _took_ms(outcome: Outcome) -> float:
    return (outcome.ended_at - outcome.sent_at) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--deadline-ms", type=float, default=500)
    arguments = parser.parse_args()
    print(
        f"a backend of {CAPACITY:g} requests a second ({CONCURRENCY} at once, {LATENCY_MS} ms each); deadline "
        f"{arguments.deadline_ms:g} ms, {arguments.seconds:g} s for each row\n"
    )
    print("".join(head.ljust(13) for head in HEADS) + "refused")
    for queued in QUEUED:
        for times in TIMES:
            with tempfile.TemporaryDirectory() as name, Served(Path(name), queued) as served:
                cells, refused = measure(served, times * CAPACITY, arguments.seconds, arguments.deadline_ms)
                row = [str(queued), f"{times}x", *cells]
                print("".join(cell.ljust(13) for cell in row) + refused, flush=True)


if __name__ == "__main__":
    main()
