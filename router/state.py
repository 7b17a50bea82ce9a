"""What is known of the fleet now: in flight, latency, health. Folded from outcomes; read as snapshots."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from policies.compile import CompiledPolicy
from policies.schema import Backend
from policies.types import Snapshot, Target
from router.carbon import Intensities
from router.gradient import Gradient, answered, refused
from router.health import Event, Health, condition, ejected, had_trouble, spared, step, unavailable
from router.places import Places
from router.quantiles import Sketch
from router.sharing import View
from router.trend import Trend

log = logging.getLogger("pointsman")

_NOTHING: Mapping[tuple[int, str], float] = {}
LONGEST_HOLD_S = 60.0
"""Longest that a backend's own word keeps it out: then it is asked again."""
_FREE_AGAIN = 0.75
_DECAY_S = 10.0
_FRESH_S = 0.5
_AGING_S = 1.0
_AGE_EVERY_S = 0.25
_FEW = 10
_IN_FLIGHT, _BUSY, _TROUBLED = attrgetter("in_flight"), attrgetter("busy"), attrgetter("troubled")


@dataclass(slots=True)
class BackendState:
    name: str
    places: Places
    in_flight: int = 0
    held_until: float = 0.0  # it asked not to be asked before
    busy: bool = False  # has been full, and too few of its places are free again yet
    health: Health = field(default_factory=Health)
    times_ejected: int = 0
    troubled: bool = False  # was ever kept out, failed a probe just now, or asked to be left alone
    gradient: Gradient | None = None  # where its concurrency is found out

    @classmethod
    def of(cls, spec: Backend) -> BackendState:
        limits = spec.limits
        if not limits.adaptive:
            return cls(spec.name, Places(limits.max_in_flight))
        gradient = Gradient.begin(limits.max_in_flight)
        return cls(spec.name, Places(gradient.limit), gradient=gradient)

    def learn(self, latency_ms: float | None) -> None:
        """From an answer that took so long, or from none: it had too much to do."""
        if self.gradient is None:
            return
        if latency_ms is None:
            self.gradient = refused(self.gradient)
        else:
            self.gradient = answered(self.gradient, latency_ms, self.places.taken)
        if self.gradient.limit != self.places.capacity:
            self.places.resize(self.gradient.limit)

    def enter(self) -> None:
        self.in_flight += 1
        self.busy = self.busy or self.in_flight >= self.places.capacity

    def leave(self) -> None:
        self.in_flight -= 1
        capacity = self.places.capacity
        self.busy = self.busy and self.in_flight > max(min(_FREE_AGAIN * capacity, capacity - 2), 0)


@dataclass(slots=True)
class Latency:
    """Of one target: a peak-sensitive average (a slower answer counts at once, faster ones over DECAY_S, as in
    Finagle's "peak EWMA"), and the quantiles. None: not measured."""

    average_ms: float | None = None
    at: float = 0.0
    sketch: Sketch = field(default_factory=Sketch)
    trend: Trend = field(default_factory=Trend)

    def observe(self, sample_ms: float, now: float) -> None:
        self.sketch.observe(sample_ms, now)
        if self.average_ms is None or sample_ms >= self.average_ms:
            self.average_ms = sample_ms
        else:
            kept = math.exp(-(now - self.at) / _DECAY_S)
            self.average_ms = sample_ms + (self.average_ms - sample_ms) * min(kept, 0.9)
        self.at = now

    def age(self, prior_ms: float, now: float, passed_s: float) -> None:
        """Whoever was slow once is asked no more, and nobody would ever know better: what is not measured again goes
        back to what is usual, within seconds. Then one request finds out."""
        if self.average_ms is None or now - self.at < _FRESH_S:
            return
        usual = self.sketch.quantile(0.5) if self.sketch.samples >= _FEW else None
        if self.average_ms > (usual or prior_ms):
            gone = 1 - math.exp(-passed_s / _AGING_S)
            self.average_ms += ((usual or prior_ms) - self.average_ms) * gone


class FleetState:
    """Mutable, owned by one event loop. Indices are the policy's: backends by fleet position, targets by index."""

    def __init__(
        self, policy: CompiledPolicy, previous: FleetState | None = None, kept: frozenset[str] = frozenset()
    ) -> None:
        """The state of the backends in `kept` goes on from `previous`, and is shared with it: requests that began
        under it still hold their places."""
        before: dict[str, BackendState] = (
            {state.name: state for state in previous.backends} if previous is not None else {}
        )
        self.backends: list[BackendState] = [
            before[spec.name] if spec.name in kept else BackendState.of(spec) for spec in policy.fleet.backends
        ]
        self.intensities = Intensities(policy.intensities)
        self._names = [(target.backend, target.model) for target in policy.targets]
        self._targets = policy.targets
        self._peers = _peers(policy)
        self._ejection = policy.fleet.ejection
        self._others = View()
        self._others_until = 0.0
        self._ejected_elsewhere: dict[str, float] = {}
        self._all_well = (None,) * len(self.backends)
        self._index = {state.name: i for i, state in enumerate(self.backends)}
        self._whole = [Latency() for _ in policy.targets]
        self._first = [Latency() for _ in policy.targets]
        self._aged = 0.0
        for i, name in enumerate(previous._names if previous is not None else ()):
            if name[0] in kept and previous is not None:
                at = self._names.index(name)
                self._whole[at], self._first[at] = previous._whole[i], previous._first[i]
        # What snapshots hold, kept up to date where it changes: that is cheaper than to gather it for each request.
        self._averages: list[float | None] = []
        self._first_averages: tuple[float | None, ...] = ()
        self._lines: list[tuple[float, float] | None] = []
        self._sized = False  # whether any target has a line
        self._gather()

    def _gather(self) -> None:
        self._averages = [latency.average_ms for latency in self._whole]
        self._lines = [latency.trend.line for latency in self._whole]
        self._sized = any(self._lines)
        self._gather_first()

    def _gather_first(self) -> None:
        averages = tuple([latency.average_ms for latency in self._first])
        self._first_averages = averages if any(averages) else ()

    def snapshot(self, now: float, wall: float, spent: Mapping[tuple[int, str], float] = _NOTHING) -> Snapshot:
        """`now` is on the clock of health's events, `wall` is seconds since 1970."""
        if now - self._aged > _AGE_EVERY_S:
            self._age(now)
        backends, alone = self.backends, now >= self._others_until
        in_flight, busy = tuple(map(_IN_FLIGHT, backends)), tuple(map(_BUSY, backends))
        if not alone:
            in_flight = tuple([own + self._elsewhere(b.name, now) for own, b in zip(in_flight, backends, strict=True)])
            busy = tuple([own or self._full_elsewhere(b, now) for own, b in zip(busy, backends, strict=True)])
        well = alone and True not in map(_TROUBLED, backends)  # all, nearly always
        return Snapshot(
            self._all_well if well else tuple([self._unavailable(backend, now) for backend in backends]),
            in_flight,
            tuple(self._averages),
            self._first_averages,
            wall,
            spent,
            tuple(self._lines) if self._sized else (),
            busy,
            False,
            () if well else tuple([self._back_in_s(backend, now) for backend in backends]),
            self.intensities.at(wall) if self.intensities.scheduled else (),
        )

    def observe(self, backend_index: int, event: Event, now: float) -> None:
        backend = self.backends[backend_index]
        before, backend.health = backend.health, step(backend.health, event, now, self._ejection)
        if ejected(backend.health, now) and not ejected(before, now) and self._too_many_out(backend_index, now):
            backend.health = spared(backend.health)
        elif ejected(backend.health, now) and not ejected(before, now):
            backend.times_ejected += 1
            for_s = backend.health.ejected_until - now
            log.warning("backend %s failed too often, and is kept out for %.0f s", backend.name, for_s)
        backend.troubled = backend.held_until > 0 or had_trouble(backend.health)

    def _too_many_out(self, backend_index: int, now: float) -> bool:
        """Whether too large a share of those who serve the same models is kept out, this one included."""
        peers = self._peers[backend_index]
        out = sum(i == backend_index or ejected(self.backends[i].health, now) for i in peers)
        return out > max(1.0, self._ejection.max_share * len(peers))

    # --- what other replicas know ------------------------------------------------------------------------------------

    def view(self, now: float) -> View:
        """What this replica tells the others."""
        return View(
            {b.name: b.in_flight for b in self.backends if b.in_flight},
            {b.name: b.health.ejected_until - now for b in self.backends if ejected(b.health, now)},
        )

    def hear(self, others: View, until: float, now: float) -> None:
        """What the others know, and until when that counts."""
        self._others, self._others_until = others, until
        self._ejected_elsewhere = {name: now + seconds for name, seconds in others.ejected_for_s.items()}

    def _elsewhere(self, name: str, now: float) -> int:
        return self._others.in_flight.get(name, 0) if now < self._others_until else 0

    def _full_elsewhere(self, backend: BackendState, now: float) -> bool:
        others = self._elsewhere(backend.name, now)
        return others > 0 and backend.in_flight + others >= backend.places.capacity

    def _unavailable(self, backend: BackendState, now: float) -> str | None:
        until = self._ejected_elsewhere.get(backend.name, 0.0)
        if now < until and now < self._others_until and not self._too_many_out(self._index[backend.name], now):
            return f"ejected by other replicas after repeated failures, for {until - now:.0f} s more"
        if not backend.troubled:
            return None
        return unavailable(backend.health, now, backend.in_flight, backend.places.capacity, self._ejection)

    def _back_in_s(self, backend: BackendState, now: float) -> float:
        return max(backend.health.ejected_until - now, backend.held_until - now, 0.0)

    def hold(self, backend_index: int, seconds: float, now: float) -> None:
        """It said how long it wants to be left alone."""
        backend = self.backends[backend_index]
        backend.held_until = max(backend.held_until, now + min(seconds, LONGEST_HOLD_S))
        backend.troubled = True

    def observe_latency(self, target: Target, latency_ms: float, now: float, size: float | None = None) -> None:
        """To the whole answer, of so many tokens or KiB (`policies.estimate.size`), as far as that is known."""
        index = target.index
        latency = self._whole[index]
        latency.observe(latency_ms, now)
        self._averages[index] = latency.average_ms
        if size is not None:
            latency.trend.observe(size, latency_ms)
            self._lines[index] = line = latency.trend.line
            self._sized = self._sized or line is not None

    def observe_ttft(self, target: Target, ttft_ms: float, now: float) -> None:
        """To the first byte of a stream."""
        self._first[target.index].observe(ttft_ms, now)
        self._gather_first()

    def observe_at_least(self, target: Target, ms: float, stream: bool, now: float) -> None:
        """A call that was given up after so long: without it only the quick ones would be known."""
        latency = (self._first if stream else self._whole)[target.index]
        if latency.average_ms is not None and ms > latency.average_ms:
            latency.observe(ms, now)
            self._gather()

    def sketch(self, target: Target, stream: bool) -> Sketch:
        """Of times to the first byte of streams, or to whole answers."""
        return (self._first if stream else self._whole)[target.index].sketch

    def _age(self, now: float) -> None:
        passed, self._aged = min(now - self._aged, 60.0), now
        for target, whole, first in zip(self._targets, self._whole, self._first, strict=True):
            whole.age(target.prior_ms, now, passed)
            first.age(target.prior_ttft_ms, now, passed)
        self._gather()

    def condition(self, backend: BackendState, now: float) -> str:
        """One of `health.STATES`."""
        said = condition(backend.health, now, self._ejection)
        return "held" if said in ("available", "slow_start") and now < backend.held_until else said

    def measured(self) -> Iterator[tuple[float | None, float]]:
        """By target: the time to the whole answer in ms, and when it was last measured."""
        for latency in self._whole:
            yield latency.average_ms, latency.at

    def unavailable(self, backend_index: int, now: float) -> str | None:
        return unavailable(self.backends[backend_index].health, now)

    def reachable(self, now: float) -> list[str]:
        """Backends that have answered something and may be used."""
        return [b.name for b in self.backends if b.health.seen and unavailable(b.health, now) is None]


def _peers(policy: CompiledPolicy) -> list[frozenset[int]]:
    """Of each backend those that serve a model of its own, itself included."""
    serving: dict[str, set[int]] = {}
    for target in policy.targets:
        serving.setdefault(target.model, set()).add(target.backend_index)
    return [frozenset().union(*(serving[name] for name in spec.models)) for spec in policy.fleet.backends]
