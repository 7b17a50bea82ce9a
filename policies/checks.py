"""What can be wrong with a policy beyond its schema: in itself, and beside a fleet (`fleet_checks`: in a fleet)."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from policies.calendar import DAYS, Zones, days
from policies.errors import Problem, did_you_mean
from policies.match import NUMBER_FIELDS
from policies.quotas import budget_name, limit_name
from policies.schema import (
    Budget,
    DetectorSettings,
    EntityCondition,
    Fleet,
    Match,
    Ner,
    Objective,
    Patterns,
    Pii,
    Policy,
    RateLimit,
    Rule,
    TimeWindow,
)
from policies.sensitivity import ner, pii
from policies.sensitivity.entities import ALIASES, ENTITIES, ENTITY_NAME, canonical
from policies.sensitivity.keywords import problem, unusable
from policies.sensitivity.numbering import known_region
from policies.source import Document, Path

DEFAULT_RULE = "default"
NEVER_MATCHED = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "cookie", "set-cookie", "x-declassify-reason"}
)
"""Headers that no policy may ask for."""

ATTRIBUTES = (
    "name", "tier", "region", "zone", "protocol", "quality", "context_tokens", "licence.spdx",
    "licence.commercial_use", "price.per_request", "price.input_per_mtok", "price.output_per_mtok",
    "carbon.zone", "carbon.g_per_kwh", "retention.days", "retention.training",
)  # fmt: skip
"""What `require` may ask for, besides `labels.<your own>`."""


def check_duplicates(document: Document, kind: str, path: str, names: Sequence[str]) -> Iterator[Problem]:
    """Names of the list at `path` that stand twice."""
    known: set[str] = set()
    for i, name in enumerate(names):
        if name in known:
            yield document.problem((path, i, "name"), f"a second {kind} named '{name}'", "rename one of them")
        known.add(name)


def web_url(url: str) -> urllib.parse.SplitResult | None:
    """The parts of an http or https URL with a host; None for anything else."""
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if good else None


def check_policy(policy: Policy, document: Document, zones: Zones) -> Iterator[Problem]:
    levels = policy.sensitivity.levels
    where: Path = ("sensitivity", "levels")
    for i, level in enumerate(levels):
        if level in levels[:i]:
            yield document.problem((*where, i), f"level '{level}' stands twice", "each level has one place")
    yield from check_level(document, ("sensitivity", "default"), policy.sensitivity.default, levels)
    if policy.sensitivity.unscannable is not None:
        yield from check_level(document, ("sensitivity", "unscannable"), policy.sensitivity.unscannable, levels)
    for i, detector in enumerate(policy.sensitivity.detectors):
        path: Path = ("sensitivity", "detectors", i)
        yield from check_level(document, (*path, "label"), detector.label, levels)
        yield from _check_detector(detector, document, path)
    yield from _check_patterns(policy, document)
    for i, header in enumerate(policy.headers):
        if header in NEVER_MATCHED:
            yield document.problem(
                ("headers", i),
                f"'{header}' holds credentials or free text, and must not reach the decision log",
                "remove it",
            )
    check = MatchCheck(document, policy, zones)
    for i, floor in enumerate(policy.sensitivity.floors):
        path = ("sensitivity", "floors", i)
        yield from check.floor(floor.match, (*path, "match"))
        yield from check_level(document, (*path, "label"), floor.label, levels)
    yield from check_duplicates(document, "constraint", "constraints", [c.name for c in policy.constraints])
    for i, constraint in enumerate(policy.constraints):
        yield from check.match(constraint.match, ("constraints", i, "match"))
        for name in constraint.require:
            if name not in ATTRIBUTES and not (name.startswith("labels.") and len(name) > len("labels.")):
                yield document.problem(
                    ("constraints", i, "require", name),
                    f"backends have no attribute '{name}'",
                    did_you_mean(name, ATTRIBUTES) + " (your own are labels.<name>)",
                    key=True,
                )
    yield from check_duplicates(document, "rule", "rules", [r.name for r in policy.rules])
    for i, rule in enumerate(policy.rules):
        yield from check.match(rule.match, ("rules", i, "match"))
        yield from _check_rule(rule, document, ("rules", i))
    yield from _check_quotas(policy, document, check)


def _check_detector(detector: DetectorSettings, document: Document, path: Path) -> Iterator[Problem]:
    if isinstance(detector, Ner):
        for i, name in enumerate(detector.entities):
            if canonical(name) not in (*ner.TYPES, *map(canonical, detector.labels.values())):
                hint = did_you_mean(name, ner.TYPES) + "; `labels` says what else the model finds"
                yield document.problem(
                    (*path, "entities", i), f"the detector ner does not find entities of type '{name}'", hint
                )
        for name, kind in detector.labels.items():
            if canonical(kind) not in ENTITIES:
                yield document.problem(
                    (*path, "labels", name), f"no entities have the type '{kind}'", did_you_mean(kind, ENTITIES)
                )
    if not isinstance(detector, Pii):
        return
    for i, name in enumerate(detector.entities or ()):
        where = (*path, "entities", i)
        if canonical(name) not in ENTITIES:
            hint = did_you_mean(name, (*pii.RULES, *ALIASES))
            yield document.problem(where, f"no detector finds entities of type '{name}'", hint)
        elif canonical(name) not in pii.RULES:
            yield document.problem(
                where, f"the detector pii does not find entities of type '{name}'", did_you_mean(name, pii.RULES)
            )
    for i, region in enumerate(detector.regions):
        if not known_region(region):
            hint = "write ISO 3166 codes such as JP or GB"
            yield document.problem((*path, "regions", i), f"no numbering plan for the country '{region}'", hint)


def _check_patterns(policy: Policy, document: Document) -> Iterator[Problem]:
    """Patterns of the organisation's own: their names and their syntax."""
    good: list[str] = []
    for i, detector in enumerate(policy.sensitivity.detectors):
        for name, pattern in detector.patterns.items() if isinstance(detector, Patterns) else ():
            path: Path = ("sensitivity", "detectors", i, "patterns", name)
            if not ENTITY_NAME.fullmatch(name):
                hint = "write capitals, digits and _, such as PART_NUMBER"
                yield document.problem(path, f"'{name}' is no name for a type of entity", hint, key=True)
            elif name in ENTITIES or name in ALIASES:
                yield document.problem(path, f"'{name}' is a type of entity that is there already", key=True)
            wrong = problem(pattern)
            if wrong is None:
                good.append(pattern)
                continue
            message, at = wrong
            place = f" (character {at + 1} of the pattern)" if at is not None else ""
            hint = "RE2 syntax: no backreferences, no look-around; repetitions up to 1000"
            yield document.problem(path, f"the pattern {name} is not usable: {message}{place}", hint)
    if good and unusable(good):
        yield document.problem(("sensitivity", "detectors"), "all patterns together are too large to be asked at once")


def _check_quotas(policy: Policy, document: Document, check: MatchCheck) -> Iterator[Problem]:
    names: list[str] = []
    quotas: list[tuple[str, int, Budget | RateLimit, str]] = []
    quotas += [("budgets", i, budget, budget_name(budget, i)) for i, budget in enumerate(policy.budgets)]
    quotas += [("limits", i, limit, limit_name(limit, i)) for i, limit in enumerate(policy.limits)]
    for kind, i, quota, name in quotas:
        path: Path = (kind, i)
        yield from check.match(quota.match, (*path, "match"))
        if name in names:
            yield document.problem((*path, "name"), f"a second budget or limit named '{name}'", "rename one of them")
        names.append(name)
        if isinstance(quota, Budget) and (quota.usd is None) == (quota.tokens is None):
            yield document.problem(path, "a budget takes exactly one of 'usd' and 'tokens'")
        if isinstance(quota, RateLimit) and quota.requests is None and quota.tokens is None:
            yield document.problem(path, "a limit takes 'requests', 'tokens' or both", "add `requests: …`")


def _check_rule(rule: Rule, document: Document, path: Path) -> Iterator[Problem]:
    if rule.name == DEFAULT_RULE and rule.match != Match():
        yield document.problem(
            (*path, "name"),
            f"'{DEFAULT_RULE}' names what happens when no rule matches, and this rule has a match",
            "give the rule another name",
        )
    if rule.strategy is not None and rule.strategy.hedge is not None and rule.strategy.cascade is not None:
        hint = "keep one: a cascade waits for an answer to judge it, a hedge for none"
        yield document.problem((*path, "strategy"), "a rule hedges or cascades, not both", hint, key=True)
    terms = [getattr(rule.objective, name) for name in Objective.model_fields]
    if rule.slo is not None and rule.slo.latency_ms is None and rule.slo.ttft_ms is None:
        yield document.problem((*path, "slo"), "an objective of latency takes 'latency_ms', 'ttft_ms' or both")
    if not any(term is not None and term.weight > 0 for term in terms):
        yield document.problem(
            (*path, "objective"),
            f"the objective of rule '{rule.name}' has no term with a weight over 0",
            "give at least one of latency, cost, carbon, quality and load a weight",
        )


def _entities(
    document: Document, path: Path, names: Sequence[str] | None, own: frozenset[str] = frozenset()
) -> Iterator[Problem]:
    for i, name in enumerate(names or ()):
        if canonical(name) not in ENTITIES and name not in own:
            hint = did_you_mean(name, (*ENTITIES, *ALIASES, *own))
            yield document.problem((*path, i), f"no detector finds entities of type '{name}'", hint)


def check_level(document: Document, path: Path, level: str, levels: Sequence[str]) -> Iterator[Problem]:
    """A sensitivity level that there is not."""
    if level not in levels:
        yield document.problem(path, f"unknown sensitivity level '{level}'", did_you_mean(level, levels))


def check_clearances(fleet: Fleet, document: Document, policy: Policy) -> Iterator[Problem]:
    for i, backend in enumerate(fleet.backends):
        if backend.clearance is not None:
            path: Path = ("backends", i, "clearance")
            yield from check_level(document, path, backend.clearance, policy.sensitivity.levels)


def check_names(fleet: Fleet, policy: Policy, document: Document) -> Iterator[Problem]:
    """Backends that the policy names must be in the fleet."""
    names = [backend.name for backend in fleet.backends]
    for i, rule in enumerate(policy.rules):
        named: list[tuple[Path, str]] = []
        if rule.split is not None:
            named += [(("rules", i, "split", "weights", name), name) for name in rule.split.weights]
        if rule.shadow is not None:
            named.append((("rules", i, "shadow", "backend"), rule.shadow.backend))
        for path, name in named:
            if name not in names:
                yield document.problem(path, f"the fleet has no backend '{name}'", did_you_mean(name, names), key=True)


def own_entities(policy: Policy) -> frozenset[str]:
    """The types of entities that the policy's own patterns declare."""
    own = [d.patterns for d in policy.sensitivity.detectors if isinstance(d, Patterns)]
    return frozenset(name for patterns in own for name in patterns)


@dataclass(frozen=True, slots=True)
class MatchCheck:
    """Checks the conditions of one policy."""

    document: Document
    policy: Policy
    zones: Zones

    def floor(self, match: Match, path: Path) -> Iterator[Problem]:
        """A floor is part of what makes the label, so it cannot ask for what comes of it."""
        for name in ("label", "entities"):
            if getattr(match, name) is not None:
                yield self.document.problem(
                    (*path, name), f"a floor cannot ask for '{name}': it is asked before that is known", key=True
                )
        yield from self.match(match, path)

    def match(self, match: Match, path: Path) -> Iterator[Problem]:
        yield from self._label(match, path)
        yield from self._numbers(match, path)
        if match.entities is not None:
            for name in EntityCondition.model_fields:
                names = getattr(match.entities, name)
                yield from _entities(self.document, (*path, "entities", name), names, own_entities(self.policy))
        for name in match.headers or ():
            if name not in self.policy.headers:
                yield self.document.problem(
                    (*path, "headers", name),
                    f"the header '{name}' is not one that the policy allows",
                    f"write it, in lower case, into the policy's list `headers: [{name.lower()}]`",
                    key=True,
                )
        if match.time is not None:
            yield from self._time(match.time, (*path, "time"))
        for name in ("any", "all"):
            for i, part in enumerate(getattr(match, name) or ()):
                yield from self.match(part, (*path, name, i))
        if match.not_ is not None:
            yield from self.match(match.not_, (*path, "not"))

    def _label(self, match: Match, path: Path) -> Iterator[Problem]:
        label, levels, document = match.label, self.policy.sensitivity.levels, self.document
        path = (*path, "label")
        if isinstance(label, str):
            yield from check_level(document, path, label, levels)
        elif isinstance(label, list):
            for i, level in enumerate(label):
                yield from check_level(document, (*path, i), level, levels)
        elif label is not None:
            for bound in ("gte", "lte"):
                if getattr(label, bound) is not None:
                    yield from check_level(document, (*path, bound), getattr(label, bound), levels)
            for level in [label.not_] if isinstance(label.not_, str) else label.not_ or ():
                yield from check_level(document, (*path, "not"), level, levels)
            if label.gte in levels and label.lte in levels and levels.index(label.gte) > levels.index(label.lte):
                yield document.problem(path, f"no level is between {label.gte} and {label.lte}")

    def _numbers(self, match: Match, path: Path) -> Iterator[Problem]:
        for name in NUMBER_FIELDS:
            bounds = getattr(match, name)
            if bounds is None or isinstance(bounds, int | float):
                continue
            low = max((b for b in (bounds.gte, bounds.gt) if b is not None), default=float("-inf"))
            high = min((b for b in (bounds.lte, bounds.lt) if b is not None), default=float("inf"))
            if low > high:
                yield self.document.problem((*path, name), f"no number is between {low:g} and {high:g}")

    def _time(self, window: TimeWindow, path: Path) -> Iterator[Problem]:
        if window.between is None and window.days is None:
            yield self.document.problem(path, "a window of time takes 'between', 'days' or both")
        if window.between is not None and len(set(window.between.split("-"))) == 1:
            yield self.document.problem((*path, "between"), "the window begins when it ends, so it is never open")
        try:
            days(window.days or ())
        except ValueError as error:
            yield self.document.problem((*path, "days"), f"'{error}' is no day", f"write {', '.join(DAYS)} or mon-fri")
        try:
            self.zones(window.zone)
        except (KeyError, ValueError, OSError):
            yield self.document.problem(
                (*path, "zone"), f"no time zone '{window.zone}'", "write an IANA name such as Asia/Tokyo, or UTC"
            )
