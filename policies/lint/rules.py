"""Lints about rules, each by itself or beside those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policies.errors import Problem, did_you_mean
from policies.implies import implies
from policies.lint.context import Linted
from policies.match import is_pattern, reached
from policies.schema import Match, Objective, Rule
from policies.source import Path
from policies.types import Target


def rule_shadowed(linted: Linted) -> Iterator[Problem]:
    rules = linted.policy.rules
    for i, rule in enumerate(rules):
        for earlier in rules[:i]:
            if implies(rule.match, earlier.match, linted.compiled.levels):
                line = linted.policy_document.locate(("rules", rules.index(earlier)))[0]
                yield linted.in_policy(
                    ("rules", i, "name"),
                    "PM101",
                    f"rule '{rule.name}' never speaks: '{earlier.name}' on line {line} matches whatever it matches",
                    "move it up, or narrow the earlier rule",
                )
                break


def objective_term_without_weight(linted: Linted) -> Iterator[Problem]:
    for i, rule in enumerate(linted.policy.rules):
        for name in Objective.model_fields:
            term = getattr(rule.objective, name)
            if term is not None and term.weight == 0:
                yield linted.in_policy(
                    ("rules", i, "objective", name), "PM106", f"'{name}' of rule '{rule.name}' has weight 0", key=True
                )


def slo_out_of_reach(linted: Linted) -> Iterator[Problem]:
    for i, rule in enumerate(linted.policy.rules):
        targets = _may_answer(rule, linted)
        if rule.slo is None or not targets:
            continue
        for name, wanted, best in (
            ("latency_ms", rule.slo.latency_ms, min(t.prior_ms for t in targets)),
            ("ttft_ms", rule.slo.ttft_ms, min(t.prior_ttft_ms for t in targets)),
        ):
            if wanted is not None and best > wanted:
                yield linted.in_policy(
                    ("rules", i, "slo", name),
                    "PM107",
                    f"no backend is expected to meet {wanted:g} ms; the fastest for rule '{rule.name}' takes {best:g}",
                )


def fallback_never_fires(linted: Linted) -> Iterator[Problem]:
    for i, rule in enumerate(linted.policy.rules):
        fallback, targets = rule.fallback, _may_answer(rule, linted)
        if "fallback" not in rule.model_fields_set or fallback.scope == "none" or not targets:
            continue
        told = ""
        if fallback.attempts == 1:
            told = "it allows one attempt only"
        elif not any(_within(fallback.scope, a, b) for i, a in enumerate(targets) for b in targets[i + 1 :]):
            told = f"no two backends that serve its models are in scope {fallback.scope}"
        if told:
            yield linted.in_policy(
                ("rules", i, "fallback"), "PM108", f"the fallback of rule '{rule.name}' never fires: {told}", key=True
            )


def _within(scope: str, one: Target, other: Target) -> bool:
    same_model = one.model == other.model and one.backend != other.backend
    near = {"any": True, "same_tier": one.tier == other.tier, "same_region": one.region == other.region}
    return same_model and near[scope]


def split_out_of_reach(linted: Linted) -> Iterator[Problem]:
    for i, rule in enumerate(linted.policy.rules):
        if rule.split is not None and not any(t.backend in rule.split.weights for t in _may_answer(rule, linted)):
            yield linted.in_policy(
                ("rules", i, "split"),
                "PM111",
                f"no backend in the split of rule '{rule.name}' serves a model that the rule matches",
                key=True,
            )


def _may_answer(rule: Rule, linted: Linted) -> list[Target]:
    shadow = rule.shadow.backend if rule.shadow else None
    return [t for t in reached(rule.match, linted.compiled.targets) if t.backend != shadow]


def matches_unserved(linted: Linted) -> Iterator[Problem]:
    policy, targets = linted.policy, linted.compiled.targets
    models = sorted({target.model for target in targets})
    tasks = sorted({task for target in targets for task in target.tasks})
    groups: list[tuple[str, Sequence[Match]]] = [
        ("constraints", [one.match for one in policy.constraints]),
        ("rules", [one.match for one in policy.rules]),
        ("budgets", [one.match for one in policy.budgets]),
        ("limits", [one.match for one in policy.limits]),
    ]
    for group, found in groups:
        for i, match in enumerate(found):
            path: Path = (group, i, "match")
            for field, names in (("model", models), ("task", tasks)):
                condition = getattr(match, field)
                for name in condition if isinstance(condition, list) else [condition]:
                    if isinstance(name, str) and not is_pattern(name) and name not in names:
                        yield linted.in_policy(
                            (*path, field),
                            "PM110",
                            f"no backend serves a {field} named '{name}', so this matches nothing",
                            did_you_mean(name, names),
                        )


def cascade_leads_nowhere(linted: Linted) -> Iterator[Problem]:
    for i, rule in enumerate(linted.policy.rules):
        if rule.strategy is None or rule.strategy.cascade is None:
            continue
        known: dict[str, set[float]] = {}
        for target in _may_answer(rule, linted):
            known.setdefault(target.model, set()).add(target.quality)
        if known and all(len(qualities) == 1 for qualities in known.values()):
            yield linted.in_policy(
                ("rules", i, "strategy", "cascade"),
                "PM112",
                f"the backends that rule '{rule.name}' reaches are of one quality: there is no better one",
                key=True,
            )
