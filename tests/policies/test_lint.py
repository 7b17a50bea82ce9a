"""Each lint: a policy that has what it finds, and one that does not."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

import pytest
from conftest import THREE_TIERS
from hypothesis import given
from hypothesis import strategies as st

from policies.compile import compile_documents
from policies.implies import implies
from policies.lint import CODES, LINTS, Linted, lint
from policies.match import MatchCompiler
from policies.schema import Match
from policies.source import parse
from policies.types import Request

LEVELS = ["public", "internal", "confidential", "restricted"]
RANKS = {level: rank for rank, level in enumerate(LEVELS)}


def lints(policy, fleet=THREE_TIERS):
    text = fleet + "\n---\nkind: Policy\n" + policy
    documents, problems = parse(text.replace("kind: ", "apiVersion: pointsman/v1\nkind: "), "p.yaml", {})
    compiled, more = compile_documents(documents, ZoneInfo)
    assert compiled is not None, problems + more
    return lint(Linted(compiled, documents[0], documents[1], ZoneInfo))


def codes(policy, fleet=THREE_TIERS):
    return [problem.code for problem in lints(policy, fleet)]


PUBLIC = "sensitivity: {default: public}\n"


def test_a_policy_with_nothing_to_say_about():
    assert codes(PUBLIC + "rules: [{name: a, match: {tenant: x}}, {name: b}]") == []


@pytest.mark.parametrize(
    ("code", "policy", "says"),
    [
        ("PM101", "rules: [{name: a}, {name: b, match: {tenant: x}}]", "rule 'b' never speaks: 'a' on line"),
        (
            "PM101",
            "rules: [{name: a, match: {tenant: 'x-*'}}, {name: b, match: {tenant: [x-1, x-2], usage: u}}]",
            "rule 'b' never speaks",
        ),
        ("PM102", "constraints: [{name: eu, match: {tenant: e}, require: {region: 'eu-*'}}]", "tenant e"),
        (
            "PM102",
            "constraints: [{name: a, require: {tier: [edge]}}, {name: b, match: {usage: u}, require: {tier: [cloud]}}]",
            "constraint 'a' together with b leaves no backend",
        ),
        ("PM103", "constraints: [{name: no-cloud, require: {tier: [edge, onprem]}}]", "no request can reach 'cloud'"),
        (
            "PM105",
            "sensitivity: {default: internal, detectors: [{use: keywords, words: [a], label: internal}]}",
            "every request is internal anyway",
        ),
        (
            "PM106",
            "rules: [{name: a, objective: {latency: {weight: 1}, cost: {weight: 0}}}]",
            "'cost' of rule 'a' has weight 0",
        ),
        ("PM107", "rules: [{name: a, slo: {latency_ms: 10}}]", "the fastest for rule 'a' takes 50"),
        ("PM107", "rules: [{name: a, slo: {ttft_ms: 10}}]", "no backend is expected to meet 10 ms"),
        ("PM108", "rules: [{name: a, fallback: {attempts: 1}}]", "it allows one attempt only"),
        ("PM108", "rules: [{name: a, fallback: {scope: same_region}}]", "are in scope same_region"),
        ("PM109", "budgets: [{usd: 1, per: day}]", "share this one cap"),
        ("PM109", "limits: [{match: {all: [{task: chat}, {task: x}]}, requests: 1}]", "matches no request"),
        ("PM110", "rules: [{name: a, match: {model: chta}}, {name: b}]", "no backend serves a model named 'chta'"),
        ("PM110", "rules: [{name: a, match: {task: [embeding]}}, {name: b}]", "a task named 'embeding'"),
    ],
)
def test_found(code, policy, says):
    found = [p for p in lints(policy if "sensitivity" in policy else PUBLIC + policy) if p.code == code]
    assert found, f"{code} is not among the findings"
    assert says in found[0].message
    assert found[0].severity == "warning"
    assert found[0].line > 1


CLOUD = """
kind: Fleet
backends:
  - {name: own, tier: onprem, region: jp, clearance: CLEAR_OWN, protocol: fake, models: {chat: {task: chat}}}
  - {name: rented, tier: cloud, region: us, clearance: CLEAR_CLOUD, protocol: fake, models: {chat: {task: chat}}}
  - {name: vec, tier: onprem, region: jp, clearance: restricted, protocol: fake, models: {vec: {task: embedding}}}
"""


@pytest.mark.parametrize(
    ("own", "cloud", "loose"),
    [
        ("restricted", "internal", False),
        ("restricted", "restricted", True),
        ("internal", "confidential", True),
        ("confidential", "confidential", False),
    ],
)
def test_clearance_of_a_cloud(own, cloud, loose):
    fleet = CLOUD.replace("CLEAR_OWN", own).replace("CLEAR_CLOUD", cloud)
    assert ("PM104" in codes("", fleet)) is loose


def test_a_split_out_of_reach():
    fleet = CLOUD.replace("CLEAR_OWN", "restricted").replace("CLEAR_CLOUD", "internal")
    policy = "rules: [{name: a, match: {model: chat}, split: {weights: {vec: 1}}}]"
    assert "PM111" in codes(policy, fleet)
    assert "PM111" not in codes(policy.replace("vec: 1", "own: 1"), fleet)


@pytest.mark.parametrize(
    "policy",
    [
        "rules: [{name: a, match: {tenant: x}}, {name: b, match: {tenant: 'x*'}}]",
        "rules: [{name: a, match: {tokens_in: {lt: 100}}}, {name: b, match: {tokens_in: {lte: 100}}}]",
        "rules: [{name: a, match: {time: {days: [mon]}}}, {name: b, match: {time: {days: [tue]}}}]",
        "rules: [{name: a, slo: {latency_ms: 60}, fallback: {scope: any}}]",
        "rules: [{name: a, fallback: {scope: none}}]",
        "limits: [{each: tenant, requests: 1}]",
        "budgets: [{match: {tenant: t}, usd: 1, per: day}]",
        "sensitivity: {default: internal, detectors: [{use: keywords, words: [a], label: internal}]}\n"
        "rules: [{name: a, match: {entities: {any: [KEYWORD]}}}, {name: b}]",
    ],
)
def test_not_found(policy):
    found = codes(policy if "sensitivity" in policy else PUBLIC + policy)
    assert [code for code in found if code != "PM103"] == []  # the cloud has no clearance, so `internal` loses it


def test_every_code_can_be_explained():
    assert list(CODES) == sorted(CODES)
    assert all(text.partition("\n\n")[2] for text in CODES.values()), "a title, an empty line, what to do"
    assert len(LINTS) == len(CODES)


# --- implication --------------------------------------------------------------------------------------------------

TENANTS = ["a", "a-1", "b"]
matches = st.fixed_dictionaries(
    {},
    optional={
        "tenant": st.sampled_from(["a", "a*", ["a", "b"], {"not": "a"}, ["a-*", "b"]]),
        "usage": st.sampled_from(["x", ["x", "y"]]),
        "label": st.sampled_from(["internal", {"gte": "internal"}, {"lte": "internal"}, {"not": "public"}]),
        "tokens_in": st.sampled_from([5, {"lt": 10}, {"lte": 10}, {"gt": 5}, {"gte": 5, "lt": 10}]),
        "stream": st.booleans(),
        "labels": st.sampled_from([{"k": "v"}, {"k": {"not": "v"}}, {"k": ["v", "w"]}]),
        "all": st.sampled_from([[{"usage": "x"}], [{"stream": True}, {"tokens_in": 5}]]),
        "not": st.sampled_from([{"tenant": "a"}, {"usage": "x"}]),
    },
).map(Match.model_validate)
requests = st.builds(
    lambda tenant, usage, label, tokens, stream, labels: Request(
        "r", "m", "t", tenant=tenant, usage=usage, label=label, tokens_in=tokens, stream=stream, labels=labels
    ),
    st.sampled_from(TENANTS),
    st.sampled_from(["", "x", "y"]),
    st.integers(0, 3),
    st.sampled_from([0, 5, 9, 10, 11]),
    st.booleans(),
    st.sampled_from([{}, {"k": "v"}, {"k": "w"}]),
)


@given(matches, matches, st.lists(requests, max_size=30))
def test_what_is_said_to_be_implied_always_is(narrow, wide, asked):
    if implies(narrow, wide, LEVELS):
        compiler = MatchCompiler(RANKS)
        one, other = compiler.match(narrow), compiler.match(wide)
        assert all(other(request, 0.0) for request in asked if one(request, 0.0))


@given(matches)
def test_every_match_implies_itself_and_no_match_at_all(match):
    assert implies(match, match, LEVELS)
    assert implies(match, Match(), LEVELS)


def test_a_cascade_needs_a_better_backend():
    cascade = PUBLIC + "rules: [{name: a, strategy: {cascade: {escalate_below_confidence: 0.5}}}]"
    assert "PM112" not in codes(cascade)
    assert "PM112" in codes(cascade, re.sub("quality: 0.[0-9]", "quality: 0.5", THREE_TIERS))
