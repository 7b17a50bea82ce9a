"""Comparing policies: the grid meets what they ask for, and moves are told with their reason."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from conftest import THREE_TIERS, compile_text
from hypothesis import given
from hypothesis import strategies as st

from policies.diff import compare, weakened
from policies.facts import request_from
from policies.grid import probes, samples, witness
from policies.match import MatchCompiler, text_test
from policies.schema import Match, RequestFacts, Sensitivity

RANKS = {"public": 0, "internal": 1, "confidential": 2, "restricted": 3}


def policy(text, fleet=THREE_TIERS):
    return compile_text(f"{fleet}\n---\nkind: Policy\nsensitivity: {{default: public}}\n{text}")


def moves(old, new, fleet=THREE_TIERS, new_fleet=None):
    one, other = policy(old, fleet), policy(new, new_fleet or fleet)
    return compare(one, other, probes([one, other], 5000, ZoneInfo))


BASE = "rules: [{name: a, objective: {latency: {weight: 1}}}]\n"


def test_the_same_meaning_moves_nothing():
    assert moves(BASE, "# written otherwise\n" + BASE.replace("weight: 1", "weight: 7")) == []


@pytest.mark.parametrize(
    ("new", "why", "loses"),
    [
        (BASE.replace("latency", "quality"), "rule a prefers otherwise", True),
        (BASE + "constraints: [{name: jp, require: {region: 'jp-*'}}]", "constraint jp now applies", False),
        (BASE + "constraints: [{name: t, match: {tenant: t}, require: {tier: [onprem]}}]", "constraint t", False),
        (BASE.replace("name: a", "name: z"), "rule a is now z", False),
        ("rules: [{name: a, objective: {latency: {weight: 1}}, fallback: {attempts: 1}}]", "another fallback", False),
    ],
)
def test_what_moves_and_why(new, why, loses):
    found = moves(BASE, new)
    assert found
    assert why in found[0].why
    assert any(move.loses_trust for move in found) is loses


def test_a_looser_clearance_loses_trust():
    served = "protocol: fake\n    models: {chat: {task: chat, quality: 0.9}}"
    loose = THREE_TIERS.replace(served, f"clearance: confidential\n    {served}")
    found = moves(BASE, BASE, new_fleet=loose)
    losing = [move for move in found if move.loses_trust]
    assert {move.before.label for move in losing} == {"internal", "confidential"}
    assert "cloud was rejected by clearance" in losing[0].why
    assert not any(move.loses_trust for move in moves(BASE, BASE, loose, THREE_TIERS))


def test_a_request_that_was_refused_and_now_goes_out_loses_trust():
    closed = BASE + "constraints: [{name: none, match: {tenant: t}, require: {tier: none}}]"
    losing = [move for move in moves(closed, BASE) if move.loses_trust]
    assert losing
    assert all(move.probe.facts.tenant == "t" and move.before.backend is None for move in losing)


def test_a_copy_to_the_cloud_loses_trust_where_nothing_went_there():
    near = "constraints: [{name: own, match: {usage: u}, require: {name: [edge, onprem]}}]\n"
    copied = "constraints: [{name: own, match: {usage: u}, require: {name: [edge, cloud]}}]\n"
    shadow = "rules: [{name: a, objective: {latency: {weight: 1}}, shadow: {backend: cloud}}]\n"
    losing = [move for move in moves(BASE + near, shadow + copied) if move.loses_trust]
    assert losing
    assert all(move.after.copied_to == "cloud" and move.before.backend == "edge" for move in losing)


def test_masked_text_that_may_now_go_to_the_cloud_loses_trust():
    old = "rules: [{name: a, objective: {quality: {weight: 1}}}]\n"
    new = "rules: [{name: a, objective: {quality: {weight: 1}}, transform: pseudonymise}]\n"
    losing = [move for move in moves(old, new) if move.loses_trust]
    assert losing
    assert all(move.probe.facts.masked_label is not None for move in losing)
    assert {move.after.backend for move in losing} == {"cloud"}


# --- the grid -----------------------------------------------------------------------------------------------------

ASKING = """
headers: [x-team]
constraints:
  - {name: c, match: {headers: {x-team: [vision, speech]}}, require: {tier: edge}}
rules:
  - {name: r1, match: {tenant: "acme-[ab]?", tokens_in: {gte: 1000}, stream: true}}
  - {name: r2, match: {time: {between: "22:00-06:00", days: [sat], zone: Asia/Tokyo}, label: {gte: internal}}}
  - {name: r3, match: {entities: {all: [EMAIL, US_SSN]}, deadline_ms: {lt: 10}}}
  - {name: r4, match: {any: [{usage: night}, {caller_region: "eu-*"}], labels: {batch: "true"}}}
  - {name: r5, match: {not: {tenant: known}}}
budgets: [{match: {usage: paid}, usd: 1, per: day}]
"""


def test_every_rule_constraint_and_quota_is_met():
    compiled = policy(ASKING)
    asked = probes([compiled], 5000, ZoneInfo)
    requests = [(request_from(probe.facts, compiled, probe.now), probe.now) for probe in asked]
    for one in (*compiled.rules, *compiled.constraints, *compiled.quotas):
        if one.name == "default":
            continue
        assert any(one.matches(request, now) for request, now in requests), one.name
        assert one.name == "r5" or any(not one.matches(request, now) for request, now in requests)


def test_the_grid_is_the_same_every_time_and_bounded():
    compiled = policy(ASKING)
    assert probes([compiled], 5000, ZoneInfo) == probes([policy(ASKING)], 5000, ZoneInfo)
    some = probes([compiled], 40, ZoneInfo)
    assert len(some) == 40
    assert len({probe.facts.model_dump_json() + str(probe.now) for probe in some}) == 40


@given(st.text("ab*?[]!-", min_size=1, max_size=6))
def test_a_sample_of_a_pattern_is_matched_by_it(pattern):
    (sample,) = samples(pattern)
    unusual = "[" in pattern or "]" in pattern  # classes such as [b-a] match nothing at all
    assert unusual or text_test(pattern)(sample)


@pytest.mark.parametrize(
    "match",
    [
        {"tenant": ["a-*", "b"], "usage": "x", "label": {"lte": "internal"}, "stream": True},
        {"tokens_in": {"gt": 5, "lt": 7}, "body_bytes": 3, "deadline_ms": {"lte": 50}},
        {"time": {"between": "22:00-06:00", "days": ["sat"], "zone": "Asia/Tokyo"}},
        {"entities": {"any": ["EMAIL"], "all": ["US_SSN"], "none": ["PERSON"]}},
        {"all": [{"usage": "x"}, {"any": [{"caller_region": "eu-?"}]}], "labels": {"k": "v"}},
    ],
)
def test_a_witness_satisfies_its_match(match):
    condition = Match.model_validate(match)
    facts, now = witness(condition, ZoneInfo)
    compiled = policy("rules: [{name: asks, match: {labels: {k: v}}}]")
    request = request_from(RequestFacts.model_validate({"model": "chat", **facts}), compiled, now)
    assert MatchCompiler(RANKS, ZoneInfo).match(condition)(request, now)


# --- detectors ----------------------------------------------------------------------------------------------------

KEYWORDS = {"use": "keywords", "words": ["a", "b"], "label": "confidential"}
PII = {"use": "pii", "label": "confidential"}


def sensitivity(*detectors, **more):
    return Sensitivity.model_validate({"detectors": list(detectors), **more})


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (sensitivity(PII), "detector keywords is gone"),
        (sensitivity({**KEYWORDS, "words": ["a"]}, PII), "detector keywords no longer looks for the word b"),
        (sensitivity({**KEYWORDS, "label": "internal"}, PII), "detector keywords raises to internal only"),
        (sensitivity(KEYWORDS, {**PII, "entities": ["US_SSN"]}), "detector pii no longer looks for entities of type"),
        (sensitivity(KEYWORDS, {**PII, "regions": ["JP"]}), "detector pii no longer looks for numbers of US"),
    ],
)
def test_detectors_that_find_less(new, says):
    assert says in " ".join(weakened(sensitivity(KEYWORDS, PII), new))


def test_detectors_that_find_more_or_the_same():
    old = sensitivity(KEYWORDS, PII)
    assert weakened(old, old) == []
    more = {**KEYWORDS, "words": ["a", "b", "c"], "label": "restricted"}
    assert (
        weakened(old, sensitivity(more, PII, {"use": "secrets", "label": "restricted"}, unscannable="restricted")) == []
    )
    assert weakened(sensitivity(unscannable="restricted"), sensitivity(unscannable="internal")) != []
