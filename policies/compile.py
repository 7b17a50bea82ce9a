"""A fleet and a policy, checked against themselves and each other, compiled to what `decide` runs on.

All problems are collected before anything is raised, so that one `pointsman check` shows them all.
"""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policies.errors import ConfigurationError, Problem, did_you_mean
from policies.match import CompiledMatch, attribute_test, compile_match, is_pattern
from policies.schema import Backend, BackendModel, Fallback, Fleet, Match, Objective, Policy, Rule, Slo
from policies.scorers import Scorer, compile_objective
from policies.sensitivity.detectors import Detector, build_detectors
from policies.source import Document, Path
from policies.types import Rejection, Request, Target
from policies.validate import validate

IN_PROCESS = ("onnx", "torch")
WIRES: Mapping[str, tuple[str, ...]] = {
    "openai": ("openai",),
    "oip": ("oip",),
    "onnx": ("oip",),
    "torch": ("oip",),
    "fake": ("openai", "oip"),
}
"""Which wires a backend of each protocol can answer."""
DEFAULT_RULE = "default"
MAX_PLANS = 4096

ATTRIBUTES = (
    "name", "tier", "region", "zone", "protocol", "quality", "context_tokens", "licence.spdx",
    "licence.commercial_use", "price.per_request", "price.input_per_mtok", "price.output_per_mtok",
    "carbon.zone", "carbon.g_per_kwh",
)  # fmt: skip
"""What `require` may ask for, besides `labels.<your own>`."""


@dataclass(frozen=True, slots=True)
class CompiledConstraint:
    name: str
    matches: CompiledMatch = field(repr=False)
    violations: Mapping[int, str] = field(repr=False)  # target index -> why it may not


@dataclass(frozen=True, slots=True)
class CompiledRule:
    name: str
    matches: CompiledMatch = field(repr=False)
    objective: tuple[tuple[str, float], ...]
    scorers: tuple[Scorer, ...] = field(repr=False)
    slo: Slo | None
    fallback: Fallback


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left to look at once a request's model, task, tenant and wire are known."""

    rules: tuple[CompiledRule, ...]  # up to and with the first one that is sure to match
    constraints: tuple[CompiledConstraint, ...]
    targets: tuple[Target, ...]  # the ones that serve the model
    rejections: tuple[Rejection, ...]  # why the other backends do not


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy bound to a fleet. Immutable; shared by every decision made under its digest."""

    digest: str
    levels: tuple[str, ...]
    default_label: int
    detectors: tuple[Detector, ...] = field(repr=False)
    fleet: Fleet = field(repr=False)
    targets: tuple[Target, ...] = field(repr=False)
    constraints: tuple[CompiledConstraint, ...] = field(repr=False)
    rules: tuple[CompiledRule, ...] = field(repr=False)
    plans: dict[tuple[str, str, str, str], Plan] = field(repr=False, compare=False)  # memo of `plan`

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(sorted({target.model for target in self.targets}))

    def rank(self, level: str) -> int:
        """The rank of a level's name; KeyError when there is none of that name."""
        try:
            return self.levels.index(level)
        except ValueError:
            raise KeyError(level) from None

    def plan(self, request: Request) -> Plan:
        """The rules, constraints and targets that can matter to requests like this one.

        This is the policy's index: worked out once per (model, task, tenant, wire), so that a decision costs what
        the rules that can match cost, not what all rules cost. The memo changes no result, only how soon it comes.
        """
        key = (request.model, request.task, request.tenant, request.protocol)
        plan = self.plans.get(key)
        if plan is None:
            if len(self.plans) >= MAX_PLANS:  # names nobody configured must not fill the memory
                self.plans.clear()
            plan = self.plans[key] = self._plan(request)
        return plan

    def _plan(self, request: Request) -> Plan:
        rules = []
        for rule in self.rules:
            if rule.matches.static(request):
                rules.append(rule)
                if rule.matches.dynamic is None:
                    break
        return Plan(
            tuple(rules),
            tuple(c for c in self.constraints if c.matches.static(request)),
            *_shortlist(self.targets, self.fleet, request.model, request.task, request.protocol),
        )


def compile_documents(documents: Sequence[Document]) -> tuple[CompiledPolicy | None, list[Problem]]:
    """One Fleet and at most one Policy, compiled; None when there is an error. Warnings come back either way.

    Without a Policy document the defaults hold: four levels, `internal` by default, clearance always on.
    """
    problems: list[Problem] = []
    fleets: list[tuple[Fleet, Document]] = []
    policies: list[tuple[Policy, Document]] = []
    whole = True
    for document in documents:
        checked = validate(document)
        whole = whole and checked.whole
        problems += checked.problems
        found: Iterator[Problem] = iter(())
        if isinstance(checked.model, Fleet):
            found = _check_fleet(checked.model, checked.document)
            fleets.append((checked.model, checked.document))
        elif isinstance(checked.model, Policy):
            found = _check_policy(checked.model, checked.document)
            policies.append((checked.model, checked.document))
        problems += [p for p in found if (p.line, p.column) not in document.faults]
    for same in (fleets, policies):
        for _, document in same[1:]:
            first = same[0][1]
            where = f"{first.file}:{first.locate(('kind',))[0]}"
            problems.append(document.problem(("kind",), f"a second {document.kind}; the first is {where}", "keep one"))
    if fleets:
        policy = policies[0][0] if policies else Policy(apiVersion="pointsman/v1", kind="Policy")
        problems += _check_clearances(*fleets[0], policy)
        if whole and policies:
            problems += _cross_check(fleets[0][0], *policies[0])
    if not whole or not fleets or any(p.severity == "error" for p in problems):
        return None, problems
    return _compile(fleets[0][0], policy, _digest(documents)), problems


def compile_or_raise(documents: Sequence[Document]) -> CompiledPolicy:
    compiled, problems = compile_documents(documents)
    if compiled is None:
        raise ConfigurationError(problems)
    return compiled


# --- checks ---------------------------------------------------------------------------------------------------


def _duplicates(document: Document, kind: str, path: str, names: Sequence[str]) -> Iterator[Problem]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield document.problem((path, i, "name"), f"a second {kind} named '{name}'", "rename one of them")


def _check_fleet(fleet: Fleet, document: Document) -> Iterator[Problem]:
    yield from _duplicates(document, "backend", "backends", [backend.name for backend in fleet.backends])
    for i, backend in enumerate(fleet.backends):
        yield from _check_backend(backend, document, ("backends", i))


def _check_backend(backend: Backend, document: Document, path: Path) -> Iterator[Problem]:
    protocol, remote = backend.protocol, backend.protocol in ("openai", "oip")
    if remote and backend.url is None:
        yield document.problem(
            path, f"'{backend.name}' speaks {protocol} but has no 'url'", "add `url: http://host:port`"
        )
    if backend.url is not None:
        yield from _check_url(backend.url, document, (*path, "url"), remote, protocol)
    for name in ("api_key", "tls"):
        if getattr(backend, name) is not None and not remote:
            yield document.problem(
                (*path, name), f"'{name}' has no meaning for protocol {protocol}", "remove it", key=True
            )
    key = backend.api_key
    if key is not None and (key.env is None) == (key.file is None):
        yield document.problem((*path, "api_key"), "'api_key' takes exactly one of 'env' and 'file'")
    if backend.script is not None and protocol != "fake":
        yield document.problem(
            (*path, "script"), "only a backend of protocol fake has a 'script'", "remove it", key=True
        )
    if backend.price.reserved_per_hour and backend.price.capacity_rps is None:
        yield document.problem(
            (*path, "price", "reserved_per_hour"),
            "'reserved_per_hour' needs 'capacity_rps' beside it, or a request's share of it is unknown",
            "add `capacity_rps: …`, the requests per second this hardware can do",
        )
    for name, model in backend.models.items():
        yield from _check_model(model, protocol, document, (*path, "models", name))


def _check_url(url: str, document: Document, path: Path, remote: bool, protocol: str) -> Iterator[Problem]:
    if not remote:
        yield document.problem(path, f"a backend of protocol {protocol} has no 'url'", "remove it", key=True)
        return
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    # The URL itself may hold a secret (user:password@), so no message repeats it.
    if not good:
        yield document.problem(path, "not a URL of the form http(s)://host[:port][/prefix]")
    elif parts.username is not None or parts.password is not None:
        yield document.problem(path, "a URL must not carry a user or password", "use `api_key: {env: NAME}`")
    elif parts.query or parts.fragment:
        yield document.problem(path, "a base URL has no '?' or '#' part", "remove it")


def _check_model(model: BackendModel, protocol: str, document: Document, path: Path) -> Iterator[Problem]:
    if protocol in IN_PROCESS and model.artifact is None:
        suffix = {"onnx": ".onnx", "torch": ".pt2"}[protocol]
        yield document.problem(path, f"model '{path[-1]}' has no 'artifact'", f"add `artifact: path/to/model{suffix}`")
    if protocol not in IN_PROCESS and model.artifact is not None:
        yield document.problem((*path, "artifact"), f"protocol {protocol} loads no artifact", "remove it", key=True)


def _check_policy(policy: Policy, document: Document) -> Iterator[Problem]:
    levels = policy.sensitivity.levels
    where: Path = ("sensitivity", "levels")
    for i, level in enumerate(levels):
        if level in levels[:i]:
            yield document.problem((*where, i), f"level '{level}' stands twice", "each level has one place")
    yield from _level(document, ("sensitivity", "default"), policy.sensitivity.default, levels)
    for i, detector in enumerate(policy.sensitivity.detectors):
        yield from _level(document, ("sensitivity", "detectors", i, "label"), detector.label, levels)
    yield from _duplicates(document, "constraint", "constraints", [c.name for c in policy.constraints])
    for i, constraint in enumerate(policy.constraints):
        yield from _check_match(constraint.match, document, ("constraints", i, "match"), levels)
        for name in constraint.require:
            if name not in ATTRIBUTES and not (name.startswith("labels.") and len(name) > len("labels.")):
                yield document.problem(
                    ("constraints", i, "require", name),
                    f"backends have no attribute '{name}'",
                    did_you_mean(name, ATTRIBUTES) + " (your own are labels.<name>)",
                    key=True,
                )
    yield from _duplicates(document, "rule", "rules", [r.name for r in policy.rules])
    for i, rule in enumerate(policy.rules):
        yield from _check_rule(rule, document, ("rules", i), levels)


def _check_rule(rule: Rule, document: Document, path: Path, levels: Sequence[str]) -> Iterator[Problem]:
    if rule.name == DEFAULT_RULE and rule.match != Match():
        yield document.problem(
            (*path, "name"),
            f"'{DEFAULT_RULE}' names what happens when no rule matches, and this rule has a match",
            "give the rule another name",
        )
    yield from _check_match(rule.match, document, (*path, "match"), levels)
    terms = [getattr(rule.objective, name) for name in Objective.model_fields]
    if not any(term is not None and term.weight > 0 for term in terms):
        yield document.problem(
            (*path, "objective"),
            f"the objective of rule '{rule.name}' has no term with a weight over 0",
            "give at least one of latency, cost, carbon, quality and load a weight",
        )


def _check_match(match: Match, document: Document, path: Path, levels: Sequence[str]) -> Iterator[Problem]:
    label = match.label
    if isinstance(label, str):
        yield from _level(document, (*path, "label"), label, levels)
    elif isinstance(label, list):
        for i, level in enumerate(label):
            yield from _level(document, (*path, "label", i), level, levels)
    elif label is not None:
        for bound in ("gte", "lte"):
            if getattr(label, bound) is not None:
                yield from _level(document, (*path, "label", bound), getattr(label, bound), levels)
        if label.gte in levels and label.lte in levels and levels.index(label.gte) > levels.index(label.lte):
            yield document.problem((*path, "label"), f"no level is between {label.gte} and {label.lte}")
    for name in ("tokens_in", "body_bytes", "deadline_ms"):
        bounds = getattr(match, name)
        if bounds is None or isinstance(bounds, int | float):
            continue
        low = max((b for b in (bounds.gte, bounds.gt) if b is not None), default=float("-inf"))
        high = min((b for b in (bounds.lte, bounds.lt) if b is not None), default=float("inf"))
        if low > high:
            yield document.problem((*path, name), f"no number is between {low:g} and {high:g}")
    for name in ("any", "all"):
        for i, part in enumerate(getattr(match, name) or ()):
            yield from _check_match(part, document, (*path, name, i), levels)
    if match.not_ is not None:
        yield from _check_match(match.not_, document, (*path, "not"), levels)


def _level(document: Document, path: Path, level: str, levels: Sequence[str]) -> Iterator[Problem]:
    if level not in levels:
        yield document.problem(path, f"unknown sensitivity level '{level}'", did_you_mean(level, levels))


def _check_clearances(fleet: Fleet, document: Document, policy: Policy) -> Iterator[Problem]:
    for i, backend in enumerate(fleet.backends):
        if backend.clearance is not None:
            path: Path = ("backends", i, "clearance")
            yield from _level(document, path, backend.clearance, policy.sensitivity.levels)


def _cross_check(fleet: Fleet, policy: Policy, document: Document) -> Iterator[Problem]:
    """What is probably a mistake, seen only with the fleet and the policy side by side."""
    models = {name for backend in fleet.backends for name in backend.models}
    matches = [(("constraints", i, "match"), c.match) for i, c in enumerate(policy.constraints)]
    matches += [(("rules", i, "match"), r.match) for i, r in enumerate(policy.rules)]
    for path, match in matches:
        names = match.model if isinstance(match.model, list) else [match.model]
        for name in names:
            if isinstance(name, str) and not is_pattern(name) and name not in models:
                yield document.problem(
                    (*path, "model"),
                    f"no backend serves a model named '{name}', so this matches nothing",
                    did_you_mean(name, models),
                    severity="warning",
                )


# --- compilation ----------------------------------------------------------------------------------------------


def attributes(backend: Backend, model: BackendModel) -> dict[str, str | float | bool]:
    """What a constraint may require of a target, by dotted name. What is not stated is left out."""
    stated: dict[str, Any] = {
        "name": backend.name, "tier": backend.tier, "region": backend.region, "zone": backend.zone,
        "protocol": backend.protocol, "quality": model.quality, "context_tokens": model.context_tokens,
        "licence.spdx": model.licence.spdx, "licence.commercial_use": model.licence.commercial_use,
        "price.per_request": backend.price.per_request, "price.input_per_mtok": backend.price.input_per_mtok,
        "price.output_per_mtok": backend.price.output_per_mtok,
        "carbon.zone": backend.carbon.zone, "carbon.g_per_kwh": backend.carbon.g_per_kwh,
    }  # fmt: skip
    stated |= {f"labels.{name}": value for name, value in backend.labels.items()}
    return {name: value for name, value in stated.items() if value is not None}


def _target(index: int, backend_index: int, backend: Backend, name: str, clearance: int) -> Target:
    model, price = backend.models[name], backend.price
    amortised = price.reserved_per_hour / 3600 / price.capacity_rps if price.capacity_rps else 0.0
    return Target(
        index=index,
        backend=backend.name,
        backend_index=backend_index,
        model=name,
        tier=backend.tier,
        region=backend.region,
        tasks=model.tasks,
        protocols=WIRES[backend.protocol],
        clearance=clearance,
        quality=model.quality or 0.0,
        context_tokens=model.context_tokens,
        max_in_flight=backend.limits.max_in_flight,
        max_queued=backend.limits.max_queued,
        prior_ms=backend.latency.prior_ms,
        usd_per_request=price.per_request + amortised,
        usd_per_token_in=price.input_per_mtok / 1e6,
        usd_per_token_out=price.output_per_mtok / 1e6,
        active_w=backend.energy.active_w,
        g_per_kwh=backend.carbon.g_per_kwh,
        attributes=attributes(backend, model),
    )


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
            reason = f"does not serve model {model}"
        elif task not in target.tasks:
            reason = f"serves {model} for {', '.join(target.tasks)}, not for {task}"
        elif wire not in target.protocols:
            reason = f"speaks {backend.protocol}, the request came as {wire}"
        else:
            keep.append(target)
            continue
        rejections.append(Rejection(backend.name, "capability", reason))
    return tuple(keep), tuple(rejections)


def _digest(documents: Sequence[Document]) -> str:
    """Names what decides: the same for the same meaning, whatever the comments, order of keys or file names."""
    plain = sorted(json.dumps(document.data, sort_keys=True) for document in documents)
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()[:16]


def _compile(fleet: Fleet, policy: Policy, digest: str) -> CompiledPolicy:
    levels = tuple(policy.sensitivity.levels)
    ranks = {level: rank for rank, level in enumerate(levels)}
    targets: list[Target] = []
    for b, backend in enumerate(fleet.backends):
        clearance = ranks[backend.clearance] if backend.clearance is not None else 0
        for name in backend.models:
            targets.append(_target(len(targets), b, backend, name, clearance))
    constraints = []
    for constraint in policy.constraints:
        tests = {name: (attribute_test(c), c) for name, c in constraint.require.items()}
        constraints.append(
            CompiledConstraint(
                constraint.name,
                compile_match(constraint.match, ranks),
                _violations(constraint.name, tests, targets),
            )
        )
    rules = [*policy.rules, Rule(name=DEFAULT_RULE)]
    return CompiledPolicy(
        digest=digest,
        levels=levels,
        default_label=ranks[policy.sensitivity.default],
        detectors=build_detectors(policy.sensitivity, ranks),
        fleet=fleet,
        targets=tuple(targets),
        constraints=tuple(constraints),
        rules=tuple(
            CompiledRule(
                rule.name,
                compile_match(rule.match, ranks),
                *compile_objective(rule.objective),
                rule.slo,
                rule.fallback,
            )
            for rule in rules
        ),
        plans={},
    )
