"""Tenants in decisions: floors, models, usages, and what of the document a policy's digest holds."""

from __future__ import annotations

import pytest
from conftest import THREE_TIERS, compile_text, idle, request
from hypothesis import given
from hypothesis import strategies as st

from policies.decide import decide
from policies.diff import compare
from policies.facts import request_from
from policies.grid import probes
from policies.schema import RequestFacts
from policies.sensitivity.labels import declassified, label
from policies.tenants import ANYONE, NOBODY
from policies.types import RefusalCode

KEY = "a" * 64
TENANTS = f"""
---
kind: Tenants
tenants:
  - {{name: acme, keys: [{{sha256: {KEY}}}], label_floor: confidential}}
  - {{name: lab, keys: [{{env: LAB}}], models: [chat], usage: {{allow: [research, teaching], default: research}}}}
  - {{name: narrow, keys: [{{env: NARROW}}], models: "embed-*"}}
"""
RULES = """
---
kind: Policy
constraints:
  - {name: research-stays, match: {usage: research}, require: {tier: [edge, onprem]}}
rules:
  - {name: of-acme, match: {tenant: "ac*"}}
"""


@pytest.fixture(scope="module")
def policy():
    return compile_text(THREE_TIERS + RULES + TENANTS)


def decided(policy, **facts):
    return decide(request_from(RequestFacts(model="chat", **facts), policy, 0.0), idle(policy), policy)


def test_a_tenants_floor_counts_in_explanations_and_tests(policy):
    decision = decided(policy, tenant="acme", label="public")
    assert policy.levels[decision.label] == "confidential"
    assert decision.rule == "of-acme"
    assert "cloud" not in [candidate.target.backend for candidate in decision.ranked]


def test_a_model_that_the_tenant_may_not_use_is_refused_with_what_to_do(policy):
    decision = decided(policy, tenant="narrow")
    assert decision.refusal is not None
    assert decision.refusal.code is RefusalCode.MODEL_NOT_ALLOWED
    assert "narrow" in decision.refusal.message
    assert "GET /v1/models" in decision.refusal.hint
    assert {r.filter for r in decision.rejected} == {"tenant"} | {r.filter for r in decision.rejected}
    assert {r.backend for r in decision.rejected if r.filter == "tenant"} == {"edge", "onprem", "cloud"}


def test_a_usage_that_the_tenant_may_not_state_is_refused(policy):
    decision = decided(policy, tenant="lab", usage="commercial")
    assert decision.refusal is not None
    assert decision.refusal.code is RefusalCode.USAGE_NOT_ALLOWED
    assert decided(policy, tenant="lab", usage="teaching").refusal is None


def test_a_tenants_default_usage_is_what_constraints_see(policy):
    assert "research-stays" in decided(policy, tenant="lab").constraints
    assert "research-stays" not in decided(policy, tenant="lab", usage="teaching").constraints


def test_who_is_not_in_the_document_may_do_nothing(policy):
    for name in ("anonymous", "stranger", ""):
        decision = decided(policy, tenant=name)
        assert decision.refusal is not None
        assert decision.refusal.code is RefusalCode.UNAUTHORIZED
        assert not decision.attempts
    assert policy.tenant("stranger") is NOBODY


def test_an_unknown_model_is_not_found_and_only_allowed_ones_are_told(policy):
    for tenant, told in (("lab", "models here: chat"), ("narrow", "models here: ")):
        decision = decide(request("nope", tenant=tenant), idle(policy), policy)
        assert decision.refusal is not None
        assert (decision.refusal.code, decision.refusal.hint) == (RefusalCode.MODEL_NOT_FOUND, told)


def test_without_the_document_everybody_is_as_before():
    policy = compile_text(THREE_TIERS)
    assert policy.tenants is None
    assert policy.tenant("whoever") is ANYONE
    assert decided(policy, tenant="whoever").refusal is None


# --- the digest -------------------------------------------------------------------------------------------------


def test_keys_are_no_part_of_the_digest_and_what_decides_is():
    def digest(old, new):
        return compile_text(THREE_TIERS + TENANTS.replace(old, new)).digest

    same = digest("", "")
    assert digest(KEY, "b" * 64) == same
    assert digest("env: LAB", "file: lab.txt") == same
    assert digest("\ntenants:", "\njwt: {issuer: i, audience: a, jwks: {file: f}}\ntenants:") == same
    assert digest("label_floor: confidential", "label_floor: restricted") != same
    assert digest("models: [chat]", "models: [chat, embed]") != same
    assert digest("default: research", "default: teaching") != same
    assert digest("name: lab", "name: labs") != same
    assert compile_text(THREE_TIERS).digest != same


# --- grids, diffs, tests ----------------------------------------------------------------------------------------


def test_the_grid_asks_as_tenants_that_there_are(policy):
    asked = {probe.facts.tenant for probe in probes([policy], 10_000)}
    assert asked == {"acme", "lab", "narrow"}
    open_one = compile_text(THREE_TIERS)
    assert {"anonymous", "acme", "lab", "narrow"} <= {p.facts.tenant for p in probes([policy, open_one], 10_000)}


def test_a_diff_shows_what_a_floor_changes(policy):
    raised = compile_text(THREE_TIERS + RULES + TENANTS.replace("label_floor: confidential", "label_floor: restricted"))
    moves = compare(policy, raised, probes([policy, raised], 10_000))
    assert moves
    assert {move.probe.facts.tenant for move in moves} == {"acme"}
    assert not any(move.loses_trust for move in moves)


def test_policy_tests_may_expect_these_refusals(policy):
    from policies.policytest import _vocabulary

    assert {"unauthorized", "model_not_allowed", "usage_not_allowed", "not_permitted"} <= set(
        _vocabulary(policy)["refusal"]
    )
    assert "tenant" in _vocabulary(policy)["filter"]


# --- labels -----------------------------------------------------------------------------------------------------

TOP = 3
ranks = st.integers(0, TOP)


class Detector:
    def __init__(self, rank, breaks=False):
        self.name, self.label, self.breaks = "d", rank, breaks

    def scan(self, texts, /):
        if self.breaks:
            raise RuntimeError("my secret")
        return {"THING": 1}


@given(ranks, ranks, st.none() | ranks, st.lists(st.tuples(ranks, st.booleans()), max_size=3), ranks)
def test_declassification_undoes_findings_and_nothing_else(floor, tenant, header, found, level):
    detectors = [Detector(rank, breaks) for rank, breaks in found]
    before = label(floor, TOP, detectors, ["text"], header=header, tenant=tenant)
    after = declassified(before, level)
    firm = max(floor, tenant, header or 0, TOP if any(breaks for _, breaks in found) else 0)
    assert after.rank == max(firm, min(before.rank, level))
    assert after.rank <= before.rank
    if after.rank < before.rank:
        assert after.declassified_from == before.rank
        assert after.raised_by[-1] == ("declassified", after.rank)
        assert after.raised_by[:-1] == before.raised_by, "what raised it is still told"
    else:
        assert after is before


def test_declassification_does_not_undo_text_that_cannot_be_read():
    before = label(0, TOP, [Detector(1)], None, tenant=0)
    assert declassified(before, 0).rank == TOP


def test_the_tenants_floor_is_told_as_such():
    assert ("tenant", 2) in label(0, TOP, [], [], tenant=2).raised_by
    assert label(0, TOP, [], [], tenant=2).rank == 2
