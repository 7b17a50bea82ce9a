"""The policy and the fleet of the design, clause by clause."""

from __future__ import annotations

import pytest
from conftest import compile_text, idle
from msgspec.structs import replace

from policies.decide import decide
from policies.facts import request_from
from policies.schema import RequestFacts
from policies.types import RefusalCode

FLEET = """
kind: Fleet
backends:
  - name: plant1-edge
    tier: edge
    region: jp-east
    clearance: restricted
    protocol: onnx
    models:
      defect:
        task: image-classification
        artifact: models/defect-int8.onnx
        quality: 0.93
        licence: {spdx: Apache-2.0, commercial_use: true}
    price: {per_request: 0, reserved_per_hour: 0.05, capacity_rps: 40}
    energy: {active_w: 15, idle_w: 5}
    carbon: {zone: JP, g_per_kwh: 485}
    limits: {max_in_flight: 4, max_queued: 16}
    latency: {prior_ms: 12}
  - name: cloud-gpu
    tier: cloud
    region: us-east-1
    clearance: internal
    protocol: openai
    url: ${CLOUD_URL}
    api_key: {env: CLOUD_API_KEY}
    models:
      chat: {upstream: some-model, task: chat, quality: 0.9}
    price: {input_per_mtok: 0.15, output_per_mtok: 0.60}
  - name: eu-onprem
    tier: onprem
    region: eu-west-1
    clearance: confidential
    protocol: openai
    url: http://127.0.0.1:1
    models:
      chat: {task: chat, quality: 0.5, licence: {commercial_use: true}}
    price: {reserved_per_hour: 3.6, capacity_rps: 1}
"""
POLICY = """
kind: Policy
sensitivity:
  levels: [public, internal, confidential, restricted]
  default: internal
  detectors:
    - {use: pii, label: confidential}
    - {use: secrets, label: restricted}
    - {use: keywords, words: [社外秘, CONFIDENTIAL], label: confidential}
constraints:
  - name: eu-stays-in-eu
    match: {tenant: "acme-*"}
    require: {region: ["eu-*"]}
  - name: commercial-use-needs-a-commercial-licence
    match: {usage: commercial}
    require: {licence.commercial_use: true}
rules:
  - name: realtime-vision
    match: {task: image-classification, deadline_ms: {lte: 100}}
    objective: {latency: {weight: 0.7, target_ms: 20}, cost: {weight: 0.3, target_usd: 0.0001}}
    slo: {latency_ms: 50, on_miss: best_effort}
    strategy: {cascade: {escalate_below_confidence: 0.8}}
  - name: mask-then-cloud
    match: {task: chat, label: confidential, entities: {only: [EMAIL, PHONE, PERSON]}}
    transform: pseudonymise
    objective: {cost: {weight: 1, target_usd: 0.001}}
  - name: everything-else
    objective:
      latency: {weight: 0.5, target_ms: 500}
      cost: {weight: 0.4, target_usd: 0.001}
      carbon: {weight: 0.1, target_g: 1}
    strategy: {hedge: {after_quantile: 0.95, max_extra_load: 0.05}}
    fallback: {scope: any, attempts: 3}
budgets:
  - {match: {tenant: acme-dev}, usd: 20, per: day, on_exhausted: reject}
"""


@pytest.fixture(scope="module")
def policy():
    return compile_text(FLEET + "---\n" + POLICY, {"CLOUD_URL": "http://127.0.0.1:2"})


def ask(policy, spent=None, **facts):
    request = request_from(RequestFacts(**{"model": "chat", **facts}), policy, 0.0)
    return decide(request, replace(idle(policy), spent=spent or {}), policy)


def backends(decision):
    return [candidate.target.backend for candidate in decision.ranked]


def rejected(decision):
    return {(r.backend, r.filter) for r in decision.rejected}


def test_levels_and_default(policy):
    assert policy.levels == ("public", "internal", "confidential", "restricted")
    assert policy.levels[ask(policy).label] == "internal"
    assert [detector.use for detector in policy.source.sensitivity.detectors] == ["pii", "secrets", "keywords"]


def test_clearance_is_always_on(policy):
    assert backends(ask(policy)) == ["cloud-gpu", "eu-onprem"]
    decision = ask(policy, label="confidential")
    assert backends(decision) == ["eu-onprem"]
    assert ("cloud-gpu", "clearance") in rejected(decision)
    assert ask(policy, label="restricted").refusal.code is RefusalCode.POLICY_NO_BACKEND


def test_eu_stays_in_eu(policy):
    decision = ask(policy, tenant="acme-prod")
    assert decision.constraints == ("eu-stays-in-eu",)
    assert backends(decision) == ["eu-onprem"]
    assert ("cloud-gpu", "constraint") in rejected(decision)


def test_commercial_use_needs_a_licence_that_is_stated(policy):
    assert backends(ask(policy, usage="commercial")) == ["eu-onprem"]


def test_both_constraints_apply_at_once(policy):
    decision = ask(policy, tenant="acme-prod", usage="commercial")
    assert decision.constraints == ("eu-stays-in-eu", "commercial-use-needs-a-commercial-licence")


def test_realtime_vision(policy):
    decision = ask(policy, model="defect", deadline_ms=100)
    assert decision.rule == "realtime-vision"
    assert decision.objective == (("latency", 0.7), ("cost", 0.3))
    assert decision.strategy.cascade.escalate_below_confidence == 0.8
    assert backends(decision) == ["plant1-edge"]
    assert ask(policy, model="defect", deadline_ms=101).rule == "everything-else"
    assert ask(policy, model="defect").rule == "everything-else"


def test_mask_then_cloud(policy):
    found = ask(policy, label="confidential", masked_label="internal", entities=["EMAIL", "PERSON"])
    assert (found.rule, found.transform) == ("mask-then-cloud", "pseudonymise")
    assert policy.levels[found.sent_label] == "internal"
    assert backends(found)[0] == "cloud-gpu"
    assert ask(policy, label="confidential", entities=["EMAIL", "US_SSN"]).rule == "everything-else"
    assert ask(policy, label="confidential").rule == "everything-else"
    assert ask(policy, label="restricted", entities=["EMAIL"]).rule == "everything-else"


def test_everything_else(policy):
    decision = ask(policy)
    assert decision.rule == "everything-else"
    assert [round(weight, 6) for _, weight in decision.objective] == [0.5, 0.4, 0.1]
    assert decision.strategy.hedge.after_quantile == 0.95
    assert [c.target.backend for c in decision.attempts] == ["cloud-gpu", "eu-onprem"]


def test_the_budget(policy):
    quota = policy.quotas[0]
    assert (quota.cap, quota.unit, quota.per, quota.rejects) == (20.0, "usd", "day", True)
    assert ask(policy, {(0, ""): 19.0}, tenant="acme-dev").refusal is None
    refusal = ask(policy, {(0, ""): 20.0}, tenant="acme-dev").refusal
    assert refusal.code is RefusalCode.BUDGET_EXHAUSTED
    assert ask(policy, {(0, ""): 20.0}, tenant="acme-prod").refusal is None


def test_a_losing_candidate_does_not_change_the_winner(policy):
    first, second = ask(policy).ranked
    assert first.score > second.score
