"""Whether anything grows while the router runs: memory, descriptors, threads, under mixed traffic at half capacity.

Run: .venv/bin/python -m benchmarks.soak [MINUTES] [--every 30]

The drift is a straight line through all samples after the first quarter, in which caches fill and the allocator
settles.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.served import CAPACITY, Served
from tests.chaos.load import Mix, Outcome, by_code, drive

MIX = Mix(stream=0.4, deadline=0.5, deadlines_ms=(1000, 2000), leaving=0.05)


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line with the least squares."""
    n = len(points)
    x_mean, y_mean = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / spread if spread else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=2.0)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between samples")
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as name, Served(Path(name)) as served:

        def load() -> None:
            # In pieces, so that what is kept of the outcomes does not grow in one list of tasks.
            end, number = time.monotonic() + seconds, random.Random(1).randrange(1000)
            while (left := end - time.monotonic()) > 0:
                piece = drive(served.port, MIX, rate=CAPACITY / 2, seconds=min(10.0, left), seed=number)
                outcomes.extend(piece)
                number += 1

        print(f"{arguments.minutes:g} min at {CAPACITY / 2:g} requests a second, half of what the backend can do\n")
        print("seconds   requests  RSS MiB   fds   threads")
        thread = threading.Thread(target=load)
        began = time.monotonic()
        thread.start()
        samples: list[tuple[float, float, int, int]] = []
        while True:
            at = time.monotonic() - began
            samples.append((at, served.rss_mib(), served.descriptors(), served.threads()))
            _, rss, fds, threads = samples[-1]
            print(f"{at:<10.0f}{len(outcomes):<10}{rss:<10.1f}{fds:<6}{threads}", flush=True)
            if not thread.is_alive():
                break
            thread.join(arguments.every)
        settled = samples[len(samples) // 4 :]
        hourly = [slope([(one[0] / 3600, float(one[i])) for one in settled]) for i in (1, 2, 3)]
        print(f"\ndrift an hour: {hourly[0]:+.1f} MiB, {hourly[1]:+.1f} descriptors, {hourly[2]:+.1f} threads")
        print("outcomes: " + ", ".join(f"{code} {count}" for code, count in sorted(by_code(outcomes).items())))


if __name__ == "__main__":
    main()
