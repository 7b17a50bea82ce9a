"""`pointsman tune`: weights for a rule's objective, tried with recorded traffic."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from policies.compile import CompiledPolicy
from policies.errors import ConfigurationError, did_you_mean
from policies.simulation.paces import Paces
from policies.simulation.run import Simulation
from policies.simulation.traffic import Arrival
from policies.simulation.translation import strategies
from policies.tuning import GOALS, Keep, Tried, Weights, front, objective_of, search, tried, weights_of, worth
from router.cli.output import console
from router.cli.traffic import misused, traffic
from router.report.show import amount, count, grams, share, usd
from router.simulation.ordered import ordered

_SHOWN = 8


def run(arguments: argparse.Namespace) -> int:
    try:
        recorded = traffic(arguments)
        policy, paces = recorded.policy, Paces()
        rules = _with_choice(policy, arguments.rule)
        arrivals = deque(ordered(recorded.chains, paces, arguments.load, arguments.seed), maxlen=arguments.requests)
        if not arrivals:
            return recorded.nothing("tune")
        rule = arguments.rule or _busiest(rules, policy, arrivals, paces)
    except (ConfigurationError, ValueError, OSError) as error:
        return misused("tune", error)

    def attempt(weights: Weights) -> Tried:
        return tried(policy, rule, weights, arrivals, paces, arguments.seed)

    now = attempt(weights_of(policy, rule))
    if not now.requests:
        return recorded.nothing("tune", f"no requests that rule {rule} decides")
    keep, goal = Keep.of(now, arguments.met, arguments.quality), GOALS[arguments.goal]
    found = list(search(now, attempt, goal, keep, arguments.tries))
    best = min((one for one in found if worth(one, now, goal, keep)), key=goal, default=now)
    told = [*recorded.left_out, *_not_known(policy, paces, now, best, arguments.load), *recorded.broken]
    if arguments.json:
        print(json.dumps(_as_json(policy, rule, now, best, [now, *found], keep, told), ensure_ascii=False, indent=2))
    else:
        _show(policy, rule, now, best, front([now, *found], goal), len(found), keep, told)
    return 1 if recorded.broken else 0


def _not_known(policy: CompiledPolicy, paces: Paces, now: Tried, best: Tried, load: float) -> list[str]:
    """What the figures do not say, or say with less ground."""
    told = [f"not simulated: {one}" for one in strategies(policy)]
    if paces.sized_others:
        told.append(f"not known: tokens of {paces.sized_others:,} answers that were not given; they count as others")
    if best.unmeasured:
        told.append(f"not measured: {best.unmeasured:,} of the best's answers take as long as the fleet expects")
    if load != 1.0:
        told.append(f"each request comes {load:g} times on average")
    if less := best.less_trusted(now):
        told.append(f"LESS TRUSTED: {less:,} requests would reach a less trusted tier (`simulate` tells which)")
    return told


def _with_choice(policy: CompiledPolicy, named: str | None) -> list[str]:
    """The rules that have weights to choose. Raises ValueError where there is none, or the one named is none."""
    rules = [rule.name for rule in policy.source.rules]
    split = [rule.name for rule in policy.source.rules if rule.split is not None]
    if named in split:
        raise ValueError(f"rule {named} shares requests out by its split, so no weights decide")
    if named is not None and named not in rules:
        raise ValueError(f"no rule '{named}'; {did_you_mean(named, rules)}")
    found = [
        name for name in rules if name not in split and len(weights_of(policy, name)) > 1 and named in (None, name)
    ]
    if not found:
        which = f"the objective of rule {named} has no second term" if named else "no objective has two terms"
        raise ValueError(
            f"{which}, so there is nothing to weigh: add one, with weight 0 (and give the log's own files by --was)"
        )
    return found


def _busiest(rules: Sequence[str], policy: CompiledPolicy, arrivals: Sequence[Arrival], paces: Paces) -> str:
    if len(rules) == 1:
        return rules[0]
    simulation = Simulation(policy, paces)
    decided = Counter(simulation.arrive(arrival).decision.rule for arrival in arrivals)
    return max(rules, key=lambda rule: decided[rule])


def _yaml(policy: CompiledPolicy, rule: str, weights: Weights) -> str:
    """The rule's objective with these weights, to be put into the file."""
    objective = objective_of(policy, rule)
    terms = []
    for name, weight in weights:
        term = getattr(objective, name)
        more = {field: value for field, value in term.model_dump().items() if field != "weight"}
        parts = [f"weight: {weight:.9g}", *(f"{field}: {value!r}" for field, value in more.items())]
        terms.append(f"{name}: {{{', '.join(parts)}}}")
    return f"objective: {{{', '.join(terms)}}}"


def _as_json(
    policy: CompiledPolicy, rule: str, now: Tried, best: Tried, found: Sequence[Tried], keep: Keep, told: list[str]
) -> dict[str, Any]:
    def plain(one: Tried) -> dict[str, Any]:
        plain = {**dataclasses.asdict(one), "weights": dict(one.weights), "kept": keep.held_by(one)}
        del plain["trust"]
        return plain | {"unanswered": one.unanswered, "less_trusted": one.less_trusted(now)}

    return {
        "policy": policy.digest,
        "rule": rule,
        "keep": dataclasses.asdict(keep),
        "now": plain(now),
        "best": plain(best),
        "objective": _yaml(policy, rule, best.weights),
        "tried": [plain(one) for one in found],
        "told": told,
    }


def _show(
    policy: CompiledPolicy,
    rule: str,
    now: Tried,
    best: Tried,
    others: Sequence[Tried],
    tries: int,
    keep: Keep,
    told: Sequence[str],
) -> None:
    from rich.table import Table

    names = [name for name, _ in now.weights]
    table = Table("", *names, "answered", "met", "quality", "mean ms", "p95 ms", "cost", "CO2e", "cloud")
    for column in table.columns[1:]:
        column.justify = "right"

    def row(name: str, one: Tried) -> None:
        table.add_row(
            name, *(f"{weight:.3g}" for _, weight in one.weights), count(one.answered), share(one.met, 2),
            amount(one.quality), amount(one.mean_ms), amount(one.p95_ms), usd(one.usd), grams(one.carbon_g),
            share(one.tiers.get("cloud", 0) / one.answered if one.answered else None),
        )  # fmt: skip

    row("now", now)
    if best is not now:
        row("best", best)
    rest = [one for one in others if one is not best and one is not now]
    for one in rest[:_SHOWN]:
        row("" if keep.held_by(one) else "gives up", one)
    if len(rest) > _SHOWN:
        table.caption = f"and {len(rest) - _SHOWN} more; --json has all"
    out = console()
    out.print(f"rule {rule}: {count(now.requests)} requests, {tries} other weightings tried", highlight=False)
    out.print(table)
    least = f"at least {share(keep.met, 2)} met and quality {amount(keep.quality)}"
    out.print(f"kept: {least}, at most {count(keep.unanswered)} not answered; other rules as now", highlight=False)
    if best is now:
        out.print("no other weights are better" if keep.held_by(now) else "no weights keep that much")
    else:
        out.print(_yaml(policy, rule, best.weights), highlight=False, soft_wrap=True)
    for line in told:
        out.print(line, highlight=False, soft_wrap=True)
