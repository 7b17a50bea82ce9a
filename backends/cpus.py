"""How many CPUs this process may use, and how a backend's threads share them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Threads:
    """`workers` runs at once, each of them on `each` threads."""

    workers: int
    each: int

    @classmethod
    def shared(cls, cpus: int, most_at_once: int) -> Threads:
        """`workers * each` is at most `cpus`, and both are at least 1.

        As many runs at once as there are CPUs, each on one thread, do more than one run at a time on all of them: on
        two CPUs 1.3 to 2.4 times as much, and about the same for batches of pictures (benchmarks/README.md). Where
        fewer requests may be there at once than there are CPUs, each run gets an equal part of them.
        """
        workers = max(1, min(cpus, most_at_once))
        return cls(workers, max(1, cpus // workers))


def usable_cpus(root: Path = Path("/")) -> int:
    """CPUs that the scheduler lets this process have: those of its affinity, and whole ones of its cgroup's quota; at
    least 1. `os.cpu_count` is the machine's, and in a container too many: threads beyond the quota are stopped
    together, also while one holds the GIL. `root` is where /proc and /sys are."""
    quota = min(_quotas(root), default=float("inf"))
    return max(1, int(min(len(os.sched_getaffinity(0)), quota)))


def _quotas(root: Path) -> Iterator[float]:
    """In CPUs; of the process's own groups and of all above them, as the tightest holds."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for folder in _upwards(mount, path):
                yield from _ratio(folder / "cpu.max")
        elif "cpu" in controllers.split(","):
            for name in ("cpu", controllers):  # systems name the mount by either
                for folder in _upwards(mount / name, path):
                    yield from _ratio(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """A container may see its own group as the mount itself, whatever its path says: the mount always counts."""
    group = PurePosixPath(path.lstrip("/"))
    for one in (group, *group.parents):
        yield mount / one


def _ratio(*files: Path) -> Iterator[float]:
    """Quota and period, in one file or in two; nothing where there is no quota or no such file."""
    try:
        quota, period = " ".join(file.read_text() for file in files).split()
        if int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):  # "max" and "-1" mean none
        return
