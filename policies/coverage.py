"""What of a policy its tests have exercised: rules that spoke, constraints that applied, rejections that happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policies.checks import DEFAULT_RULE
from policies.compile import CompiledPolicy
from policies.estimate import cost_usd
from policies.implies import implies
from policies.match import reached
from policies.policytest import Result
from policies.schema import Match
from policies.types import Decision, Request, Snapshot


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """One thing that tests can exercise."""

    kind: str  # rule | constraint | floor | clearance | budget | rate_limit | slo
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.what}"


@dataclass(frozen=True, slots=True)
class Coverage:
    items: frozenset[Item]
    exercised: frozenset[Item]

    @property
    def percent(self) -> float:
        return 100.0 * len(self.exercised) / len(self.items) if self.items else 100.0

    @property
    def never(self) -> list[Item]:
        return sorted(self.items - self.exercised)

    def __or__(self, other: Coverage) -> Coverage:
        return Coverage(self.items | other.items, self.exercised | other.exercised)


def measure(policy: CompiledPolicy, results: Iterable[Result]) -> Coverage:
    items = frozenset(_items(policy))
    found: set[Item] = set()
    for result in results:
        if result.request is not None and result.snapshot is not None and result.decision is not None:
            found.update(_exercised(policy, result.request, result.snapshot, result.decision))
    return Coverage(items, items & found)


def _items(policy: CompiledPolicy) -> Iterator[Item]:
    for rule in policy.source.rules:
        yield Item("rule", rule.name, "speaks")
        if rule.slo is not None and rule.slo.on_miss == "reject":
            yield Item("slo", rule.name, "rejects")
    if _default_speaks(policy):
        yield Item("rule", DEFAULT_RULE, "speaks")
    for written, constraint in zip(policy.source.constraints, policy.constraints, strict=True):
        yield Item("constraint", constraint.name, "matches")
        if any(target.index in constraint.violations for target in reached(written.match, policy.targets)):
            yield Item("constraint", constraint.name, "rejects")
    for i in range(len(policy.floors)):
        yield Item("floor", f"floors[{i}]", "matches")
    top = len(policy.levels) - 1
    for target in policy.targets:
        if target.clearance < top:
            yield Item("clearance", target.backend, "rejects")
    for quota in policy.quotas:
        if quota.rejects:
            yield Item(quota.filter, quota.name, "rejects")


def _default_speaks(policy: CompiledPolicy) -> bool:
    """Whether some model that is served can be asked for such that no rule matches."""
    served = {(target.model, task) for target in policy.targets for task in target.tasks}
    rules = [rule.match for rule in policy.source.rules]
    return any(
        not any(implies(Match(model=model, task=task), match, policy.levels) for match in rules)
        for model, task in served
    )


def _exercised(policy: CompiledPolicy, request: Request, state: Snapshot, decision: Decision) -> Iterator[Item]:
    yield Item("rule", decision.rule, "speaks")
    serving = {target.backend: target for target in policy.plan(request).targets}
    by_filter: dict[str, set[str]] = {}
    for rejection in decision.rejected:
        if rejection.backend in serving:
            by_filter.setdefault(rejection.filter, set()).add(rejection.backend)
    for backend in by_filter.get("clearance", ()):
        yield Item("clearance", backend, "rejects")
    if by_filter.get("slo"):
        yield Item("slo", decision.rule, "rejects")
    for constraint in policy.constraints:
        if constraint.name in decision.constraints:
            yield Item("constraint", constraint.name, "matches")
            if any(target.index in constraint.violations for target in serving.values()):
                yield Item("constraint", constraint.name, "rejects")
    for i, floor in enumerate(policy.floors):
        if floor.matches(request, state.now):
            yield Item("floor", f"floors[{i}]", "matches")
    for index in decision.quotas:
        quota = policy.quotas[index]
        for target in serving.values():
            cost = cost_usd(target, request.tokens_in, request.tokens_out)
            if quota.exhausted(request, target, cost, state.spent):
                yield Item(quota.filter, quota.name, "rejects")
