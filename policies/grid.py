"""Requests that tell policies apart: built from the policies' own match values. For lints and for `diff`.

Every model and task of the fleets meets every tenant, label and usage that the policies name; every other field is
varied by itself; and every match gets requests made to satisfy it. No request here holds a payload.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policies.calendar import Zones, utc_only, window_test
from policies.compile import CompiledPolicy
from policies.match import all_matches, parts, text_test
from policies.schema import EntityCondition, LabelRange, Match, NotText, Range, RequestFacts, TimeWindow
from policies.tenants import ANONYMOUS

MONDAY_NOON = 1767614400.0  # 2026-01-05T12:00:00Z
OTHER = "other"
"""A value that no policy is expected to name."""
_TEXT = ("tenant", "usage", "route", "caller_region")
_NUMBERS = ("tokens_in", "body_bytes", "deadline_ms")


@dataclass(frozen=True, slots=True)
class Probe:
    """One request of the grid, and when it arrives."""

    facts: RequestFacts
    now: float = MONDAY_NOON


@dataclass(slots=True)
class _Values:
    """What the policies ask of each field."""

    text: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in _TEXT})
    numbers: dict[str, set[float]] = field(default_factory=lambda: {name: set() for name in _NUMBERS})
    entities: set[tuple[str, ...]] = field(default_factory=set)
    maps: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: {"headers": set(), "labels": set()})
    times: list[TimeWindow] = field(default_factory=list)
    streams: bool = False


@dataclass(frozen=True, slots=True)
class _Parties:
    """Who may ask: any name, or only those of the Tenants documents where every policy has one."""

    names: tuple[str, ...]  # the least restricted first
    closed: bool

    @property
    def usual(self) -> str:
        return self.names[0] if self.closed else ANONYMOUS

    def all(self, named: set[str]) -> list[str]:
        return list(self.names) if self.closed else [ANONYMOUS, *sorted({*named, *self.names})]

    def one_for(self, match: Match, sample: str | None) -> str:
        """One that satisfies as many as possible of the match's conditions on tenants."""
        if not self.closed:
            return sample or ANONYMOUS
        tests = [text_test(part.tenant) for part in parts(match) if part.tenant is not None]
        return max(self.names, key=lambda name: sum(test(name) for test in tests)) if tests else self.usual


def _parties(policies: Sequence[CompiledPolicy]) -> _Parties:
    known = [tenant for policy in policies for tenant in (policy.tenants or {}).values()]
    known.sort(key=lambda one: (one.floor, one.models is not None, one.usages is not None, one.name))
    closed = all(policy.tenants is not None for policy in policies)
    return _Parties(tuple(dict.fromkeys(tenant.name for tenant in known)), closed and bool(known))


def probes(policies: Sequence[CompiledPolicy], most: int, zones: Zones = utc_only) -> list[Probe]:
    """At most so many, the same for the same policies. Where there would be more, an even sample."""
    values = _Values()
    wanted = [match for policy in policies for match in all_matches(policy.source)]
    for match in wanted:
        for part in parts(match):
            _collect(part, values)
    served = sorted(
        {(t.model, task, wire) for p in policies for t in p.targets for task in t.tasks for wire in t.protocols}
    )
    levels = list(dict.fromkeys(level for policy in policies for level in policy.levels))
    parties = _parties(policies)
    masking = [rule.match for policy in policies for rule in policy.source.rules if rule.transform is not None]
    found: dict[str, Probe] = {}
    for probe in itertools.chain(
        _product(served, levels, values, parties),
        _witnesses(wanted, served, levels, zones, parties),
        _masked(_witnesses(masking, served, levels, zones, parties), levels),
        _variations(served, levels, values, zones, parties),
        _by_the_hour(policies, served, _witnesses(wanted, served, levels, zones, parties), parties),
    ):
        found.setdefault(f"{probe.facts.model_dump_json()}{probe.now}", probe)
    if len(found) <= most:
        return list(found.values())
    kept = sorted(found, key=lambda text: hashlib.blake2b(text.encode(), digest_size=8).digest())[:most]
    chosen = set(kept)
    return [probe for text, probe in found.items() if text in chosen]


Served = Sequence[tuple[str, str, str]]


def _facts(served: tuple[str, str, str], **more: Any) -> RequestFacts:
    model, task, wire = served
    return RequestFacts.model_validate({"id": "grid", "model": model, "task": task, "protocol": wire, **more})


def _product(served: Served, levels: Sequence[str], values: _Values, parties: _Parties) -> Iterator[Probe]:
    tenants = parties.all(values.text["tenant"])
    usages = ["", *sorted(values.text["usage"])]
    for one, tenant, level, usage in itertools.product(served, tenants, levels, usages):
        yield Probe(_facts(one, tenant=tenant, label=level, usage=usage))


def _variations(
    served: Served, levels: Sequence[str], values: _Values, zones: Zones, parties: _Parties
) -> Iterator[Probe]:
    """Every other field by itself, at every label."""
    changes: list[dict[str, Any]] = []
    changes += [{name: text} for name in ("route", "caller_region") for text in sorted({*values.text[name]})]
    for name in _NUMBERS:
        changes += [{name: _number(name, at)} for at in sorted(values.numbers[name]) if at >= 0]
    changes += [{"entities": list(types)} for types in sorted(values.entities)]
    changes += [{kind: {key: text}} for kind, pairs in values.maps.items() for key, text in sorted(pairs)]
    changes.append({"tokens_in": 2000, "tokens_out": 500})  # what a document costs, where a greeting is nearly free
    if values.streams:
        changes.append({"stream": True})
    for one, level in itertools.product(served, levels):
        for change in changes:
            yield Probe(_facts(one, tenant=parties.usual, label=level, **change))
        for window in values.times:
            for now in moments(window, zones):
                yield Probe(_facts(one, tenant=parties.usual, label=level), now)


def _witnesses(
    wanted: Sequence[Match], served: Served, levels: Sequence[str], zones: Zones, parties: _Parties
) -> Iterator[Probe]:
    """Requests made to satisfy each match, at each label where it does not ask for one."""
    for match in wanted:
        facts, now = witness(match, zones)
        facts["tenant"] = parties.one_for(match, facts.get("tenant"))
        for one, level in itertools.product(served, levels):
            model, task, wire = one
            if facts.get("model", model) != model or facts.get("task", task) != task:
                continue
            yield Probe(_facts((model, task, wire), **{"label": level, **_without(facts)}), now)


def _by_the_hour(
    policies: Sequence[CompiledPolicy], served: Served, found: Iterable[Probe], parties: _Parties
) -> Iterator[Probe]:
    """Where what power emits is scheduled by times of day, the same requests at every hour of one."""
    series = [one.series for policy in policies for one in policy.intensities]
    if not any(one is not None and one.daily for one in series):
        return
    plain = [Probe(_facts(one, tenant=parties.usual)) for one in served]
    for probe, hour in itertools.product([*plain, *found], range(24)):
        if probe.now == MONDAY_NOON:  # else it is made for a window of time
            yield Probe(probe.facts, MONDAY_NOON + 3600 * (hour - 12))


def _masked(found: Iterable[Probe], levels: Sequence[str]) -> Iterator[Probe]:
    """The same requests, such that masking would give them a lower label."""
    for probe in found:
        for level in levels[: levels.index(probe.facts.label)] if probe.facts.label in levels else ():
            yield Probe(probe.facts.model_copy(update={"masked_label": level}), probe.now)


def _without(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in ("model", "task")}


def witness(match: Match, zones: Zones = utc_only) -> tuple[dict[str, Any], float]:
    """Facts that satisfy a match where it can be seen how (what `not` excludes is left at values nobody names)."""
    facts: dict[str, Any] = {}
    now = MONDAY_NOON
    for name in ("model", "task", *_TEXT):
        condition = getattr(match, name)
        if condition is not None:
            facts[name] = samples(condition)[0]
    for name in _NUMBERS:
        condition = getattr(match, name)
        if condition is not None:
            facts[name] = _number(name, _inside(condition))
    if match.label is not None:
        level = _level(match.label)
        if level is not None:
            facts["label"] = level
    if match.entities is not None:
        facts["entities"] = _found(match.entities)
    if match.stream is not None:
        facts["stream"] = match.stream
    for kind in ("headers", "labels"):
        wanted = getattr(match, kind)
        if wanted:
            facts[kind] = {key: samples(condition)[0] for key, condition in wanted.items()}
    if match.time is not None:
        now = moments(match.time, zones)[0]
    for part in [*(match.all or ()), *(match.any or ())[:1]]:
        more, then = witness(part, zones)
        facts |= more
        now = then if then != MONDAY_NOON else now
    return facts, now


def _collect(match: Match, values: _Values) -> None:
    for name in _TEXT:
        condition = getattr(match, name)
        if condition is not None:
            values.text[name].update(samples(condition))
            values.text[name].add(OTHER)
    for name in _NUMBERS:
        condition = getattr(match, name)
        bounds = [condition] if isinstance(condition, int | float) else []
        if isinstance(condition, Range):
            bounds = [b for b in (condition.gte, condition.gt, condition.lte, condition.lt) if b is not None]
        for bound in bounds:
            values.numbers[name].update((bound, bound - 1, bound + 1))
    if match.entities is not None:
        condition = match.entities
        named = {*(condition.any or ()), *(condition.all or ()), *(condition.only or ()), *(condition.none or ())}
        values.entities.update((name,) for name in named)
        values.entities.add(tuple(_found(condition)))
    for kind in ("headers", "labels"):
        for key, condition in (getattr(match, kind) or {}).items():
            values.maps[kind].update((key, text) for text in (*samples(condition), OTHER))
    if match.time is not None:
        values.times.append(match.time)
    values.streams = values.streams or match.stream is not None


def samples(condition: str | Sequence[str] | NotText) -> list[str]:
    """Texts that satisfy a condition; a pattern gives one that it matches."""
    if isinstance(condition, NotText):
        return [OTHER]
    return [_sample(one) for one in ([condition] if isinstance(condition, str) else condition)]


def _sample(pattern: str) -> str:
    text, at = "", 0
    while at < len(pattern):
        end = pattern.find("]", at + 2) if pattern[at] == "[" else -1
        if end > 0:
            inside = pattern[at + 1 : end]
            text += "0" if inside.startswith("!") else inside[0]
            at = end
        else:
            text += "x" if pattern[at] in "*?" else pattern[at]
        at += 1
    return text


def moments(window: TimeWindow, zones: Zones) -> list[float]:
    """One moment in the window and one outside it, where there are such; a quarter of an hour is fine enough."""
    inside = window_test(window, zones(window.zone))
    week = [MONDAY_NOON + 900 * step for step in range(7 * 96)]
    found = [next((now for now in week if inside(now) is side), None) for side in (True, False)]
    return [now for now in found if now is not None] or [MONDAY_NOON]


def _inside(condition: float | Range) -> float:
    if not isinstance(condition, Range):
        return condition
    if condition.gte is not None:
        return condition.gte
    if condition.gt is not None:
        upper = condition.lte if condition.lte is not None else condition.lt
        return condition.gt + 1 if upper is None or condition.gt + 1 < upper else (condition.gt + upper) / 2
    if condition.lte is not None:
        return condition.lte
    return condition.lt / 2 if condition.lt is not None else 1


def _number(name: str, value: float) -> float:
    return max(value, 0.001) if name == "deadline_ms" else max(0, int(value))


def _level(condition: str | Sequence[str] | LabelRange) -> str | None:
    if isinstance(condition, LabelRange):
        return condition.gte or condition.lte
    return condition if isinstance(condition, str) else condition[0]


def _found(condition: EntityCondition) -> list[str]:
    named = [*(condition.all or ()), *(condition.any or ())[:1]] or list(condition.only or ())[:1]
    return sorted(dict.fromkeys(named))
