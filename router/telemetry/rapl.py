"""Measured energy of this machine's processors, where the kernel tells it, and the share of it that is ours.

Linux counts the energy of each processor package under /sys/class/powercap (RAPL; AMD's counters stand there under the
same names). Reading them takes root since 2020, or a group that somebody gave them to. Nothing here raises: what cannot
be read is None, and a machine without counters is as good as any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DOMAIN = re.compile(r"(intel|amd)-rapl:\d+")
"""A whole domain: its parts (`intel-rapl:0:0`) are counted in it, and `intel-rapl-mmio:0` is the same once more."""
_CPU_TIMES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq")  # then steal and guests, see `_busy`
_IDLE = {"idle", "iowait"}


@dataclass(frozen=True, slots=True)
class _Reading:
    """Microjoules of one package: what its counter says, and where it begins again at 0."""

    energy_uj: int
    max_energy_range_uj: int | None


class Rapl:
    """The energy of all packages together. Call `read` more often than the counters wrap: some do within five minutes
    under full load, and a second wrap between two calls would not be seen."""

    def __init__(self, root: Path = Path("/sys/class/powercap")) -> None:
        self._root = root
        self._before = self._readings()

    def read(self) -> float | None:
        """Joules since the last call, or since this was made. None where that is not known: there are no counters, one
        of them could not be read now or the last time, or packages have come or gone. After that it begins anew."""
        before, now = self._before, self._readings()
        self._before = now
        if before is None or now is None or before.keys() != now.keys():
            return None
        used = [_used(before[name], now[name]) for name in now]
        known = [one for one in used if one is not None]
        return sum(known) / 1e6 if len(known) == len(used) else None

    def _readings(self) -> dict[str, _Reading] | None:
        """Of every package; None where there is none, or one that cannot be read: half a sum is worse than none."""
        try:
            found = {domain.name: _reading(domain) for domain in self._packages()}
        except (OSError, ValueError):
            return None
        return found or None

    def _packages(self) -> Iterator[Path]:
        """`psys`, the whole platform, is a domain too and holds the packages: it would count them twice."""
        for domain in sorted(self._root.iterdir()):
            if _DOMAIN.fullmatch(domain.name) and (domain / "name").read_text().startswith("package"):
                yield domain


def _reading(domain: Path) -> _Reading:
    """Raises OSError or ValueError."""
    energy = int((domain / "energy_uj").read_text())
    try:
        largest: int | None = int((domain / "max_energy_range_uj").read_text())
    except (OSError, ValueError):
        largest = None
    return _Reading(energy, largest)


def _used(before: _Reading, now: _Reading) -> int | None:
    """Microjoules between two readings; None where the counter began again and nobody says from where."""
    if now.energy_uj >= before.energy_uj:
        return now.energy_uj - before.energy_uj
    largest = now.max_energy_range_uj
    if largest is None or before.energy_uj > largest:
        return None
    return largest - before.energy_uj + now.energy_uj


class ProcessShare:
    """The share of the machine's busy CPU time that this process used: its children are not in it, and neither is what
    a hypervisor gave to others."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root
        self._before = self._times()

    def read(self) -> float | None:
        """Since the last call, or since this was made: 0 to 1, to the 10 ms that the kernel counts in. None where it
        cannot be read. Where nothing was busy at all, 0."""
        before, now = self._before, self._times()
        self._before = now
        if before is None or now is None:
            return None
        own, busy = now[0] - before[0], now[1] - before[1]
        return min(max(own / busy, 0.0), 1.0) if busy > 0 else 0.0

    def _times(self) -> tuple[int, int] | None:
        """(this process, all of the machine), in the kernel's ticks since their start."""
        try:
            return _own((self._root / "self" / "stat").read_text()), _busy((self._root / "stat").read_text())
        except (OSError, ValueError, IndexError):
            return None


def _own(stat: str) -> int:
    """User and system time. The name of the program stands in brackets before them, and may hold anything."""
    after_name = stat[stat.rindex(")") + 1 :].split()
    return int(after_name[11]) + int(after_name[12])


def _busy(stat: str) -> int:
    """Of all CPUs. What guests use is in `user` and `nice` already."""
    label, *times = stat.split("\n", 1)[0].split()
    if label != "cpu":
        raise ValueError("no line for all CPUs")
    return sum(int(value) for name, value in zip(_CPU_TIMES, times, strict=False) if name not in _IDLE)
