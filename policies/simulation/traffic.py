"""Requests that arrived once, with the situation that they met and what came of them."""

from __future__ import annotations

from policies.compile import CompiledPolicy
from policies.sensitivity.labels import Label
from policies.types import Request, Snapshot, Target, Value


class Answered(Value, frozen=True, gc=False):
    """What a backend's answer took. Times are those of the backend: a request may have waited before."""

    target: Target
    ms: float
    ttft_ms: float | None = None  # of a stream


class Arrival(Value, frozen=True, gc=False):
    """One request. Labels, quotas and the snapshot are those of `policy`, under which it was decided."""

    at: float  # seconds since 1970
    policy: CompiledPolicy
    request: Request
    label: Label
    snapshot: Snapshot
    answered: Answered | None = None
    failed: tuple[tuple[str, float], ...] = ()  # (backend, after how many ms)
    broke: str = ""  # the backend whose stream broke when some of it had been sent on
    time_ms: float | None = None  # after which it was given up, where it was, whoever said how long it has
    judged: tuple[tuple[str, float], ...] = ()  # (backend, how sure its answer was), as far as a cascade has asked
    seed: int = 0  # of the draws that break ties
    tokens: tuple[int, int] | None = None  # that the request and its answer had; None: not known
    estimated: bool = False  # whether they are: the backend told none
