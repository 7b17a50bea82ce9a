"""Sums into a report: shares, savings, what own hardware costs at the load that it had."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from policies.schema import Fleet
from router.report.tally import DIMENSIONS, NOBODY, Group, Tally, nearness

MOST_BUCKETS = 60
_STEPS = (1, 5, 10, 30, 60, 180, 360, 720, 1440, 10080, 43200)  # minutes
_J_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Row:
    """Money in USD, times in milliseconds; None where nothing is known."""

    name: str
    requests: int
    answered: int
    slo_attained: float | None  # share of the requests that were for the service to answer
    p50_ms: float | None
    p95_ms: float | None
    tokens_in: int
    tokens_out: int
    tokens_estimated: float  # share of the tokens
    usd: float  # what is paid by the hour with a request's share at full capacity
    marginal_usd: float  # without it
    baseline_usd: float
    savings_usd: float  # baseline less cost
    energy_kwh: float
    carbon_g: float


@dataclass(frozen=True, slots=True)
class OwnHardware:
    """A backend that is paid by the hour, at the load that it had."""

    backend: str
    usd_per_hour: float
    hours: float
    reserved_usd: float
    capacity_rps: float
    requests: int
    rps: float
    utilisation: float
    usd_per_request_full: float  # at full capacity, as decisions and budgets count it
    usd_per_request: float | None  # at the load that it had
    cloud_usd_per_request: float | None  # what the cloud would have asked for its answers; None: it has no such model
    break_even_rps: float | None  # from which load on it is cheaper than the cloud; None: at none, or not known

    @property
    def pays(self) -> bool | None:
        """Whether it did; None where there is nothing to compare with."""
        if self.cloud_usd_per_request is None:
            return None
        return self.break_even_rps is not None and self.rps >= self.break_even_rps


@dataclass(frozen=True, slots=True)
class Series:
    """By stretches of `step_s` seconds: when each begins, answers by tier, USD."""

    step_s: int
    at: tuple[float, ...]
    tiers: Mapping[str, tuple[int, ...]]
    usd: tuple[float, ...]  # spent: all hours of own hardware where they are known, else its share at full use
    baseline_usd: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Report:
    since: float  # from when on it counts, and until when; seconds since 1970
    until: float
    total: Row
    outcomes: Mapping[str, int]
    by: Mapping[str, tuple[Row, ...]]  # dearest first, then busiest
    purposes: Mapping[str, float]  # USD
    labels: Mapping[str, Mapping[str, int]]  # of what was sent -> tier -> requests
    own: tuple[OwnHardware, ...]
    idle_kwh: float  # that backends draw while they wait, as the fleet says
    idle_carbon_g: float
    series: Series
    uncharged: int
    broken: tuple[str, ...] = ()  # chains of the log that are not as they were written

    @property
    def reserved_usd(self) -> float:
        return sum(one.reserved_usd for one in self.own)

    @property
    def amortised_usd(self) -> float:
        """What it really cost: all hours of own hardware, idle ones too, and what answers have added."""
        return self.total.marginal_usd + self.reserved_usd

    @property
    def saved_usd(self) -> float:
        """Against everything in the cloud, idle hours of own hardware paid."""
        return self.total.baseline_usd - self.amortised_usd


def summed_up(tally: Tally, fleet: Fleet | None, levels: Sequence[str] = (), broken: tuple[str, ...] = ()) -> Report:
    """`fleet` tells what is paid by the hour, and drawn while idle; without it nothing is known of that. `levels`: the
    order of sensitivity, lowest first."""
    begin = min(max(tally.since, tally.until if tally.earliest is None else tally.earliest), tally.until)
    labels: dict[str, dict[str, int]] = {}
    order = {level: i for i, level in enumerate(levels)}
    for (label, tier), count in sorted(tally.labels.items(), key=lambda one: (order.get(one[0][0], -1), one[0])):
        labels.setdefault(label, {})[tier] = count
    hours = max(tally.until - begin, 1.0) / 3600
    kwh = [(one.energy.idle_w * hours / 1000, one.carbon.g_per_kwh) for one in fleet.backends] if fleet else []
    idle = [(energy, energy * intensity) for energy, intensity in kwh]
    own = tuple(_own(tally, fleet, hours)) if fleet is not None else ()
    return Report(
        begin,
        tally.until,
        _row("all", tally.total),
        dict(tally.outcomes.most_common()),
        {name: _rows(tally.by[name]) for name in DIMENSIONS},
        dict(tally.purposes.most_common()),
        labels,
        own,
        sum(kwh for kwh, _ in idle),
        sum(grams for _, grams in idle),
        _series(tally, begin, sum(one.usd_per_hour for one in own) if own else None),
        tally.uncharged,
        broken,
    )


def as_dict(report: Report) -> dict[str, Any]:
    """For programs."""
    found = asdict(report)
    found["own"] = [one | {"pays": own.pays} for one, own in zip(found["own"], report.own, strict=True)]
    return found | {
        "reserved_usd": report.reserved_usd, "amortised_usd": report.amortised_usd, "saved_usd": report.saved_usd
    }  # fmt: skip


def _rows(groups: Mapping[str, Group]) -> tuple[Row, ...]:
    rows = [_row(name, group) for name, group in groups.items()]
    return tuple(sorted(rows, key=lambda row: (row.name == NOBODY, -row.usd, -row.requests, row.name)))


def _row(name: str, group: Group) -> Row:
    judged, tokens = group.met + group.missed, group.tokens_in + group.tokens_out
    return Row(
        name,
        group.requests,
        group.answered,
        group.met / judged if judged else None,
        _quantile(group.ms, 0.5),
        _quantile(group.ms, 0.95),
        group.tokens_in,
        group.tokens_out,
        group.tokens_estimated / tokens if tokens else 0.0,
        group.usd,
        group.marginal_usd,
        group.baseline_usd,
        group.baseline_usd - group.usd,
        group.energy_j / _J_PER_KWH,
        group.carbon_g,
    )


def _quantile(ms: array[float], share: float) -> float | None:
    return float(np.quantile(np.frombuffer(ms, np.float32), share)) if ms else None


def _own(tally: Tally, fleet: Fleet, hours: float) -> list[OwnHardware]:
    found = []
    for spec in fleet.backends:
        price = spec.price
        if not price.reserved_per_hour or price.capacity_rps is None:
            continue
        group = tally.by["backend"].get(spec.name, Group())
        rps = group.answered / (hours * 3600)
        reserved = price.reserved_per_hour * hours
        marginal = group.marginal_usd / group.answered if group.answered else 0.0
        cloud = group.alternatives_usd / group.alternatives if group.alternatives else None
        gain = cloud - marginal if cloud is not None else 0.0
        break_even = price.reserved_per_hour / 3600 / gain if gain > 0 else math.inf
        found.append(
            OwnHardware(
                spec.name,
                price.reserved_per_hour,
                hours,
                reserved,
                price.capacity_rps,
                group.answered,
                rps,
                rps / price.capacity_rps,
                marginal + price.reserved_per_hour / 3600 / price.capacity_rps,
                marginal + reserved / group.answered if group.answered else None,
                cloud,
                break_even if break_even <= price.capacity_rps else None,
            )
        )
    return found


def _series(tally: Tally, begin: float, reserved_usd_per_hour: float | None) -> Series:
    minutes = (tally.until - begin) / 60
    step = next((one for one in _STEPS if minutes / one <= MOST_BUCKETS), _STEPS[-1])
    first = int(begin // 60) // step
    count = int(tally.until // 60) // step - first + 1
    tiers: dict[str, list[int]] = {}
    usd, baseline = [0.0] * count, [0.0] * count
    for minute, seen in tally.minutes.items():
        at = min(minute // step - first, count - 1)  # what ended after the last that counts, counts as its
        usd[at] += seen.usd if reserved_usd_per_hour is None else seen.marginal_usd
        baseline[at] += seen.baseline_usd
        for tier, answers in seen.tiers.items():
            tiers.setdefault(tier, [0] * count)[at] += answers
    edges = [float((first + i) * step * 60) for i in range(count)]
    for i, edge in enumerate(edges):
        covered_s = max(0.0, min(edge + step * 60, tally.until) - max(edge, begin))
        usd[i] += (reserved_usd_per_hour or 0.0) * covered_s / 3600
    return Series(
        step * 60,
        tuple(edges),
        {tier: tuple(tiers[tier]) for tier in sorted(tiers, key=nearness)},
        tuple(usd),
        tuple(baseline),
    )
