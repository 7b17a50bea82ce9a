"""Weights that are tried with recorded traffic."""

from __future__ import annotations

import pytest
from conftest import THREE_TIERS, compile_text
from hypothesis import given
from hypothesis import strategies as st
from test_simulation import NOON, PUBLIC, arrival

from policies.decide import decide
from policies.diff import at_rest
from policies.simulation.paces import Paces
from policies.tuning import (
    GOALS,
    Keep,
    Tried,
    front,
    objective_of,
    search,
    tried,
    weights_of,
    with_weights,
    worth,
)

RULES = (
    PUBLIC + "rules:\n"
    "  - {name: mixed, match: {usage: [a]}, objective: {latency: {weight: 1, target_ms: 100}, quality: {weight: 3}}}\n"
    "  - {name: rest, objective: {cost: {weight: 1}}}\n"
)


def made(weights, usd=1.0, met=1.0, quality=0.5, unanswered=0, **more):
    return Tried(weights, 10, 10 - unanswered, met, quality, 50.0, 100.0, usd, usd, {"edge": 10}, **more)


def test_weights_are_shares_of_the_terms_that_a_rule_states():
    policy = compile_text(THREE_TIERS + RULES)
    assert weights_of(policy, "mixed") == (("latency", 0.25), ("quality", 0.75))
    assert weights_of(policy, "rest") == (("cost", 1.0),)
    with pytest.raises(KeyError):
        objective_of(policy, "other")


def test_other_weights_decide_otherwise_in_their_rule_only():
    policy = compile_text(THREE_TIERS + RULES)
    quick = with_weights(policy, "mixed", (("latency", 1.0), ("quality", 0.0)))
    ask = arrival(policy).request

    def chosen(policy, usage):
        from msgspec.structs import replace

        return decide(replace(ask, usage=usage), at_rest(policy, NOON), policy).chosen.target.backend

    assert (chosen(policy, "a"), chosen(quick, "a")) == ("cloud", "edge")
    assert chosen(policy, "b") == chosen(quick, "b")
    assert quick.digest != policy.digest
    # The same as a file that says so.
    written = compile_text(THREE_TIERS + RULES.replace("quality: {weight: 3}", "quality: {weight: 0}"))
    assert quick.rules[0].objective == written.rules[0].objective


def test_what_comes_of_weights_is_counted_for_the_rule_only():
    policy = compile_text(THREE_TIERS + RULES.replace("match: {usage: [a]}, ", "match: {tenant: acme}, "))
    tenants = ("other", "acme") * 10
    asked = [
        arrival(policy, NOON + i, id=f"r-{i}", tenant=tenant, tokens=(100, 200)) for i, tenant in enumerate(tenants)
    ]
    found = tried(policy, "mixed", weights_of(policy, "mixed"), asked, Paces())
    assert (found.requests, found.answered, found.unanswered, found.met) == (10, 10, 0, 1.0)
    assert (dict(found.tiers), found.quality) == ({"cloud": 10}, pytest.approx(0.9))
    assert found.usd == pytest.approx(10 * 0.0005)
    assert (found.mean_ms, found.p95_ms) == (pytest.approx(400), pytest.approx(400))
    quick = tried(policy, "mixed", (("latency", 1.0), ("quality", 0.0)), asked, Paces())
    assert (dict(quick.tiers), quick.mean_ms) == ({"edge": 10}, pytest.approx(50))
    assert (quick.less_trusted(found), found.less_trusted(quick)) == (0, 10)
    assert (found.others_unanswered, found.others_met, found.unmeasured) == (0, 1.0, 10)
    nothing = tried(policy, "mixed", weights_of(policy, "mixed"), [], Paces())
    assert (nothing.requests, nothing.met, nothing.p95_ms) == (0, None, None)


def test_nothing_that_there_is_now_is_given_up():
    now = made((), met=0.99, unanswered=2, others_met=0.9, others_unanswered=3)
    keep, same = Keep.of(now), {"met": 0.99, "others_met": 0.9}
    assert keep.held_by(now)
    assert keep.held_by(made((), met=1.0, quality=0.6, others_met=0.9))
    for worse in (
        {"met": 0.98}, {"quality": 0.4}, {"unanswered": 3}, {"others_met": 0.8}, {"others_unanswered": 4},
    ):  # fmt: skip
        one = made((), usd=0.01, **{**same, **worse})
        assert not keep.held_by(one)
        assert not worth(one, now, GOALS["cost"], keep), "however cheap"
    assert Keep.of(now, met=0.5, quality=0.1).held_by(made((), met=0.6, quality=0.2, others_met=0.9))
    assert worth(now, made((), usd=0.1, met=0.5), GOALS["cost"], keep)
    assert not worth(made((), usd=0.999, **same), now, GOALS["cost"], keep), "that little is not worth it"
    assert worth(made((), usd=0.9, **same), now, GOALS["cost"], keep)


def test_what_a_budget_leaves_unanswered_is_not_kept():
    """A cheap mean and a good quality of the few that were answered are no gain."""
    budget = "budgets: [{name: all, usd: 0.002, per: day}]\n"
    fleet = THREE_TIERS.replace("limits: {max_in_flight: 2, max_queued: 1}", "price: {per_request: 0.001}")
    policy = compile_text(fleet + RULES.replace("match: {usage: [a]}, ", "") + budget)
    asked = [arrival(policy, NOON + i, id=f"r-{i}", tokens_out=100, tokens=(100, 200)) for i in range(20)]
    quick = tried(policy, "mixed", (("latency", 1.0), ("quality", 0.0)), asked, Paces())
    good = tried(policy, "mixed", (("latency", 0.0), ("quality", 1.0)), asked, Paces())
    assert good.unanswered > quick.unanswered
    assert not Keep.of(quick).held_by(good)


def test_small_steps_are_taken_and_only_the_whole_way_must_be_worth_it():
    start = made((("a", 1.0), ("b", 0.0)), usd=9.0)
    found = list(search(start, lambda w: made(w, usd=9 - 0.04 * w[1][1]), GOALS["cost"], Keep.of(start), 100))
    best = min(found, key=GOALS["cost"])
    assert best.weights == (("a", 0.0), ("b", 1.0))
    assert not worth(best, start, GOALS["cost"], Keep.of(start))


def test_many_terms_leave_tries_for_the_fine_ones():
    names = [f"t{i}" for i in range(5)]
    start = made(tuple((name, 0.2) for name in names), usd=9.0)
    found = list(search(start, lambda w: made(w, usd=2 - w[4][1]), GOALS["cost"], Keep.of(start), 60))
    assert min(found, key=GOALS["cost"]).weights[4][1] == 1.0
    assert len(found) > 15


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_the_search_tries_shares_each_once_and_no_more_than_it_may(terms, seed):
    import random

    rng = random.Random(seed)
    names = [f"t{i}" for i in range(terms)]
    start = made(tuple((name, 1 / terms) for name in names), usd=5.0)
    most = rng.randint(1, 80)

    def attempt(weights):
        assert sum(weight for _, weight in weights) == pytest.approx(1)
        assert all(weight >= 0 for _, weight in weights)
        assert [name for name, _ in weights] == names
        return made(weights, usd=rng.random())

    found = list(search(start, attempt, GOALS["cost"], Keep.of(start), most))
    assert len(found) <= most
    keys = [one.weights for one in found]
    assert len(set(keys)) == len(keys) and start.weights not in keys


def test_the_search_finds_a_minimum_between_the_coarse_shares():
    start = made((("a", 1.0), ("b", 0.0)), usd=9.0)
    found = search(start, lambda w: made(w, usd=1 + abs(w[0][1] - 0.34375)), GOALS["cost"], Keep.of(start), 100)
    assert min(found, key=GOALS["cost"]).weights == (("a", 0.34375), ("b", 0.65625))


def test_the_front_has_what_nothing_beats():
    a, b, c = made(("a",), usd=1, met=0.9), made(("b",), usd=2, met=1.0), made(("c",), usd=3, met=0.95)
    same = made(("d",), usd=1, met=0.9)
    near = made(("e",), usd=2.001, met=1.0, quality=0.9)
    assert front([c, a, b, same, near], GOALS["cost"]) == [a, b]
    assert front([], GOALS["cost"]) == []
