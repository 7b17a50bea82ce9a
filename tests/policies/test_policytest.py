"""Tests of policies, tested: what a case compares, what it refuses to run, what coverage counts."""

from __future__ import annotations

import pytest
from conftest import THREE_TIERS, compile_text

from policies.coverage import measure
from policies.policytest import NotARequest, check, run
from policies.source import parse
from policies.validate import validate

POLICY = """
kind: Policy
sensitivity: {default: public, floors: [{match: {tenant: clinic}, label: restricted}]}
constraints:
  - {name: jp, match: {tenant: jp}, require: {region: "jp-*"}}
rules:
  - {name: cheap, match: {usage: batch}, objective: {cost: {weight: 1}}}
  - {name: quick, objective: {latency: {weight: 1}}, notice: hello}
budgets:
  - {name: all, match: {tenant: dev}, usd: 1, per: day}
"""


@pytest.fixture(scope="module")
def policy():
    return compile_text(THREE_TIERS + "---\n" + POLICY)


def load(cases):
    text = f"apiVersion: pointsman/v1\nkind: PolicyTest\nnow: 2026-04-01T12:00:00Z\ntests:\n{cases}"
    (document,), problems = parse(text, "policy_test.yaml", {})
    checked = validate(document)
    assert not problems and not checked.problems, (problems, checked.problems)
    return checked.model, checked.document


def no_http(http, policy, now):
    raise NotARequest("bad_request", "not now")


def results(policy, *cases):
    lines = "".join(f"  - {{name: c{i}, {case}}}\n" for i, case in enumerate(cases))
    test, document = load(lines)
    assert list(check(test, document, policy)) == []
    return run(test, document, policy, no_http)


def wrong(policy, case):
    (result,) = results(policy, case)
    return result.wrong


@pytest.mark.parametrize(
    "expect",
    [
        "rule: quick",
        "backend: edge",
        "tier: edge",
        "label: public",
        "order: [edge, onprem, cloud]",
        "attempts: [edge, onprem, cloud]",
        "constraints: []",
        "notice: hello",
        "rule: quick, backend: edge, constraints: []",
    ],
)
def test_what_holds(policy, expect):
    assert wrong(policy, f"request: {{model: chat}}, expect: {{{expect}}}") == ()


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        ("rule: cheap", "rule: expected cheap, got quick"),
        ("backend: cloud", "backend: expected cloud, got edge"),
        ("tier: cloud", "tier: expected cloud, got edge"),
        ("label: internal", "label: expected internal, got public"),
        ("order: [edge, cloud]", "order: expected edge, cloud, got edge, onprem, cloud"),
        ("attempts: [edge]", "attempts: expected edge, got edge, onprem, cloud"),
        ("constraints: [jp]", "constraints: expected jp, got none"),
        ("refusal: overloaded", "refusal: expected overloaded, got none"),
        ("shadow: cloud", "shadow: expected cloud, got none"),
        ("notice: bye", "notice: expected bye, got hello"),
        (
            "rejected: {cloud: clearance}",
            "rejected: expected cloud to be rejected by clearance; it is not rejected",
        ),
    ],
)
def test_what_does_not_hold(policy, expect, says):
    assert wrong(policy, f"request: {{model: chat}}, expect: {{{expect}}}") == (says,)


def test_the_situation_is_what_the_case_gives(policy):
    for given, expect in (
        ("backends: {edge: {down: true}}", "backend: onprem, rejected: {edge: health}"),
        ("backends: {edge: {latency_ms: 5000}}", "order: [onprem, cloud, edge]"),
        ("backends: {onprem: {in_flight: 3}}", "rejected: {onprem: [limits]}"),
    ):
        assert wrong(policy, f"given: {{{given}}}, request: {{model: chat}}, expect: {{{expect}}}") == ()
    spent = "given: {spent: {all: 1}}, request: {model: chat, tenant: dev, tokens_in: 9}"
    assert wrong(policy, f"{spent}, expect: {{rejected: {{cloud: budget}}}}") == ()


def test_a_case_that_must_fail_passes_only_where_it_does(policy):
    found = results(
        policy,
        "request: {model: chat}, expect: {backend: cloud}, must_fail: true",
        "request: {model: chat}, expect: {backend: edge}, must_fail: true",
    )
    assert [result.passed for result in found] == [True, False]
    assert found[1].failures == ("the expectation holds, and the case says that it must not",)


def test_a_request_that_the_api_would_not_take(policy):
    http = "request: {path: /v1/x, body: {}}"
    assert wrong(policy, f"{http}, expect: {{refusal: bad_request}}") == ()
    assert wrong(policy, f"{http}, expect: {{backend: edge}}") == ("it is answered bad_request: not now",)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("request: {model: chat}, expect: {}", "nothing is expected, so this case cannot fail"),
        ("request: {model: chat}, expect: {backend: edgy}", "there is no backend 'edgy'"),
        ("request: {model: chat}, expect: {rule: quik}", "there is no rule 'quik'"),
        ("request: {model: chat}, expect: {rejected: {edge: clerance}}", "there is no filter 'clerance'"),
        ("request: {model: chat}, expect: {refusal: policy_nobackend}", "there is no code of a refusal"),
        ("request: {model: chat}, expect: {label: top}", "there is no level 'top'"),
        ("request: {model: chat}, expect: {constraints: [pj]}", "there is no constraint 'pj'"),
        ("given: {backends: {x: {}}}, request: {model: chat}, expect: {rule: quick}", "there is no backend 'x'"),
        ("given: {spent: {x: 1}}, request: {model: chat}, expect: {rule: quick}", "there is no budget or limit 'x'"),
        ("now: noon, request: {model: chat}, expect: {rule: quick}", "'noon' is not a time"),
        ("now: '2026-04-01T09:00:00', request: {model: chat}, expect: {rule: quick}", "is not a time with an offset"),
    ],
)
def test_names_that_mean_nothing_are_told_with_their_place(policy, case, says):
    test, document = load(f"  - {{name: c, {case}}}\n")
    (problem,) = check(test, document, policy)
    assert says in problem.message
    assert (problem.file, problem.line) == ("policy_test.yaml", 5)


# --- coverage -----------------------------------------------------------------------------------------------------


def never(policy, *cases):
    return [str(item) for item in measure(policy, results(policy, *cases)).never]


ALL = [
    "request: {model: chat, usage: batch}, expect: {rule: cheap}",
    "request: {model: chat, tenant: jp, label: restricted}, expect: {rule: quick}",
    "request: {model: chat, tenant: clinic}, expect: {label: restricted}",
    "given: {spent: {all: 1}}, request: {model: chat, tenant: dev}, expect: {rule: quick}",
]


def test_all_is_covered(policy):
    assert never(policy, *ALL) == []
    assert measure(policy, results(policy, *ALL)).percent == 100


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        (0, ["rule cheap speaks"]),
        (1, ["constraint jp matches", "constraint jp rejects"]),
        (2, ["floor floors[0] matches"]),
        (3, ["budget all rejects"]),
    ],
)
def test_what_is_never_exercised_is_named(policy, left_out, missing):
    assert never(policy, *[case for i, case in enumerate(ALL) if i != left_out]) == missing


def test_nothing_asked_nothing_covered(policy):
    coverage = measure(policy, [])
    assert coverage.percent == 0
    assert "clearance cloud rejects" in map(str, coverage.never)
    assert "clearance edge rejects" not in map(str, coverage.never), "nothing is above its clearance"


def test_the_default_counts_only_where_it_can_speak():
    rules = "kind: Policy\nsensitivity: {default: public}\nrules:\n"
    every = compile_text(THREE_TIERS + "---\n" + rules + "  - {name: all-chats, match: {task: chat}}\n")
    some = compile_text(THREE_TIERS + "---\n" + rules + "  - {name: few, match: {task: chat, tenant: a}}\n")
    assert "rule default speaks" not in map(str, measure(every, []).items)
    assert "rule default speaks" in map(str, measure(some, []).items)
