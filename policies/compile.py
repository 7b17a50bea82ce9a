"""A fleet and a policy, checked against themselves and each other, compiled to what `decide` runs on.

All problems are collected before anything is raised, so that one `pointsman check` shows them all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from policies.accounts import competing
from policies.calendar import Zones, utc_only
from policies.carbon import Intensity, intensities
from policies.checks import DEFAULT_RULE, check_clearances, check_names, check_policy
from policies.errors import ConfigurationError, Problem
from policies.fleet_checks import check_fleet
from policies.match import CompiledMatch, MatchCompiler, all_matches, attribute_test, label_names
from policies.quotas import Quota, compile_quotas
from policies.schema import Constraint, Fallback, Fleet, Policy, Rule, Shadow, Slo, Split, Strategy, Tenants
from policies.scorers import Score, compile_objective
from policies.sensitivity.detectors import build_detectors
from policies.sensitivity.ner import Recognisers, none_here
from policies.sensitivity.scanner import Scanner
from policies.source import Document, Include
from policies.targets import build_targets
from policies.tenants import (
    ANYONE,
    NOBODY,
    Tenant,
    check_floors,
    check_models,
    check_tenants,
    compile_tenants,
    deciding,
)
from policies.types import Bounds, Rejection, Request, Target
from policies.validate import validate

MAX_PLANS = 4096


@dataclass(frozen=True, slots=True)
class CompiledConstraint:
    name: str
    matches: CompiledMatch = field(repr=False)
    violations: Mapping[int, str] = field(repr=False)  # target index -> why it may not
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class CompiledRule:
    name: str
    matches: CompiledMatch = field(repr=False)
    objective: tuple[tuple[str, float], ...]
    score: Score = field(repr=False, compare=False)
    slo: Slo | None
    transform: str | None
    strategy: Strategy | None
    split: Split | None
    shadow: Shadow | None
    fallback: Fallback
    priority: str
    spill: str
    notice: str | None


@dataclass(frozen=True, slots=True)
class CompiledFloor:
    matches: CompiledMatch = field(repr=False)
    label: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left to look at once a request's model, task, tenant, wire and label are known, and if it streams."""

    rules: tuple[CompiledRule, ...]  # up to and with the first one that is sure to match
    constraints: tuple[CompiledConstraint, ...]
    quotas: tuple[Quota, ...]
    bounds: Bounds  # of the targets
    targets: tuple[Target, ...]  # the ones that serve the model
    baselines: tuple[Target, ...]  # those of the cloud at whose prices savings are counted
    rejections: tuple[Rejection, ...]  # why the other backends do not


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy bound to a fleet. Immutable; shared by every decision made under its digest."""

    digest: str
    levels: tuple[str, ...]
    default_label: int
    unscannable: int | None  # the least label of what no detector can read
    detectors: Scanner = field(repr=False)
    fleet: Fleet = field(repr=False)
    targets: tuple[Target, ...] = field(repr=False)
    intensities: tuple[Intensity, ...] = field(repr=False)  # by backend: what its power emits
    constraints: tuple[CompiledConstraint, ...] = field(repr=False)
    rules: tuple[CompiledRule, ...] = field(repr=False)
    quotas: tuple[Quota, ...] = field(repr=False)
    floors: tuple[CompiledFloor, ...] = field(repr=False)
    headers: frozenset[str]  # names of the request headers that may be matched
    model_names: frozenset[str]
    raw_headers: frozenset[bytes]  # the same, as HTTP carries them
    backend_names: tuple[str, ...]  # in the fleet's order
    label_names: frozenset[str]  # names of the request labels that are matched
    source: Policy = field(repr=False)
    tenants: Mapping[str, Tenant] | None = field(repr=False)  # None: no Tenants document, every caller is anonymous
    plans: dict[tuple[str, str, str, str, int, bool], Plan] = field(repr=False, compare=False)  # memo of `plan`

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self.model_names))

    @property
    def transforms(self) -> bool:
        """Whether any rule asks for masking."""
        return any(rule.transform is not None for rule in self.rules)

    def rank(self, level: str) -> int:
        """The rank of a level's name; KeyError when there is none of that name."""
        try:
            return self.levels.index(level)
        except ValueError:
            raise KeyError(level) from None

    def tenant(self, name: str) -> Tenant:
        """What the tenant of this name is held to. With a Tenants document, a name outside it may do nothing."""
        if self.tenants is None:
            return ANYONE
        return self.tenants.get(name, NOBODY)

    def g_per_kwh(self, now: float) -> tuple[float, ...]:
        """By backend, what its power emits at `now`, for a `Snapshot`; empty where no hour differs from another."""
        if all(one.series is None for one in self.intensities):
            return ()
        return tuple(one.at(now) for one in self.intensities)

    def floor(self, request: Request, now: float) -> int:
        """The least label of such a request, whatever is found in it: the default and every floor that matches."""
        least = self.default_label
        for floor in self.floors:
            if floor.label > least and floor.matches(request, now):
                least = floor.label
        return least

    def plan(self, request: Request) -> Plan:
        """The rules, constraints and targets that can matter to requests like this one.

        This is the policy's index: worked out once for each of its keys, so that a decision costs what
        the rules that can match cost, not what all rules cost. The memo changes no result, only how soon it comes.
        """
        key = (request.model, request.task, request.tenant, request.protocol, request.label, request.stream)
        plan = self.plans.get(key)
        if plan is None:
            plan = self._plan(request)
            if not plan.targets:  # names that nobody configured must not fill the memory
                return plan
            if len(self.plans) >= MAX_PLANS:
                self.plans.clear()
            self.plans[key] = plan
        return plan

    def _plan(self, request: Request) -> Plan:
        rules = []
        for rule in self.rules:
            if rule.matches.static(request):
                rules.append(rule)
                if rule.matches.dynamic is None:
                    break
        targets, rejections = _shortlist(self.targets, self.fleet, request.model, request.task, request.protocol)
        return Plan(
            tuple(rules),
            tuple(c for c in self.constraints if c.matches.static(request)),
            tuple(q for q in self.quotas if q.matches.static(request)),
            _bounds(targets),
            targets,
            _baselines(targets, self.fleet.baseline.backend),
            rejections,
        )


def _baselines(targets: Sequence[Target], named: str | None) -> tuple[Target, ...]:
    clouds = [target for target in targets if target.tier == "cloud"]
    return competing([target for target in clouds if target.backend == named] or clouds)


def compile_documents(
    documents: Sequence[Document],
    zones: Zones = utc_only,
    recognisers: Recognisers = none_here,
    include: Include | None = None,
) -> tuple[CompiledPolicy | None, list[Problem]]:
    """One Fleet, at most one Policy and at most one Tenants, compiled; None when there is an error. Warnings come back
    either way.

    Without a Policy document the defaults hold: four levels, `internal` by default, clearance always on. `zones`
    knows the time zones that windows of time may name, `recognisers` the models that detectors may. `include` reads the
    files of carbon intensities; without it, none is read.
    """
    problems: list[Problem] = []
    fleets: list[tuple[Fleet, Document]] = []
    policies: list[tuple[Policy, Document]] = []
    tenants: list[tuple[Tenants, Document]] = []
    emits: list[tuple[Intensity, ...]] = []
    whole = True
    for document in documents:
        checked = validate(document)
        whole = whole and checked.whole
        problems += checked.problems
        found: Iterable[Problem] = ()
        if isinstance(checked.model, Fleet):
            carbon, wrong = intensities(checked.model, checked.document, include)
            found = chain(check_fleet(checked.model, checked.document), wrong)
            emits.append(carbon)
            fleets.append((checked.model, checked.document))
        elif isinstance(checked.model, Policy):
            found = check_policy(checked.model, checked.document, zones)
            policies.append((checked.model, checked.document))
        elif isinstance(checked.model, Tenants):
            found = check_tenants(checked.model, checked.document)
            tenants.append((checked.model, checked.document))
        problems += [p for p in found if p.position not in document.faults]
    for same in (fleets, policies, tenants):
        for _, document in same[1:]:
            first = same[0][1]
            where = f"{first.file}:{first.locate(('kind',))[0]}"
            problems.append(document.problem(("kind",), f"a second {document.kind}; the first is {where}", "keep one"))
    if fleets:
        policy = policies[0][0] if policies else Policy(apiVersion="pointsman/v1", kind="Policy")
        if policies or not any(document.kind == "Policy" for document in documents):
            problems += check_clearances(*fleets[0], policy)  # else its levels are not known
        if policies:
            problems += check_names(fleets[0][0], *policies[0])
        if tenants:
            problems += check_floors(*tenants[0], policy)
            problems += check_models(*tenants[0], fleets[0][0])
    if not whole or not fleets or any(p.severity == "error" for p in problems):
        return None, problems
    parties = tenants[0][0] if tenants else None
    digest = _digest(documents, fleets[0][0], emits[0])
    return _compile(fleets[0][0], emits[0], policy, parties, digest, zones, recognisers), problems


def compile_or_raise(documents: Sequence[Document], zones: Zones = utc_only) -> CompiledPolicy:
    compiled, problems = compile_documents(documents, zones)
    if compiled is None:
        raise ConfigurationError(problems)
    return compiled


def _violations(
    name: str, tests: Mapping[str, tuple[Callable[[Any], bool], Any]], targets: Sequence[Target]
) -> dict[int, str]:
    violations: dict[int, str] = {}
    for target in targets:
        for attribute, (test, condition) in tests.items():
            value = target.attributes.get(attribute)
            if value is None or not test(value):
                stated = "is not stated" if value is None else f"is {_show(value)}"
                violations[target.index] = f"{name}: {attribute} {stated}, required is {_show(condition)}"
                break
    return violations


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " or ".join(_show(one) for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value
    stated = value.model_dump(by_alias=True, exclude_none=True)
    words = {"gte": "at least", "gt": "over", "lte": "at most", "lt": "under", "not": "not"}
    return " and ".join(f"{words[key]} {_show(bound)}" for key, bound in stated.items())


def _shortlist(
    targets: Sequence[Target], fleet: Fleet, model: str, task: str, wire: str
) -> tuple[tuple[Target, ...], tuple[Rejection, ...]]:
    """The targets that serve the model for the task over the wire, and why the other backends do not."""
    keep: list[Target] = []
    rejections: list[Rejection] = []
    by_backend = {target.backend: target for target in targets if target.model == model}
    for backend in fleet.backends:
        target = by_backend.get(backend.name)
        if target is None:
            reason = "does not serve this model"  # its name is the caller's text, and this is kept
        elif task not in target.tasks:
            reason = f"serves {model} for {', '.join(target.tasks)}, not for {task}"
        elif wire not in target.protocols:
            reason = f"speaks {backend.protocol}, the request came as {wire}"
        else:
            keep.append(target)
            continue
        rejections.append(Rejection(backend.name, "capability", reason))
    return tuple(keep), tuple(rejections)


def _bounds(targets: Sequence[Target]) -> Bounds:
    return Bounds(
        min((target.clearance for target in targets), default=0),
        min((target.context_tokens for target in targets if target.context_tokens is not None), default=None),
        min((target.max_in_flight + target.max_queued for target in targets), default=0),
        min((target.max_in_flight + target.max_queued // 2 for target in targets), default=0),
    )


def _digest(documents: Sequence[Document], fleet: Fleet, carbon: Sequence[Intensity]) -> str:
    """Names what decides: the same for the same meaning, whatever the comments, order of keys, file names
    or the tenants' keys. What tables say is part of it. What a series says is part of the snapshot, as all that changes
    with the hour: a new forecast is no new policy, and old decisions can still be made again."""
    data = [deciding(document.data) if document.kind == "Tenants" else document.data for document in documents]
    plain = sorted(json.dumps(one, sort_keys=True) for one in data)
    if any(backend.carbon.table is not None for backend in fleet.backends):
        plain.append(json.dumps([one.standing for one in carbon]))
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()[:16]


def _compile(
    fleet: Fleet,
    carbon: tuple[Intensity, ...],
    policy: Policy,
    tenants: Tenants | None,
    digest: str,
    zones: Zones,
    recognisers: Recognisers,
) -> CompiledPolicy:
    levels = tuple(policy.sensitivity.levels)
    ranks = {level: rank for rank, level in enumerate(levels)}
    compiler = MatchCompiler(ranks, zones)
    targets = build_targets(fleet, ranks, [one.standing for one in carbon])
    return CompiledPolicy(
        digest=digest,
        levels=levels,
        default_label=ranks[policy.sensitivity.default],
        unscannable=None if policy.sensitivity.unscannable is None else ranks[policy.sensitivity.unscannable],
        detectors=build_detectors(policy.sensitivity, ranks, recognisers),
        fleet=fleet,
        targets=targets,
        intensities=carbon,
        constraints=tuple(_constraint(one, compiler, targets) for one in policy.constraints),
        rules=tuple(_rule(one, compiler) for one in (*policy.rules, Rule(name=DEFAULT_RULE))),
        quotas=compile_quotas(policy, [backend.name for backend in fleet.backends], compiler),
        floors=tuple(
            CompiledFloor(compiler.match(floor.match), ranks[floor.label]) for floor in policy.sensitivity.floors
        ),
        headers=frozenset(policy.headers),
        model_names=frozenset(target.model for target in targets),
        raw_headers=frozenset(name.encode("latin-1", "replace") for name in policy.headers),
        backend_names=tuple(backend.name for backend in fleet.backends),
        label_names=frozenset(name for match in all_matches(policy) for name in label_names(match)),
        source=policy,
        tenants=None if tenants is None else compile_tenants(tenants, ranks),
        plans={},
    )


def _constraint(constraint: Constraint, compiler: MatchCompiler, targets: Sequence[Target]) -> CompiledConstraint:
    tests = {name: (attribute_test(c), c) for name, c in constraint.require.items()}
    return CompiledConstraint(
        constraint.name,
        compiler.match(constraint.match),
        _violations(constraint.name, tests, targets),
        constraint.notice,
    )


def _rule(rule: Rule, compiler: MatchCompiler) -> CompiledRule:
    return CompiledRule(
        rule.name,
        compiler.match(rule.match),
        *compile_objective(rule.objective),
        rule.slo,
        rule.transform,
        rule.strategy,
        rule.split,
        rule.shadow,
        rule.fallback,
        rule.priority,
        rule.spill,
        rule.notice,
    )
