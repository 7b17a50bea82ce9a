"""What can be wrong with a fleet or a policy beyond its schema: in itself, and between the two."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Sequence

from policies.errors import Problem, did_you_mean
from policies.match import is_pattern
from policies.schema import Backend, BackendModel, Fleet, Match, Objective, Policy, Rule
from policies.source import Document, Path

IN_PROCESS = ("onnx", "torch")
DEFAULT_RULE = "default"

ATTRIBUTES = (
    "name", "tier", "region", "zone", "protocol", "quality", "context_tokens", "licence.spdx",
    "licence.commercial_use", "price.per_request", "price.input_per_mtok", "price.output_per_mtok",
    "carbon.zone", "carbon.g_per_kwh",
)  # fmt: skip
"""What `require` may ask for, besides `labels.<your own>`."""


def _duplicates(document: Document, kind: str, path: str, names: Sequence[str]) -> Iterator[Problem]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield document.problem((path, i, "name"), f"a second {kind} named '{name}'", "rename one of them")


def check_fleet(fleet: Fleet, document: Document) -> Iterator[Problem]:
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


def check_policy(policy: Policy, document: Document) -> Iterator[Problem]:
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


def check_clearances(fleet: Fleet, document: Document, policy: Policy) -> Iterator[Problem]:
    for i, backend in enumerate(fleet.backends):
        if backend.clearance is not None:
            path: Path = ("backends", i, "clearance")
            yield from _level(document, path, backend.clearance, policy.sensitivity.levels)


def check_together(fleet: Fleet, policy: Policy, document: Document) -> Iterator[Problem]:
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
