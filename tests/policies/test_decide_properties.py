"""What must hold for every fleet, policy and request."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from unittest import mock

import pytest
import yaml
from conftest import compile_text, idle, request
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policies import decide as decide_module
from policies import estimate
from policies.decide import decide
from policies.explain import as_dict
from policies.filters import FILTERS
from policies.types import Snapshot

LEVELS = ["public", "internal", "confidential", "restricted"]
TIERS = ["edge", "onprem", "cloud"]
REGIONS = ["jp-east", "eu-west", "us-east"]
TENANTS = ["acme-dev", "acme-prod", "zeta"]

backends = st.lists(
    st.fixed_dictionaries(
        {
            "tier": st.sampled_from(TIERS),
            "region": st.sampled_from(REGIONS),
            "protocol": st.just("fake"),
            "clearance": st.sampled_from(LEVELS),
            "models": st.fixed_dictionaries(
                {"chat": st.fixed_dictionaries({"task": st.just("chat"), "quality": st.sampled_from([0.2, 0.5, 0.9])})}
            ),
            "latency": st.fixed_dictionaries({"prior_ms": st.sampled_from([5, 50, 500])}),
            "price": st.fixed_dictionaries({"per_request": st.sampled_from([0, 0.001, 0.01])}),
            "energy": st.fixed_dictionaries({"active_w": st.sampled_from([0, 15, 700])}),
            "carbon": st.fixed_dictionaries({"g_per_kwh": st.sampled_from([0, 41, 485.4])}),
        }
    ),
    min_size=1,
    max_size=6,
).map(lambda found: [{"name": f"b{i}", **backend} for i, backend in enumerate(found)])

matches = st.fixed_dictionaries(
    {},
    optional={
        "tenant": st.sampled_from([*TENANTS, "acme-*", ["zeta", "acme-d*"], {"not": "zeta"}]),
        "label": st.sampled_from([*LEVELS, {"gte": "internal"}, {"lte": "confidential"}, ["public", "restricted"]]),
        "tokens_in": st.sampled_from([{"lte": 100}, {"gt": 100}]),
        "stream": st.booleans(),
        "entities": st.sampled_from([{"any": ["EMAIL"]}, {"only": ["EMAIL", "PERSON"]}, {"none": ["US_SSN"]}]),
        "time": st.sampled_from([{"between": "22:00-06:00"}, {"days": ["mon-fri"], "zone": "Asia/Tokyo"}]),
        "not": st.sampled_from([{"tenant": "zeta"}, {"label": "public"}]),
    },
)
requires = st.fixed_dictionaries(
    {},
    optional={
        "tier": st.sampled_from([*TIERS, ["edge", "onprem"], {"not": "cloud"}]),
        "region": st.sampled_from(["jp-*", ["eu-*", "us-*"]]),
        "quality": st.sampled_from([{"gte": 0.5}, {"lt": 0.9}]),
    },
).filter(bool)
constraints = st.lists(st.fixed_dictionaries({"match": matches, "require": requires}), max_size=5).map(
    lambda found: [{"name": f"c{i}", **one} for i, one in enumerate(found)]
)
objectives = st.fixed_dictionaries(
    {"latency": st.fixed_dictionaries({"weight": st.sampled_from([0.1, 1])})},
    optional={
        "cost": st.fixed_dictionaries({"weight": st.sampled_from([0.5, 2])}),
        "quality": st.fixed_dictionaries({"weight": st.sampled_from([0.5, 2])}),
    },
)
rules = st.lists(
    st.fixed_dictionaries(
        {"match": matches, "objective": objectives},
        optional={
            "slo": st.sampled_from([{"latency_ms": 60}, {"ttft_ms": 60, "on_miss": "reject"}]),
            "split": st.sampled_from([{"weights": {"b0": 1}}, {"weights": {"b0": 5}, "sticky": "tenant"}]),
            "transform": st.just("pseudonymise"),
            "fallback": st.sampled_from([{"scope": "same_tier"}, {"scope": "none"}, {"attempts": 2}]),
        },
    ),
    max_size=4,
).map(lambda found: [{"name": f"r{i}", **one} for i, one in enumerate(found)])
requests = st.builds(
    lambda tenant, label, tokens, stream, rid, entities: replace(
        request(tenant=tenant, label=label, tokens_in=tokens, stream=stream), id=rid, entities=entities
    ),
    st.sampled_from(TENANTS),
    st.integers(0, 3),
    st.sampled_from([10, 1000]),
    st.booleans(),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([frozenset(), frozenset({"EMAIL_ADDRESS"}), frozenset({"EMAIL_ADDRESS", "US_SSN"})]),
)


def build(fleet, constraints=(), rules=()):
    documents = [
        {"apiVersion": "pointsman/v1", "kind": "Fleet", "backends": fleet},
        {"apiVersion": "pointsman/v1", "kind": "Policy", "constraints": list(constraints), "rules": list(rules)},
    ]
    return compile_text(yaml.safe_dump_all(documents).replace("apiVersion: pointsman/v1\n", ""))


def allowed(policy, request):
    return {c.target.backend for c in decide(request, idle(policy), policy).ranked}


@given(backends, constraints, rules, requests)
def test_nothing_is_ranked_above_clearance(fleet, constraints, rules, request):
    policy = build(fleet, constraints, rules)
    decision = decide(request, idle(policy), policy)
    clearance = {backend["name"]: LEVELS.index(backend["clearance"]) for backend in fleet}
    assert all(request.label <= clearance[c.target.backend] for c in decision.ranked)
    assert set(decision.attempts) <= set(decision.ranked)
    assert (decision.refusal is None) == bool(decision.ranked)


@given(backends, constraints, rules, requests)
def test_adding_a_constraint_never_widens(fleet, constraints, rules, request):
    for i in range(len(constraints)):
        fewer = build(fleet, constraints[:i], rules)
        more = build(fleet, constraints[: i + 1], rules)
        assert allowed(more, request) <= allowed(fewer, request)


@given(backends, constraints, requests, st.randoms(use_true_random=False))
def test_the_order_of_constraints_never_matters(fleet, constraints, request, random):
    shuffled = list(constraints)
    random.shuffle(shuffled)
    assert allowed(build(fleet, constraints), request) == allowed(build(fleet, shuffled), request)


@given(backends, requests)
def test_raising_the_label_never_widens(fleet, request):
    policy = build(fleet)
    sets = [allowed(policy, replace(request, label=label)) for label in range(4)]
    assert all(higher <= lower for lower, higher in itertools.pairwise(sets))


@given(backends, rules, requests)
def test_removing_a_loser_never_changes_the_winner(fleet, rules, request):
    decision = decide(request, idle(policy := build(fleet, (), rules)), policy)
    if decision.chosen is None:
        return
    winner = decision.chosen.target.backend
    named = {name for rule in rules for name in rule.get("split", {}).get("weights", ())}
    for backend in fleet:
        if backend["name"] != winner and backend["name"] not in named:  # a policy may only name what there is
            smaller = build([b for b in fleet if b is not backend], (), rules)
            again = decide(request, idle(smaller), smaller)
            assert again.chosen is not None and again.chosen.target.backend == winner


@given(backends, rules, requests)
def test_scores_are_within_zero_and_one_and_ranked_by_them(fleet, rules, request):
    policy = build(fleet, (), rules)
    decision = decide(request, idle(policy), policy)
    scores = [c.score for c in decision.ranked]
    plain = next(rule for rule in policy.rules if rule.name == decision.rule)
    if plain.split is None and plain.slo is None:  # those rank by other things first
        assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 + 1e-9 for score in scores)


@given(backends, constraints, rules, requests, st.integers(0, 3))
def test_masking_never_sends_what_the_label_without_masking_would_not_allow(fleet, constraints, rules, request, masked):
    """A transform may open backends up to the masked label, and none beyond it."""
    policy = build(fleet, constraints, rules)
    decision = decide(replace(request, masked_label=masked), idle(policy), policy)
    clearance = {backend["name"]: LEVELS.index(backend["clearance"]) for backend in fleet}
    assert decision.sent_label in (request.label, min(request.label, masked))
    assert decision.transform is not None or decision.sent_label == request.label
    assert all(decision.sent_label <= clearance[c.target.backend] for c in decision.ranked)


@given(backends, constraints, rules, requests, st.integers(0, 3))
def test_one_policy_decides_the_same_before_and_after_it_has_seen_others(fleet, constraints, rules, request, seed):
    policy = build(fleet, constraints, rules)
    first = decide(request, idle(policy), policy, seed)
    decide(replace(request, tenant="zeta", model="other"), idle(policy), policy, seed)
    fresh = build(fleet, constraints, rules)
    assert decide(request, idle(policy), policy, seed) == first
    assert as_dict(decide(request, idle(fresh), fresh, seed), fresh) == as_dict(first, policy)


_OTHER_PROCESS = """
import json, sys
sys.path[:0] = {path!r}
from conftest import compile_text, idle, request
from policies import decide as decide_module
from policies import estimate
from policies.decide import decide
from policies.explain import as_dict
from msgspec.structs import replace
policy = compile_text({text!r})
requests = [replace(request(label=0), id=f"r{{i}}") for i in range(20)]
print(json.dumps([as_dict(decide(r, idle(policy), policy, 7), policy) for r in requests]))
"""


def test_the_same_inputs_decide_the_same_in_another_process():
    text = "kind: Fleet\nbackends:\n" + "".join(
        f"  - {{name: b{i}, tier: edge, region: x, protocol: fake, models: {{chat: {{task: chat}}}}}}\n"
        for i in range(4)
    )
    policy = compile_text(text)
    here = [as_dict(decide(replace(request(label=0), id=f"r{i}"), idle(policy), policy, 7), policy) for i in range(20)]
    script = _OTHER_PROCESS.format(path=[p for p in sys.path if p], text=text)
    there = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert json.loads(there) == here


settings.register_profile("default", deadline=None, max_examples=60)
settings.load_profile("default")


def test_a_snapshot_of_another_fleet_is_not_accepted_silently():
    policy = build(
        [{"name": "b0", "tier": "edge", "region": "x", "protocol": "fake", "models": {"chat": {"task": "chat"}}}]
    )
    try:
        decide(request(label=0), Snapshot((), (), ()), policy)
    except IndexError:
        return
    raise AssertionError("a snapshot without the backend must not decide")


states = st.builds(
    lambda down, in_flight, back: (tuple(down), tuple(in_flight), tuple(back)),
    st.lists(st.sampled_from([None, None, "down"]), min_size=6, max_size=6),
    st.lists(st.sampled_from([0, 1, 70, 320, 400]), min_size=6, max_size=6),
    st.lists(st.sampled_from([0.0, 0.0, 3.0]), min_size=6, max_size=6),
)


@given(backends, constraints, rules, requests, states, st.sampled_from([None, 30.0, 5000.0]))
def test_filters_that_are_not_asked_would_have_rejected_none(fleet, constraints, rules, request, state, deadline_ms):
    policy, request = build(fleet, constraints, rules), replace(request, deadline_ms=deadline_ms)
    down, in_flight, back = (part[: len(fleet)] for part in state)
    snapshot = replace(idle(policy), unavailable=down, in_flight=in_flight, back_in_s=back)
    decision = decide(request, snapshot, policy)
    with mock.patch.object(decide_module, "asked", lambda context: FILTERS):
        assert decide(request, snapshot, policy) == decision


@given(
    backends,
    requests,
    states,
    st.sampled_from([(), (None,) * 6, (40.0, None, 7.5, 90.0, None, 1.0)]),
    st.sampled_from([(), (0.0, 485.4, 34.0, 1e-3, 900.0, 41.5)]),
)
def test_estimates_are_what_the_filters_go_by(fleet, request, state, measured, g_per_kwh):
    policy = build(fleet)
    measured, growth = measured[: len(fleet)] or (None,) * len(fleet), ((10.0, 0.5), None) * 3
    snapshot = replace(
        idle(policy),
        in_flight=state[1][: len(fleet)],
        latency_ms=measured,
        ttft_ms=measured,
        growth=growth[: len(fleet)],
        g_per_kwh=g_per_kwh[: len(fleet)],
    )
    for target, found in zip(policy.targets, estimate.estimates(policy.targets, request, snapshot), strict=True):
        latency = estimate.latency_ms(target, request, snapshot)
        first = estimate.ttft_ms(target, snapshot) if request.stream else latency
        assert (found.latency_ms, found.ttft_ms) == (latency, first)
        assert found.cost_usd == estimate.cost_usd(target, request.tokens_in, request.tokens_out)
        joules = estimate.energy_j(target, latency / 1000)
        assert found.energy_j == pytest.approx(joules)
        emits = snapshot.g_per_kwh[target.backend_index] if snapshot.g_per_kwh else target.g_per_kwh
        assert found.carbon_g == estimate.carbon_g(found.energy_j, emits)
