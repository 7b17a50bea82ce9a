"""A recorded request and the situation that it met, in the terms of another policy: levels, targets and quotas by name.

What the log does not hold cannot be asked of it: texts are not there, so what detectors found then counts as found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec.structs import replace

from policies.compile import CompiledPolicy
from policies.sensitivity.labels import Label, declassified
from policies.simulation.traffic import Arrival
from policies.types import Request, Snapshot

T = TypeVar("T")

_NOT_FOUND_IN_IT = ("floor", "tenant", "declassified")
"""What raises or lowers a label by the policy's own account, and so is worked out anew."""
_UNMASKED = ("header", "unscannable", "stated")
"""What is no finding, so that nothing of it can be masked."""


def _is_doubt(source: str) -> bool:
    """Whether the label is the highest because nobody could tell."""
    return source == "unreadable" or source.endswith(":failed")


@dataclass(frozen=True, slots=True)
class Translation:
    """From the policy that decided to the one that is tried."""

    was: CompiledPolicy = field(repr=False)
    now: CompiledPolicy = field(repr=False)
    same: bool
    ranks: tuple[int, ...]  # of each level then; one that is not there any more counts as the highest
    targets: tuple[int | None, ...]  # of each target now: which it was then; None: there was none
    backends: tuple[int | None, ...]  # likewise
    quotas: Mapping[int, int]  # of each quota then that is still there: which it is now

    @classmethod
    def between(cls, was: CompiledPolicy, now: CompiledPolicy) -> Translation:
        top = len(now.levels) - 1
        targets = {(one.backend, one.model): one.index for one in was.targets}
        backends = {name: i for i, name in enumerate(was.backend_names)}
        quotas = {(one.name, one.unit, one.per): one.index for one in now.quotas}
        known = [(one.index, quotas.get((one.name, one.unit, one.per))) for one in was.quotas]
        return cls(
            was,
            now,
            was.digest == now.digest,
            tuple([now.levels.index(level) if level in now.levels else top for level in was.levels]),
            tuple([targets.get((one.backend, one.model)) for one in now.targets]),
            tuple([backends.get(name) for name in now.backend_names]),
            {then: there for then, there in known if there is not None},
        )

    def request(self, arrival: Arrival) -> Request:
        """With the label that it would have: what was found in it, over the floors of now."""
        was, policy, ranks = arrival.request, self.now, self.ranks
        if self.same:
            return was
        before, tenant = self.was.tenant(was.tenant), policy.tenant(was.tenant)
        request = replace(
            was,
            usage=tenant.usage_default if was.usage == before.usage_default else was.usage,
            headers={name: value for name, value in was.headers.items() if name in policy.headers},
            labels={name: value for name, value in was.labels.items() if name in policy.label_names},
        )
        raised = dict.fromkeys(arrival.label.raised_by)
        top = len(policy.levels) - 1
        found = [
            (source, top if _is_doubt(source) else ranks[rank])
            for source, rank in raised
            if source not in _NOT_FOUND_IN_IT
        ]
        floor = max(policy.floor(request, arrival.at), tenant.floor)
        label = Label(
            max(floor, *(rank for _, rank in found)) if found else floor,
            (("floor", floor), *found),
            arrival.label.entities,
        )
        lowered = [rank for source, rank in raised if source == "declassified"]
        if lowered and tenant.may_declassify:
            label = declassified(label, ranks[lowered[0]])
        return request.labelled(label.rank, self._masked(arrival, floor, label))

    def _masked(self, arrival: Arrival, floor: int, label: Label) -> int | None:
        """The label of what masking leaves. How much of it was an old floor's doing is not known, so it stays; what
        masking cannot remove holds as well."""
        masked = arrival.request.masked_label
        if masked is None:
            return None
        firm = [rank for source, rank in label.raised_by if source in _UNMASKED or _is_doubt(source)]
        return max(floor, self.ranks[masked], *firm)

    def turned_away(self, arrival: Arrival) -> bool:
        """Whether it asked for what its tenant may not ask for any more."""
        lowered = any(source == "declassified" for source, _ in arrival.label.raised_by)
        tenant = self.now.tenant(arrival.request.tenant)
        return lowered and tenant.known and not tenant.may_declassify

    def spent(self, arrival: Arrival) -> Iterator[tuple[tuple[int, str], float]]:
        """What quotas that are still there had used when the request came."""
        for (index, key), amount in arrival.snapshot.spent.items():
            if index in self.quotas:
                yield (self.quotas[index], key), amount

    def snapshot(
        self, arrival: Arrival, in_flight: tuple[int, ...], spent: Mapping[tuple[int, str], float]
    ) -> Snapshot:
        """What was measured and known of backends then; how full they are, and what is spent, as simulated."""
        then = arrival.snapshot
        by_target, by_backend = self.targets, self.backends
        return Snapshot(
            _moved(then.unavailable, by_backend, None),
            in_flight,
            _moved(then.latency_ms, by_target, None),
            _moved(then.ttft_ms, by_target, None) if then.ttft_ms else (),
            arrival.at,
            spent,
            _moved(then.growth, by_target, None) if then.growth else (),
            back_in_s=_moved(then.back_in_s, by_backend, 0.0) if then.back_in_s else (),
            g_per_kwh=self.now.g_per_kwh(arrival.at),
        )


def _moved(values: tuple[T, ...], places: tuple[int | None, ...], absent: T) -> tuple[T, ...]:
    return tuple([absent if at is None else values[at] for at in places])


def unknown(was: CompiledPolicy, now: CompiledPolicy) -> list[str]:
    """What `now` asks of requests that a log written under `was` cannot tell, in sentences."""
    told = [f"the header {name}: a log holds those that its policy reads" for name in sorted(now.headers - was.headers)]
    told += [f"the label {name} of requests, likewise" for name in sorted(now.label_names - was.label_names)]
    before, after = was.source.sensitivity, now.source.sensitivity
    if before.detectors != after.detectors or before.unscannable != after.unscannable:
        told.append("what other detectors find: a log holds no text, so what was found then counts")
    if now.transforms and not was.transforms:
        told.append("what masking leaves: nothing was masked, so no request counts as one that can be")
    if now.tenants is not None:
        may = [name for name, tenant in (was.tenants or {}).items() if tenant.may_declassify]
        lost = [name for name in may if not now.tenant(name).may_declassify]
        told += [f"what tenant {name} lowers: it may not any more, and who asks for it is turned away" for name in lost]
    return told


def strategies(policy: CompiledPolicy) -> list[str]:
    """What rules do with an answer, or beside it, that needs more than a record tells, in sentences."""
    used = [rule.strategy for rule in policy.rules if rule.strategy is not None]
    told = []
    if any(strategy.cascade is not None for strategy in used):
        told.append("cascades where the log does not say how sure an answer was: it counts, for trust too")
    if any(strategy.hedge is not None for strategy in used):
        told.append("hedges: nobody is asked a second time, so they lose no trust here")
    return told
