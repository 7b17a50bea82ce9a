"""The faults, and a seeded schedule of them: one backend at a time, hurt and then healed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.server import FAULTS
from tests.chaos.world import World

BY_SIGNAL = ("kill", "kill_and_restart", "stop")
ALL = (*BY_SIGNAL, *FAULTS)


def begin(world: World, kind: str, backend: str, share: float = 1.0, seed: int = 0) -> None:
    one = world.backends[backend]
    if kind == "kill":
        one.kill()
    elif kind == "kill_and_restart":
        one.kill()
        one.start()
    elif kind == "stop":
        one.signal(signal.SIGSTOP)
    else:
        one.fault(kind, share, seed)


def end(world: World, kind: str, backend: str) -> None:
    one = world.backends[backend]
    if kind == "kill":
        one.start()
    elif kind == "stop":
        one.signal(signal.SIGCONT)
    elif kind != "kill_and_restart":
        one.fault()


@dataclass(frozen=True)
class Fault:
    at_s: float  # from the beginning of the run
    for_s: float
    kind: str
    backend: str
    share: float


def schedule(seconds: float, seed: int, backends: tuple[str, ...] = ("edge", "onprem", "cloud")) -> list[Fault]:
    """Faults one after the other, every kind before any comes again, with pauses between them."""
    rng = random.Random(seed)
    found: list[Fault] = []
    at = 0.3
    kinds: list[str] = []
    while True:
        if not kinds:
            kinds = list(ALL)
            rng.shuffle(kinds)
        lasts = rng.uniform(0.3, 1.0)
        if at + lasts + 0.3 > seconds:
            return found
        found.append(Fault(at, lasts, kinds.pop(), rng.choice(backends), rng.choice((0.3, 0.7, 1.0))))
        at += lasts + rng.uniform(0.1, 0.4)


def play(world: World, faults: list[Fault], told: Callable[[Fault], None] = lambda fault: None) -> None:
    """Each fault at its time. To be run beside the load."""
    began = time.monotonic()
    for number, fault in enumerate(faults):
        time.sleep(max(0.0, began + fault.at_s - time.monotonic()))
        told(fault)
        begin(world, fault.kind, fault.backend, fault.share, number)
        try:
            time.sleep(fault.for_s)
        finally:
            end(world, fault.kind, fault.backend)
