"""What a decision does with constraints, rules, filters and scores."""

from __future__ import annotations

import pytest
from conftest import THREE_TIERS, compile_text, idle, request
from msgspec.structs import replace

from policies.decide import decide
from policies.explain import as_dict
from policies.types import RefusalCode, Snapshot


def names(decision):
    return [candidate.target.backend for candidate in decision.ranked]


def why(decision, backend):
    return {r.filter: r.reason for r in decision.rejected if r.backend == backend}


def test_clearance_is_built_in_and_absent_means_lowest():
    policy = compile_text(THREE_TIERS)
    allowed = {
        level: set(names(decide(request(label=rank), idle(policy), policy))) for rank, level in enumerate(policy.levels)
    }
    assert allowed == {
        "public": {"edge", "onprem", "cloud"},
        "internal": {"edge", "onprem"},
        "confidential": {"edge", "onprem"},
        "restricted": {"edge"},
    }
    decision = decide(request(label=1), idle(policy), policy)
    assert why(decision, "cloud") == {"clearance": "label internal is above its clearance public"}


def test_every_matching_constraint_applies_and_says_what_it_wanted():
    policy = compile_text(
        THREE_TIERS
        + """
---
kind: Policy
constraints:
  - {name: japan, match: {tenant: "acme-*"}, require: {region: ["jp-*"]}}
  - {name: licence, match: {usage: commercial}, require: {licence.commercial_use: true}}
  - {name: other, match: {tenant: somebody-else}, require: {tier: cloud}}
"""
    )
    decision = decide(request(tenant="acme-dev", usage="commercial"), idle(policy), policy)
    assert names(decision) == ["edge"]
    assert decision.constraints == ("japan", "licence")
    assert why(decision, "onprem") == {"constraint": "licence: licence.commercial_use is false, required is true"}
    assert why(decision, "cloud") == {
        "constraint": "japan: region is us-east-1, required is jp-*;"
        " licence: licence.commercial_use is not stated, required is true"
    }


def test_first_matching_rule_speaks_and_sets_the_objective():
    policy = compile_text(
        THREE_TIERS
        + """
---
kind: Policy
sensitivity: {default: public}
rules:
  - {name: best, match: {usage: audit}, objective: {quality: {weight: 1}}}
  - {name: fast, match: {deadline_ms: {lte: 1000}}, objective: {latency: {weight: 1, target_ms: 50}}}
  - {name: never, match: {usage: audit}, objective: {cost: {weight: 1}}}
"""
    )
    best = decide(request(usage="audit", deadline_ms=900), idle(policy), policy)
    fast = decide(request(deadline_ms=900), idle(policy), policy)
    other = decide(request(), idle(policy), policy)
    assert (best.rule, names(best)[0]) == ("best", "cloud")
    assert (fast.rule, names(fast)) == ("fast", ["edge", "onprem", "cloud"])
    assert other.rule == "default"
    assert fast.ranked[0].score == pytest.approx(0.5)  # estimate equal to the target
    assert fast.objective == (("latency", 1.0),)


def test_cost_counts_tokens_and_amortised_hardware():
    policy = compile_text(THREE_TIERS)
    decision = decide(request(tokens_in=1000, tokens_out=500), idle(policy), policy)
    cost = {c.target.backend: c.estimate.cost_usd for c in decision.ranked}
    assert cost == pytest.approx({"edge": 0.0001, "onprem": 0.0, "cloud": 0.001 + 0.001})


def test_health_limits_and_deadline_reject_with_reasons():
    policy = compile_text(THREE_TIERS)
    snapshot = Snapshot(("ejected", None, None), (0, 3, 0), (None, None, None))
    decision = decide(request(deadline_ms=300.0), snapshot, policy)
    assert names(decision) == []
    assert why(decision, "edge") == {"health": "ejected"}
    assert why(decision, "onprem") == {
        "limits": "full: 2 in flight and 1 queued",
        "deadline": "expected 500 ms, the deadline is 300 ms",
    }
    assert why(decision, "cloud") == {"deadline": "expected 400 ms, the deadline is 300 ms"}


def test_capability_is_about_model_task_wire_and_context():
    fleet = """
    kind: Fleet
    backends:
      - {name: a, tier: edge, region: x, protocol: openai, url: "http://h",
         models: {m: {task: chat, context_tokens: 100}}}
      - {name: b, tier: edge, region: x, protocol: oip, url: "http://h", models: {m: {task: chat}}}
      - {name: c, tier: edge, region: x, protocol: fake, models: {m: {task: embedding}}}
      - {name: d, tier: edge, region: x, protocol: fake, models: {n: {task: chat}}}
    """
    policy = compile_text(fleet)
    decision = decide(request("m", tokens_in=101), idle(policy), policy)
    reasons = {r.backend: r.reason for r in decision.rejected if r.filter == "capability"}
    assert reasons == {
        "a": "about 101 input tokens and 0 to answer, it takes 100 together",
        "b": "speaks oip, the request came as openai",
        "c": "serves m for embedding, not for chat",
        "d": "does not serve this model",
    }


@pytest.mark.parametrize(
    ("facts", "snapshot", "code"),
    [
        ({"model": "chta"}, None, RefusalCode.MODEL_NOT_FOUND),
        ({"task": "embedding"}, None, RefusalCode.MODEL_NOT_FOUND),
        ({"label": 3, "usage": "no-edge"}, None, RefusalCode.POLICY_NO_BACKEND),
        ({"deadline_ms": 1.0}, None, RefusalCode.DEADLINE_EXCEEDED),
        ({"label": 3}, Snapshot(("down", None, None), (0, 0, 0), (None,) * 3), RefusalCode.BACKENDS_UNAVAILABLE),
        ({"label": 3}, Snapshot((None,) * 3, (64 + 256, 0, 0), (None,) * 3), RefusalCode.OVERLOADED),
    ],
)
def test_a_refusal_names_its_kind(facts, snapshot, code):
    policy = compile_text(
        THREE_TIERS
        + """
---
kind: Policy
constraints: [{name: no-edge, match: {usage: no-edge}, require: {tier: [onprem, cloud]}}]
"""
    )
    decision = decide(replace(request(), **facts), snapshot or idle(policy), policy)
    assert decision.refusal is not None and decision.refusal.code == code
    assert decision.ranked == () == decision.attempts


def test_a_policy_refusal_says_what_removed_each_backend_and_what_to_do():
    policy = compile_text(THREE_TIERS + "\n---\nkind: Policy\nconstraints: [{name: c, require: {tier: onprem}}]\n")
    refusal = decide(request(label=3), idle(policy), policy).refusal
    assert refusal is not None
    assert "edge: c: tier is edge, required is onprem (constraint)" in refusal.message
    assert "onprem: label restricted is above its clearance confidential (clearance)" in refusal.message
    assert "mask" in refusal.hint


def test_slo_best_effort_ranks_those_that_meet_it_first_and_reject_removes_the_others():
    text = (
        THREE_TIERS
        + """
---
kind: Policy
sensitivity: {default: public}
rules: [{name: r, objective: {quality: {weight: 1}}, slo: {latency_ms: 250, on_miss: %s}}]
"""
    )
    kept = compile_text(text % "best_effort")
    assert names(decide(request(), idle(kept), kept)) == ["onprem", "edge", "cloud"]
    strict = compile_text(text % "reject")
    decision = decide(request(), idle(strict), strict)
    assert names(decision) == ["onprem", "edge"]
    assert why(decision, "cloud") == {"slo": "expected 400 ms, the objective is 250 ms"}


@pytest.mark.parametrize(
    ("fallback", "no_fallback", "attempts"),
    [
        ("{}", False, ["edge", "onprem", "cloud"]),
        ("{attempts: 2}", False, ["edge", "onprem"]),
        ("{scope: none}", False, ["edge"]),
        ("{scope: same_tier}", False, ["edge"]),
        ("{scope: same_region}", False, ["edge"]),
        ("{}", True, ["edge"]),
    ],
)
def test_fallback_scope_limits_the_attempts_not_the_ranking(fallback, no_fallback, attempts):
    policy = compile_text(
        THREE_TIERS
        + f"""
---
kind: Policy
sensitivity: {{default: public}}
rules: [{{name: r, objective: {{latency: {{weight: 1}}}}, fallback: {fallback}}}]
"""
    )
    decision = decide(request(no_fallback=no_fallback), idle(policy), policy)
    assert names(decision) == ["edge", "onprem", "cloud"]
    assert [c.target.backend for c in decision.attempts] == attempts


def test_equal_scores_share_the_load_by_a_draw_that_can_be_replayed():
    fleet = "kind: Fleet\nbackends:\n" + "".join(
        f"  - {{name: b{i}, tier: edge, region: x, protocol: fake, models: {{chat: {{task: chat}}}}}}\n"
        for i in range(3)
    )
    policy = compile_text(fleet)
    requests = [replace(request(), id=f"r{i}", label=0) for i in range(300)]
    first = [names(decide(r, idle(policy), policy, seed=1))[0] for r in requests]
    assert first == [names(decide(r, idle(policy), policy, seed=1))[0] for r in requests]
    assert first != [names(decide(r, idle(policy), policy, seed=2))[0] for r in requests]
    assert all(70 < first.count(f"b{i}") < 130 for i in range(3))


def test_measured_latency_replaces_the_prior_and_load_stretches_it():
    policy = compile_text(
        THREE_TIERS + "\n---\nkind: Policy\nsensitivity: {default: public}\n"
        "rules: [{name: r, objective: {latency: {weight: 1}}}]\n"
    )
    slow_edge = Snapshot((None,) * 3, (0, 1, 0), (1000.0, None, None))
    estimates = {c.target.backend: c.estimate.latency_ms for c in decide(request(), slow_edge, policy).ranked}
    assert estimates == {"edge": 1000.0, "onprem": 300.0, "cloud": 400.0}


def test_the_explanation_is_the_decision():
    policy = compile_text(THREE_TIERS)
    decision = decide(request(label=1), idle(policy), policy)
    explained = as_dict(decision, policy)
    assert explained["backend"] == decision.ranked[0].target.backend
    for candidate in explained["candidates"]:
        total = sum(term["weight"] * term["value"] for term in candidate["terms"])
        assert total == pytest.approx(candidate["score"], abs=1e-5)
    assert [r["backend"] for r in explained["rejected"]] == ["cloud"]


def test_the_plan_memo_is_bounded_and_changes_nothing():
    policy = compile_text(THREE_TIERS)
    expected = names(decide(request(tenant="t"), idle(policy), policy))
    for i in range(5000):
        decide(request(tenant=f"t{i}"), idle(policy), policy)
    assert len(policy.plans) <= 4096
    assert names(decide(request(tenant="t"), idle(policy), policy)) == expected
