"""What rules can say beyond an objective: split, shadow, slo, transform, notices, floors, budgets and limits."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import THREE_TIERS, compile_text, idle, request
from msgspec.structs import replace

from policies.calendar import moment, period_end
from policies.decide import decide
from policies.facts import UnknownLevel, request_from
from policies.schema import RequestFacts
from policies.types import RefusalCode

NOON = moment("2026-04-01T12:00:00Z")


def policy(text):
    return compile_text(THREE_TIERS + "---\nkind: Policy\n" + text)


def decided(compiled, spent=None, now=NOON, seed=0, **facts):
    snapshot = replace(idle(compiled), now=now, spent=spent or {})
    return decide(request_from(RequestFacts(model="chat", **facts), compiled, now), snapshot, compiled, seed)


def order(decision):
    return [candidate.target.backend for candidate in decision.ranked]


# --- split --------------------------------------------------------------------------------------------------------

SPLIT = """
sensitivity: {default: public}
rules:
  - {name: canary, split: {weights: {onprem: 3, cloud: 1}, sticky: session}}
"""


def test_a_split_shares_out_by_weight():
    compiled = policy(SPLIT)
    chosen = Counter(order(decided(compiled, id=f"r{i}"))[0] for i in range(4000))
    assert set(chosen) == {"onprem", "cloud"}
    assert 0.72 < chosen["onprem"] / 4000 < 0.78


def test_a_session_stays_where_it_is_and_only_loses_what_goes_away():
    compiled = policy(SPLIT)
    sessions = [f"s{i}" for i in range(200)]
    first = {s: order(decided(compiled, session=s, id=f"a{s}"))[0] for s in sessions}
    assert first == {s: order(decided(compiled, session=s, id=f"b{s}"))[0] for s in sessions}
    without = replace(idle(compiled, cloud="down"), now=NOON)
    for session in sessions:
        again = decide(request_from(RequestFacts(model="chat", session=session), compiled, NOON), without, compiled)
        assert again.ranked[0].target.backend == "onprem"
        if first[session] == "onprem":
            assert first[session] == again.ranked[0].target.backend


def test_who_is_not_in_the_split_is_fallback_only():
    decision = decided(policy(SPLIT))
    assert decision.picker == "split"
    assert order(decision)[2] == "edge"


def test_a_split_never_goes_above_clearance():
    compiled = policy(SPLIT)
    for i in range(100):
        assert order(decided(compiled, id=f"r{i}", label="confidential")) == ["onprem", "edge"]


# --- shadow -------------------------------------------------------------------------------------------------------

SHADOW = "sensitivity: {default: public}\nrules: [{name: try, shadow: {backend: onprem, share: 0.25}}]\n"


def test_a_share_is_copied_and_who_gets_copies_does_not_answer():
    compiled = policy(SHADOW)
    found = [decided(compiled, id=f"r{i}") for i in range(2000)]
    copied = [d for d in found if d.shadow is not None]
    assert 0.2 < len(copied) / 2000 < 0.3
    assert all(d.shadow.target.backend == "onprem" for d in copied)
    assert all("onprem" not in order(d) for d in found)
    assert ("onprem", "shadow") in {(r.backend, r.filter) for r in found[0].rejected}


def test_a_copy_is_never_above_clearance():
    compiled = policy(SHADOW)
    assert all(decided(compiled, id=f"r{i}", label="restricted").shadow is None for i in range(200))


# --- slo ----------------------------------------------------------------------------------------------------------


def test_time_to_first_token_is_asked_of_streams_only():
    text = "rules: [{name: quick, objective: {quality: {weight: 1}}, slo: {ttft_ms: 100, on_miss: reject}}]\n"
    compiled = policy("sensitivity: {default: public}\n" + text)
    assert order(decided(compiled)) == ["cloud", "onprem", "edge"]
    streamed = decided(compiled, stream=True)
    assert order(streamed) == ["edge"]
    assert {r.filter for r in streamed.rejected} == {"slo"}


def test_measured_first_tokens_count_for_streams():
    compiled = policy("sensitivity: {default: public}\nrules: [{name: quick, slo: {ttft_ms: 100}}]\n")
    snapshot = replace(idle(compiled), ttft_ms=(500.0, None, 20.0), now=NOON)
    streamed = decide(request_from(RequestFacts(model="chat", stream=True), compiled, NOON), snapshot, compiled)
    assert order(streamed)[0] == "cloud"


# --- labels: floors and transforms --------------------------------------------------------------------------------

FLOORS = """
sensitivity:
  default: public
  floors:
    - {match: {tenant: "hospital-*"}, label: confidential}
    - {match: {route: "/v1/chat/*", time: {between: "18:00-08:00"}}, label: internal}
"""


@pytest.mark.parametrize(
    ("facts", "label"),
    [
        ({}, "public"),
        ({"tenant": "hospital-a"}, "confidential"),
        ({"tenant": "hospital-a", "label": "restricted"}, "restricted"),
        ({"tenant": "hospital-a", "label": "public"}, "confidential"),
        ({"now": moment("2026-04-01T22:00:00Z")}, "internal"),
    ],
)
def test_floors(facts, label):
    compiled = policy(FLOORS)
    assert compiled.levels[decided(compiled, **facts).label] == label


def test_a_transform_counts_only_where_masking_is_known_to_help():
    compiled = policy(
        "sensitivity: {default: public}\n"
        "rules: [{name: mask, match: {entities: {only: [EMAIL]}}, transform: pseudonymise}]\n"
    )
    masked = decided(compiled, label="confidential", masked_label="public", entities=["EMAIL_ADDRESS"])
    assert (masked.label, masked.sent_label, masked.transform) == (2, 0, "pseudonymise")
    assert "cloud" in order(masked)
    for facts in (
        {"entities": ["EMAIL_ADDRESS"]},  # nobody says that masking removes what raised the label
        {"entities": ["EMAIL_ADDRESS", "US_SSN"], "masked_label": "public"},  # another rule speaks
    ):
        decision = decided(compiled, label="confidential", **facts)
        assert (decision.sent_label, decision.transform) == (2, None)
        assert "cloud" not in order(decision)


def test_masking_never_raises_a_label():
    compiled = policy("rules: [{name: mask, transform: pseudonymise}]\n")
    assert decided(compiled, label="internal", masked_label="restricted").sent_label == 1


def test_an_unknown_level_is_told_with_those_there_are():
    with pytest.raises(UnknownLevel, match="write one of: public, internal, confidential, restricted"):
        decided(policy(""), label="zzz")


# --- notices ------------------------------------------------------------------------------------------------------


def test_notices_of_the_rule_and_of_the_constraints_that_removed_something():
    compiled = policy(
        """
sensitivity: {default: public}
constraints:
  - {name: jp, match: {tenant: a}, require: {region: "jp-*"}, notice: 日本国内で処理します。}
  - {name: any, require: {tier: [edge, onprem, cloud]}, notice: never told}
rules:
  - {name: all, notice: Hello.}
"""
    )
    assert decided(compiled, tenant="a").notices == ("Hello.", "日本国内で処理します。")
    assert decided(compiled, tenant="b").notices == ("Hello.",)


# --- budgets and limits -------------------------------------------------------------------------------------------

QUOTAS = """
sensitivity: {default: public}
budgets:
  - {name: cloud-daily, backend: cloud, usd: 1, per: day}
  - {name: dev, match: {tenant: dev}, each: tenant, tokens: 1000, per: hour}
  - {name: seen, match: {tenant: soft}, usd: 0.000001, per: month, on_exhausted: warn}
limits:
  - {name: rpm, match: {tenant: dev}, requests: 5, per: minute}
"""


def indices(compiled):
    return {quota.name: quota.index for quota in compiled.quotas}


def test_a_budget_of_some_backends_removes_only_those():
    compiled = policy(QUOTAS)
    at = indices(compiled)["cloud-daily"]
    assert "cloud" in order(decided(compiled, {(at, ""): 0.5}, tokens_in=10))
    decision = decided(compiled, {(at, ""): 1.0}, tokens_in=10)
    assert set(order(decision)) == {"edge", "onprem"}
    assert [(r.backend, r.filter) for r in decision.rejected] == [("cloud", "budget")]
    assert "cloud-daily: $1 of $1 used in this day" in decision.rejected[0].reason


def test_a_request_that_would_go_over_is_not_begun():
    compiled = policy(QUOTAS)
    at = indices(compiled)["cloud-daily"]
    assert "cloud" not in order(decided(compiled, {(at, ""): 0.9999}, tokens_in=10, tokens_out=100))


def test_an_exhausted_budget_of_everywhere_refuses_and_says_until_when():
    compiled = policy(QUOTAS)
    spent = {(indices(compiled)["dev"], "dev"): 999.0}
    refusal = decided(compiled, spent, tenant="dev", tokens_in=1, tokens_out=1).refusal
    assert refusal.code is RefusalCode.BUDGET_EXHAUSTED
    assert refusal.retry_after_s == 3600
    assert decided(compiled, spent, tenant="dev", tokens_in=1, tokens_out=0).refusal is None
    assert decided(compiled, spent, tenant="other").refusal is None


def test_a_rate_limit_refuses_until_the_period_ends():
    compiled = policy(QUOTAS)
    spent = {(indices(compiled)["rpm"], ""): 5.0}
    refusal = decided(compiled, spent, now=NOON + 15, tenant="dev", tokens_out=0).refusal
    assert refusal.code is RefusalCode.RATE_LIMITED
    assert refusal.retry_after_s == 45


def test_a_budget_that_only_warns_removes_nothing():
    compiled = policy(QUOTAS)
    decision = decided(compiled, {(indices(compiled)["seen"], ""): 5.0}, tenant="soft")
    assert len(order(decision)) == 3
    assert indices(compiled)["seen"] in decision.quotas


@pytest.mark.parametrize(
    ("per", "end"),
    [
        ("second", "2026-12-31T23:59:31Z"),
        ("minute", "2027-01-01T00:00:00Z"),
        ("hour", "2027-01-01T00:00:00Z"),
        ("day", "2027-01-01T00:00:00Z"),
        ("month", "2027-01-01T00:00:00Z"),
    ],
)
def test_periods_end_on_the_utc_calendar(per, end):
    assert period_end(per, moment("2026-12-31T23:59:30Z")) == moment(end)


def test_february_has_its_length():
    assert period_end("month", moment("2028-02-29T10:00:00Z")) == moment("2028-03-01T00:00:00Z")


# --- require ------------------------------------------------------------------------------------------------------


def test_what_happens_to_the_data_can_be_required():
    contracts = {
        "keeps": "{days: 30, training: false}",
        "trains": "{days: 0, training: true}",
        "silent": "{}",
        "forgets": "{days: 0, training: false}",
    }
    fleet = "kind: Fleet\nbackends:\n" + "".join(
        f"  - {{name: {name}, tier: cloud, region: us, protocol: fake, models: {{chat: {{task: chat}}}}, "
        f"retention: {retention}}}\n"
        for name, retention in contracts.items()
    )
    compiled = compile_text(
        f"{fleet}---\nkind: Policy\nsensitivity: {{default: public}}\nconstraints:\n"
        "  - {name: forget, require: {retention.days: {lte: 0}, retention.training: false}}\n"
    )
    decision = decide(request(label=0), idle(compiled), compiled)
    assert order(decision) == ["forgets"]
    reasons = {r.backend: r.reason for r in decision.rejected}
    assert reasons["silent"] == "forget: retention.days is not stated, required is at most 0"
