"""The simulation itself: places, times, labels and budgets of requests that were recorded once."""

from __future__ import annotations

import random
from types import MappingProxyType

import pytest
from conftest import THREE_TIERS, compile_text, idle, request
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.decide import decide
from policies.sensitivity.labels import Label
from policies.simulation.moves import Moves, loses_trust
from policies.simulation.paces import Paces
from policies.simulation.places import Places
from policies.simulation.run import Ended, Simulation
from policies.simulation.traffic import Answered, Arrival
from policies.simulation.translation import Translation, strategies, unknown
from policies.types import Rejection

NOON = 1767614400.0
LEVELS = ("public", "internal", "confidential", "restricted")
PUBLIC = "---\nkind: Policy\nsensitivity: {default: public}\n"
QUICK = PUBLIC + "rules: [{name: quick, objective: {latency: {weight: 1, target_ms: 100}}}]\n"
BEST = PUBLIC + "rules: [{name: best, objective: {quality: {weight: 1}}}]\n"


def policy(text=QUICK, fleet=THREE_TIERS):
    return compile_text(fleet + text)


def arrival(was, at=NOON, *, id="r-1", found=(), entities=None, floor=0, snapshot=None, answered=None, **more):
    """A request that `was` decided. `found` holds what raised its label: (source, level's name)."""
    facts = {name: more.pop(name) for name in list(more) if name in ("stream", "deadline_ms", "tokens_out", "tenant")}
    raised = (("floor", floor), *((source, was.rank(level)) for source, level in found))
    label = Label(max(rank for _, rank in raised), raised, entities or {})
    asked = replace(request(label=label.rank, entities=frozenset(entities or ()), **facts), id=id)
    given = None if answered is None else Answered(target(was, answered[0]), *answered[1:])
    return Arrival(at, was, asked, label, snapshot or idle(was), given, **more)


def target(policy, backend):
    return next(one for one in policy.targets if one.backend == backend)


def simulated(policy, arrivals, seen=()):
    """`seen` are answers that teach how long some take, as those of the arrivals themselves do."""
    paces = Paces()
    for one in (*seen, *arrivals):
        paces.add(one)
    simulation = Simulation(policy, paces)
    return [simulation.arrive(one) for one in arrivals]


def backends(ended):
    return [one.target.backend if one.target else one.outcome for one in ended]


# --- places and times ---------------------------------------------------------------------------------------------


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20)), min_size=1, max_size=30),
)
def test_places_are_given_in_order_and_never_more_than_there_are(capacity, gaps_and_lengths):
    places, now, served = Places([capacity]), 0, []
    for gap, length in gaps_and_lengths:
        now += gap
        waiting_or_served = sum(begin + long > now for begin, long in served)
        assert places.in_flight(now) == (waiting_or_served,)
        begin = places.begins(0, now)
        # As soon as fewer are being served than there are places, and none before it is waiting any more.
        moments = sorted({now, *(b + long for b, long in served if b + long > now)})
        free = [m for m in moments if sum(b <= m < b + long for b, long in served) < capacity
                and all(b <= m for b, _ in served)]  # fmt: skip
        assert begin == free[0]
        places.take(0, begin, begin + length)
        served.append((begin, length))


def test_a_request_beyond_the_places_waits_and_one_beyond_the_queue_is_refused():
    live = policy()
    assert backends(simulated(live, [arrival(live, found=[("header", "confidential")])])) == ["edge"]
    only = policy(fleet=THREE_TIERS.replace("clearance: restricted", "clearance: public"))
    burst = [arrival(only, NOON + i / 1000, id=f"r-{i}", found=[("header", "confidential")]) for i in range(4)]
    ended = simulated(only, burst)
    # Two places and one in the queue: 200 ms expected, stretched by how full it is.
    assert backends(ended) == ["onprem", "onprem", "onprem", "overloaded"]
    assert [round(one.ms, 3) for one in ended] == [200, 300, 198 + 400, 0]
    assert ended[3].charges == ()
    later = simulated(only, [*burst, arrival(only, NOON + 0.9, id="r-9", found=[("header", "confidential")])])
    assert later[-1].outcome == "ok" and later[-1].ms == pytest.approx(200), "all of it is free again"


def test_where_it_was_answered_an_answer_takes_what_it_took():
    live = policy()
    busy = replace(idle(live), latency_ms=(80.0, None, None), in_flight=(1, 0, 0))
    places = live.fleet.backends[0].limits.max_in_flight
    (ended,) = simulated(live, [arrival(live, snapshot=busy, answered=("edge", 400.0))])
    assert ended.target.backend == "edge"
    # 400 ms was taken with one beside it; alone it is that much less, as decisions expect.
    assert ended.ms == pytest.approx(400 / (1 + 1 / places))
    assert ended.measured


def test_elsewhere_an_answer_takes_what_answers_took_there():
    live, best = policy(), policy(BEST)
    seen = [arrival(live, id=f"seen-{i}", answered=("cloud", ms)) for i, ms in enumerate((400.0, 800.0, 1200.0))]
    asked = [arrival(live, NOON + i * 10, id=f"r-{i}", answered=("edge", 50.0)) for i in range(200)]
    ended = simulated(best, asked, seen)
    assert {round(one.ms) for one in ended} == {400, 800, 1200}
    assert all(one.measured for one in ended)
    assert simulated(best, asked, seen) == ended, "the same draws again"
    assert not any(one.measured for one in simulated(best, asked)), "nothing is known of it"
    assert {round(one.ms) for one in simulated(best, asked)} == {400}, "as the fleet expects"


def test_streams_take_the_time_of_streams():
    live = policy(BEST)
    seen = [arrival(live, answered=("cloud", 4000.0)), arrival(live, stream=True, answered=("cloud", 800.0, 40.0))]
    (stream,) = simulated(live, [arrival(live, id="r", stream=True, answered=("edge", 50.0, 5.0))], seen)
    assert (stream.ms, stream.ttft_ms) == (pytest.approx(800), pytest.approx(40))
    (whole,) = simulated(live, [arrival(live, id="r", answered=("edge", 50.0))], seen)
    assert (whole.ms, whole.ttft_ms) == (pytest.approx(4000), None)
    (only,) = simulated(live, [arrival(live, id="r", stream=True, answered=("edge", 50.0, 5.0))], seen[:1])
    assert (only.ms, only.ttft_ms) == (pytest.approx(4000), pytest.approx(4000)), "there was no stream to go by"


def test_sizes_and_loads_that_went_together_count_once():
    """A backend that was asked for much when it was full: the two cannot be told apart."""
    live, paces = policy(), Paces()
    for i in range(60):
        in_flight = i % 3
        at = replace(idle(live), in_flight=(0, in_flight, 0))
        size = 100 + 100 * in_flight
        paces.add(arrival(live, id=f"s-{i}", snapshot=at, answered=("onprem", 2.0 * size), tokens=(5, size)))
    full = replace(idle(live), in_flight=(0, 2, 0))
    for tokens, snapshot, ms in ((300, full, 600), (100, idle(live), 200), (300, idle(live), 600)):
        one = arrival(live, id="r", tokens=(5, tokens))
        assert paces.of(target(live, "onprem"), one, one.request, snapshot, 0)[0].ms == pytest.approx(ms, rel=0.02)


def test_an_answer_is_drawn_from_those_that_are_most_alike():
    """So that it hardly matters that a backend's times are no line."""
    live, paces, rng = policy(), Paces(), random.Random(5)
    for i in range(400):
        size = rng.randint(1, 400)
        paces.add(arrival(live, id=f"s-{i}", answered=("onprem", 50 + size**1.5), tokens=(5, size)))
    for tokens in (150, 250, 350):
        found = []
        for i in range(100):
            one = arrival(live, id=f"r-{i}", tokens=(5, tokens))
            found.append(paces.of(target(live, "onprem"), one, one.request, idle(live), 0)[0].ms)
        assert sum(found) / len(found) == pytest.approx(50 + tokens**1.5, rel=0.15)


@given(st.floats(0.5, 5), st.floats(0, 3), st.integers(0, 300), st.integers(0, 2), st.integers(0, 99))
def test_what_size_and_load_do_is_seen_from_the_answers(by_token, by_load, tokens, beside, seed):
    """Answers that take 100 ms, so much for each token, and so many hundreds more where both places are taken."""
    live, rng, seen = policy(), random.Random(seed), []
    for i in range(60):
        size, in_flight = rng.randint(1, 300), rng.randint(0, 2)
        ms = 100 + by_token * size + by_load * 100 * in_flight / 2
        at = replace(idle(live), in_flight=(0, in_flight, 0))
        seen.append(arrival(live, id=f"s-{i}", snapshot=at, answered=("onprem", ms), tokens=(5, size)))
    paces = Paces()
    for one in seen:
        paces.add(one)
    one = arrival(live, id="r", tokens=(5, tokens), answered=("edge", 50.0))
    crowd = replace(idle(live), in_flight=(0, beside, 0))
    took, measured = paces.of(target(live, "onprem"), one, one.request, crowd, 0)
    assert measured
    assert took.ms == pytest.approx(100 + by_token * tokens + by_load * 100 * beside / 2, rel=0.02)


def test_a_backend_that_no_load_slows_down_is_not_taken_for_one():
    live = policy()
    seen = [
        arrival(live, id=f"s-{i}", snapshot=replace(idle(live), in_flight=(0, i % 3, 0)), answered=("onprem", 200.0))
        for i in range(60)
    ]
    paces = Paces()
    for one in seen:
        paces.add(one)
    full = replace(idle(live), in_flight=(0, 2, 0))
    one = arrival(live, id="r")
    assert paces.of(target(live, "onprem"), one, one.request, full, 0)[0].ms == pytest.approx(200)


def test_what_comes_too_late_for_its_caller_is_given_up_and_gives_its_place_back():
    live = policy(BEST)
    slow = {"answered": ("cloud", 5000.0), "deadline_ms": 600.0}
    first, second = simulated(
        live, [arrival(live, **slow), arrival(live, NOON + 0.7, id="r-2", answered=("cloud", 400.0))]
    )
    assert (first.outcome, first.ms, first.slo_met) == ("deadline", 600.0, False)
    (charge,) = first.charges
    assert (charge.purpose, charge.seconds) == ("unused", 0.6)
    assert second.ms == pytest.approx(400), "nobody is beside it"
    stream = simulated(live, [arrival(live, stream=True, deadline_ms=600.0, answered=("cloud", 5000.0, 300.0))])
    assert stream[0].outcome == "ok", "a stream has until its first token"


def test_a_backend_that_failed_the_request_then_fails_it_again():
    live = policy(BEST)
    one = arrival(live, answered=("onprem", 200.0), failed=(("cloud", 1000.0),))
    (ended,) = simulated(live, [one])
    assert (ended.target.backend, ended.ms) == ("onprem", pytest.approx(1200))
    assert [charge.backend for charge in ended.charges] == ["onprem"]
    everywhere = tuple((name, 10.0) for name in ("edge", "onprem", "cloud"))
    (lost,) = simulated(live, [arrival(live, failed=everywhere)])
    assert (lost.outcome, lost.slo_met, lost.charges) == ("upstream_error", False, ())


def test_what_was_unavailable_is_so_for_the_other_policy_too():
    live, best = policy(), policy(BEST)
    down = arrival(live, snapshot=idle(live, cloud="ejected"), answered=("edge", 50.0))
    assert backends(simulated(best, [down])) == ["onprem"]


def test_a_copy_is_charged_and_takes_a_place():
    shadow = PUBLIC + "rules: [{name: r, objective: {latency: {weight: 1}}, shadow: {backend: onprem, share: 1}}]\n"
    live = policy(shadow)
    arrivals = [arrival(live, NOON + i / 1000, id=f"r-{i}", answered=("edge", 50.0)) for i in range(4)]
    ended = simulated(live, arrivals)
    copies = [[charge.purpose for charge in one.charges] for one in ended]
    # Two are served and one waits; the fourth finds the queue full, which is a reason against its copy only.
    assert copies == [["answer", "copy"]] * 3 + [["answer"]]
    assert [target.backend for target in ended[0].reached] == ["edge", "onprem"]


def test_who_waits_in_vain_is_in_the_queue_all_the_same():
    only = policy(fleet=THREE_TIERS.replace("clearance: restricted", "clearance: public"))
    full = [
        arrival(only, NOON, id=f"f-{i}", found=[("header", "confidential")], answered=("onprem", 60_000.0))
        for i in range(2)
    ]
    late = [
        arrival(only, NOON + 0.01 * i, id=f"l-{i}", found=[("header", "confidential")], deadline_ms=30_000.0)
        for i in range(1, 4)
    ]
    simulation = Simulation(only, Paces())
    for one in full:
        simulation._paces.add(one)
    ended = [simulation.arrive(one) for one in (*full, *late)]
    assert backends(ended) == ["onprem", "onprem", "deadline", "overloaded", "overloaded"]


def test_a_stream_that_broke_breaks_again_unless_it_may_be_gone_on_with():
    live = policy(BEST)
    broke = arrival(live, stream=True, failed=(("cloud", 300.0),), broke="cloud")
    (ended,) = simulated(live, [broke])
    assert (ended.outcome, ended.ms, ended.slo_met) == ("stream_broken", pytest.approx(300), False)
    resuming = policy(BEST.replace("{quality: {weight: 1}}", "{quality: {weight: 1}}, fallback: {resume: true}"))
    assert simulated(resuming, [broke])[0].target.backend == "onprem"
    assert simulated(policy(), [broke])[0].target.backend == "edge", "another backend has not broken it"


def test_what_took_all_the_time_there_was_leaves_none():
    live = policy(BEST)
    one = arrival(live, failed=(("cloud", 60_000.0),), time_ms=60_000.0)
    (ended,) = simulated(live, [one])
    assert (ended.outcome, ended.ms) == ("deadline", 60_000.0)
    assert simulated(policy(), [one])[0].outcome == "ok"


def test_what_is_given_up_costs_no_whole_answer():
    live = policy(BEST)
    (ended,) = simulated(live, [arrival(live, deadline_ms=500.0, answered=("cloud", 5000.0), tokens=(100, 300))])
    (charge,) = ended.charges
    assert (charge.tokens_in, charge.tokens_out, charge.estimated) == (100, 0, True)


def test_waiting_counts_against_the_deadline_and_to_the_first_token():
    only = policy(fleet=THREE_TIERS.replace("clearance: restricted", "clearance: public"))
    found = [("header", "confidential")]
    busy = [arrival(only, NOON, id=f"f-{i}", found=found, answered=("onprem", 200.0)) for i in range(2)]
    stream = arrival(only, NOON, id="s", found=found, stream=True, answered=("onprem", 200.0, 40.0))
    third = simulated(only, [*busy, stream])[2]
    # It waits for the first of the two, which alone takes 200 ms; with both places taken its own time is the doubled.
    assert third.ms - third.ttft_ms == pytest.approx(0.8 * (third.ms - 200), rel=0.01)
    hurried = arrival(only, NOON, id="s", found=found, deadline_ms=450.0, answered=("onprem", 200.0))
    assert simulated(only, [*busy, hurried])[2].outcome == "deadline"
    assert simulated(only, [hurried])[0].outcome == "ok"


def test_ties_are_broken_with_the_seed_of_the_record():
    split = policy(PUBLIC + "rules: [{name: s, split: {weights: {edge: 1, onprem: 1, cloud: 1}}}]\n")
    one = arrival(split)
    for seed in range(20):
        simulation = Simulation(split, Paces())
        chosen = simulation.arrive(replace(one, seed=seed)).decision.chosen
        assert chosen == decide(one.request, idle(split), split, seed).chosen


def test_what_was_measured_then_is_what_decisions_go_by():
    live = policy(PUBLIC + "rules: [{name: r, objective: {latency: {weight: 1, target_ms: 100}}}]\n")
    edge, onprem = (THREE_TIERS.index(f"  - name: {name}") for name in ("edge", "onprem"))
    without_edge = THREE_TIERS[:edge] + THREE_TIERS[onprem:]
    fewer = policy(PUBLIC + "rules: [{name: r, objective: {latency: {weight: 1, target_ms: 100}}}]\n", without_edge)
    slow = replace(idle(live), latency_ms=(900.0, 800.0, 20.0), ttft_ms=(900.0, 10.0, 800.0))
    assert backends(simulated(live, [arrival(live, snapshot=slow)])) == ["cloud"]
    assert backends(simulated(fewer, [arrival(live, snapshot=slow)])) == ["cloud"], "by name, not by place"
    assert backends(simulated(fewer, [arrival(live, snapshot=slow, stream=True)])) == ["cloud"]
    held = replace(idle(live), back_in_s=(0.0, 0.0, 30.0))
    assert backends(simulated(policy(BEST), [arrival(live, snapshot=held)])) == ["onprem"], "it asked to be left alone"


# --- labels, clearance --------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from(["header", "pii:EMAIL", "x:failed"]), st.sampled_from(LEVELS)), max_size=3),
    st.sampled_from(LEVELS),
    st.permutations([*LEVELS, "secret"]),
    st.sampled_from([None, *LEVELS]),
)
def test_no_translation_sends_above_clearance_or_lowers_what_was_found(found, default, levels, masked):
    """Whatever the levels of the other policy are called and however they are ordered."""
    was = policy()
    fleet = THREE_TIERS.replace("clearance: restricted", f"clearance: {levels[-1]}")
    tried = policy(f"---\nkind: Policy\nsensitivity: {{levels: [{', '.join(levels)}], default: {default}}}\n", fleet)
    one = arrival(was, found=found, entities={"EMAIL": 1})
    if masked is not None:
        one = replace(one, request=replace(one.request, masked_label=was.rank(masked)))
    ended = Simulation(tried, Paces()).arrive(one)
    ranks = [len(levels) - 1 if source == "x:failed" else tried.rank(level) for source, level in found]
    assert ended.decision.label == max(tried.rank(default), *ranks, 0)
    for charge in ended.charges:
        assert target(tried, charge.backend).clearance >= ended.decision.sent_label


def test_a_level_that_the_other_policy_does_not_have_counts_as_its_highest():
    was = policy()
    levels = "{levels: [public, internal, confidential, secret], default: public}"
    fleet = THREE_TIERS.replace("clearance: restricted", "clearance: secret")
    tried = policy(f"---\nkind: Policy\nsensitivity: {levels}\n", fleet)
    translation = Translation.between(was, tried)
    assert translation.request(arrival(was, found=[("pii:EMAIL", "restricted")])).label == tried.rank("secret")


def test_floors_are_those_of_the_other_policy():
    was = policy("---\nkind: Policy\nsensitivity: {default: confidential}\n")
    tried = policy("---\nkind: Policy\nsensitivity: {default: public}\n")
    one = arrival(was, floor=was.rank("confidential"), found=[("header", "internal")])
    assert Translation.between(was, tried).request(one).label == tried.rank("internal")
    assert Translation.between(tried, was).request(arrival(tried)).label == was.rank("confidential")
    masked = replace(one, request=replace(one.request, masked_label=was.rank("confidential")))
    again = Translation.between(was, tried).request(masked)
    assert again.masked_label == tried.rank("confidential"), "how much of that was the floor's doing is not known"
    plain = replace(one, request=replace(one.request, masked_label=was.rank("public")))
    assert Translation.between(was, tried).request(plain).masked_label == tried.rank("internal"), "what its caller said"
    doubt = replace(plain, label=Label(3, (("unreadable", 3),), {}))
    assert Translation.between(was, tried).request(doubt).masked_label == tried.rank("restricted")


def test_a_tenant_of_now_has_its_floor_and_usage_of_now():
    tenant = (
        "---\nkind: Tenants\ntenants: [{{name: acme, label_floor: {}, usage: {{default: {}}}, keys: [{{env: KEY}}]}}]\n"
    )
    was, tried = policy(QUICK + tenant.format("public", "batch")), policy(QUICK + tenant.format("confidential", "live"))
    one = arrival(was, tenant="acme")
    one = replace(one, request=replace(one.request, usage="batch"))
    request = Translation.between(was, tried).request(one)
    assert (request.label, request.usage) == (tried.rank("confidential"), "live")
    stated = replace(one, request=replace(one.request, usage="research"))
    assert Translation.between(was, tried).request(stated).usage == "research"


TENANT = "---\nkind: Tenants\ntenants: [{{name: acme, may_declassify: {may}, keys: [{{env: KEY}}]}}]\n"


@pytest.mark.parametrize(("may", "level"), [("true", "public"), ("false", "confidential")])
def test_who_lowered_a_label_lowers_it_where_that_is_allowed(may, level):
    was = policy()
    tried = policy(QUICK + TENANT.format(may=may))
    found = [("pii:EMAIL", "confidential"), ("declassified", "public")]
    one = arrival(was, found=found, entities={"EMAIL": 1}, tenant="acme")
    request = Translation.between(was, tried).request(one)
    assert request.label == tried.rank(level)
    assert backends(simulated(tried, [one])) == (["edge"] if may == "true" else ["refused"])


def test_headers_and_labels_that_the_other_policy_does_not_read_are_not_there():
    was = policy(QUICK.replace("sensitivity:", "headers: [x-team]\nsensitivity:"))
    one = arrival(was)
    facts = {"headers": MappingProxyType({"x-team": "a"}), "labels": MappingProxyType({"batch": "true"})}
    one = replace(one, request=replace(one.request, **facts))
    plain = Translation.between(was, policy(BEST)).request(one)
    assert (plain.headers, plain.labels) == ({}, {})
    assert Translation.between(was, was).request(one).headers == {"x-team": "a"}


def test_what_the_log_cannot_tell_is_said():
    plain = policy()
    more = policy(
        "---\nkind: Policy\nheaders: [x-team]\n"
        "sensitivity: {default: public, detectors: [{use: pii, label: confidential}]}\n"
        "rules: [{name: a, match: {labels: {batch: 'true'}}, transform: pseudonymise,\n"
        "         strategy: {hedge: {after_quantile: 0.9}}}]\n"
    )
    told = "\n".join(unknown(plain, more))
    for word in ("header x-team", "label batch", "detectors", "masking"):
        assert word in told
    assert unknown(more, more) == [] and unknown(plain, plain) == []
    assert [one.split(":")[0] for one in strategies(more)] == ["hedges"]
    assert strategies(plain) == []


# --- budgets ------------------------------------------------------------------------------------------------------

CAPPED = QUICK + "limits: [{name: few, requests: 2, per: minute}]\n"


def test_limits_are_used_up_by_the_simulated_requests_and_begin_anew():
    live = policy(CAPPED)
    asked = [arrival(live, NOON + at, id=f"r-{at}") for at in (0, 1, 2, 61)]
    assert backends(simulated(live, asked)) == ["edge", "edge", "rate_limited", "edge"]


def test_a_limit_begins_with_what_had_been_used_before_the_log_begins():
    live = policy(CAPPED)
    used = replace(idle(live), spent={(0, ""): 1.0}, now=NOON)
    asked = [arrival(live, NOON + i, id=f"r-{i}", snapshot=used, answered=("edge", 50.0)) for i in range(3)]
    assert backends(simulated(live, asked)) == ["edge", "rate_limited", "rate_limited"]


def test_a_budget_is_used_up_by_what_answers_cost_where_they_are_given():
    budget = BEST + "budgets: [{name: b, usd: 0.002, per: day, on_exhausted: reject}]\n"
    live, tried = policy(), policy(budget)
    asked = [
        arrival(live, NOON + i, id=f"r-{i}", tokens_out=256, tokens=(100, 300), answered=("edge", 50.0))
        for i in range(5)
    ]
    ended = simulated(tried, asked)
    # 0.7 thousandths each; a request is let in while its estimate, of 256 tokens, fits into what is left.
    assert backends(ended) == ["cloud"] * 3 + ["budget_exhausted"] * 2
    assert sum(charge.usd for one in ended for charge in one.charges) == pytest.approx(0.0021)


def test_quotas_are_known_by_name_and_count_where_they_cover():
    was = policy(
        BEST + "budgets: [{name: other, usd: 9, per: day}, {name: cloud, backend: cloud, usd: 0.01, per: day}]\n"
    )
    tried = policy(BEST + "budgets: [{name: cloud, backend: cloud, usd: 0.01, per: day}]\n")
    used = replace(idle(was), spent={(0, ""): 5.0, (1, ""): 0.0099}, now=NOON)
    asked = [arrival(was, NOON + i, id=f"r-{i}", snapshot=used, tokens_out=256, tokens=(10, 200)) for i in range(2)]
    assert backends(simulated(tried, asked)) == ["onprem", "onprem"], "the cloud's is used up; nothing else counts"
    fresh = [arrival(was, NOON + i, id=f"r-{i}", tokens_out=256, tokens=(10, 4900)) for i in range(2)]
    assert backends(simulated(tried, fresh)) == ["cloud", "onprem"]
    each = policy(QUICK + "limits: [{name: few, each: tenant, requests: 1, per: hour}]\n")
    by_tenant = [arrival(each, NOON + i, id=f"r-{i}", tenant=name) for i, name in enumerate(("a", "b", "a"))]
    assert backends(simulated(each, by_tenant)) == ["edge", "edge", "rate_limited"]


def test_what_an_earlier_period_had_used_does_not_count_in_the_next():
    live = policy(CAPPED)
    used = replace(idle(live), spent={(0, ""): 2.0}, now=NOON + 59)
    late = arrival(live, NOON + 61, snapshot=used)
    assert backends(simulated(live, [late])) == ["edge"]


# --- what moves ---------------------------------------------------------------------------------------------------


def test_moves_are_told_by_where_requests_go():
    live, best = policy(), policy(BEST)
    moves = Moves(live, best)
    for i in range(5):
        one = arrival(live, NOON + i * 10, id=f"r-{i}", answered=("edge", 50.0), tokens=(10, 20))
        moves.add(*(simulated(p, [one])[0] for p in (live, best)))
    ((places, kind),) = moves.kinds.items()
    assert places == ("edge", "cloud")
    assert (kind.requests, kind.losing_trust, dict(kind.labels)) == (5, 5, {"public": 5})
    assert kind.usd == pytest.approx(5 * (50e-6 - 0.0001))
    assert kind.why == "rule quick is now best"
    same = Moves(live, live)
    same.add(*(simulated(live, [one])[0] for _ in range(2)))
    assert same.kinds == {}


@pytest.mark.parametrize(
    ("before", "after", "loses"),
    [
        ("edge", "cloud", True), ("onprem", "cloud", True), ("cloud", "edge", False), ("edge", "onprem", False),
        ("refused", "cloud", True), ("refused", "edge", True), ("cloud", "refused", False),
        ("overloaded", "cloud", False), ("rate_limited", "cloud", False), ("unauthorized", "edge", True),
    ],
)  # fmt: skip
def test_trust_is_lost_by_going_to_a_cloud_and_not_by_a_fuller_fleet(before, after, loses):
    live = policy(BEST)

    tiers = dict(zip(live.backend_names, ("edge", "onprem", "cloud"), strict=True))
    filters = {"refused": "constraint", "overloaded": "limits", "rate_limited": "rate_limit", "unauthorized": "tenant"}

    def ended(place):
        if place not in live.backend_names:
            rejected = tuple(Rejection(name, filters[place], "") for name in live.backend_names)
            return Ended(request(), replace(decision, ranked=(), attempts=(), rejected=rejected), place, 0.0)
        only = compile_text(THREE_TIERS + BEST)
        down = {name: "down" for name in only.backend_names if name != place}
        return simulated(only, [arrival(only, snapshot=idle(only, **down))])[0]

    decision = decide(request(), idle(live), live)
    assert loses_trust(ended(before), ended(after), tiers) is loses


def test_a_copy_to_a_cloud_loses_trust_too():
    shadow = "rules: [{name: r, objective: {latency: {weight: 1}}, shadow: {backend: cloud, share: 1}}]\n"
    live, copying = policy(), policy(PUBLIC + shadow)
    one = arrival(live, answered=("edge", 50.0))
    before, after = (simulated(p, [one])[0] for p in (live, copying))
    assert before.target.backend == after.target.backend == "edge"
    assert loses_trust(before, after, {})
    moves = Moves(live, copying)
    moves.add(before, after)
    assert moves.losing_trust == 1


def test_that_the_fleet_was_full_is_no_protection():
    """What only a constraint kept from the cloud loses trust there, whoever else was busy or down at home."""
    home = "constraints: [{name: home, match: {}, require: {region: 'jp-*'}}]\n"
    kept, free = policy(BEST + home), policy(BEST)
    full = replace(idle(kept), unavailable=("ejected", "ejected", None))
    overloaded = arrival(kept, snapshot=full)
    failing = arrival(kept, failed=(("edge", 5.0), ("onprem", 5.0)))
    for one, outcome in ((overloaded, "unavailable"), (failing, "upstream_error")):
        moves = Moves(kept, free)
        before, after = simulated(kept, [one])[0], simulated(free, [one])[0]
        assert (before.outcome, after.target.backend) == (outcome, "cloud")
        moves.add(before, after)
        assert moves.losing_trust == 1
    # One that might have gone there, had there been room, loses nothing.
    busy = replace(idle(free), unavailable=("ejected", "ejected", "ejected"))
    moves = Moves(free, free)
    moves.add(simulated(free, [arrival(free, snapshot=busy)])[0], simulated(free, [arrival(free)])[0])
    assert (moves.requests, moves.losing_trust) == (1, 0)


def test_a_backend_that_was_asked_in_vain_has_been_reached():
    live, best = policy(), policy(BEST)
    one = arrival(live, answered=("onprem", 200.0), failed=(("cloud", 10.0),))
    (ended,) = simulated(best, [one])
    assert [target.backend for target in ended.reached] == ["cloud", "onprem"]
    moves = Moves(best, best)
    moves.add(ended, simulated(best, [arrival(live, answered=("cloud", 400.0))])[0])
    assert moves.losing_trust == 0, "it went to the cloud before, too"


CASCADE = PUBLIC + (
    "rules:\n  - name: r\n    objective: {latency: {weight: 1}}\n"
    "    strategy: {cascade: {escalate_below_confidence: 0.8}}\n"
)


def test_a_cascade_goes_on_where_the_answer_was_not_sure_enough():
    live = policy(CASCADE)
    unsure = arrival(live, answered=("onprem", 200.0), judged=(("edge", 0.5), ("onprem", 0.9)), tokens=(10, 20))
    (ended,) = simulated(live, [unsure])
    assert (ended.target.backend, [charge.purpose for charge in ended.charges]) == ("onprem", ["unused", "answer"])
    assert ended.ms == pytest.approx(50 + 200)
    assert [target.backend for target in ended.reached] == ["edge", "onprem"]
    again = arrival(live, answered=("cloud", 400.0), judged=(("edge", 0.5), ("onprem", 0.7)))
    (ended,) = simulated(live, [again])
    assert (ended.target.backend, len(ended.charges)) == ("cloud", 3)
    easier = policy(CASCADE.replace("0.8", "0.4"))
    (ended,) = simulated(easier, [unsure])
    assert (ended.target.backend, ended.ms) == ("edge", pytest.approx(50))
    assert simulated(live, [arrival(live, answered=("edge", 50.0))])[0].target.backend == "edge", "not known: it counts"
    last = arrival(live, judged=(("edge", 0.5), ("onprem", 0.5), ("cloud", 0.1)))
    assert simulated(live, [last])[0].target.backend == "cloud", "there is no better one"


def test_requests_that_were_not_answered_count_with_the_tokens_of_others():
    live = policy(BEST)
    paces = Paces()
    for i, tokens in enumerate((10, 20, 30)):
        paces.add(arrival(live, id=f"s-{i}", answered=("cloud", 100.0), tokens=(5, tokens)))
    refused = [arrival(live, id=f"r-{i}", tokens_out=25) for i in range(60)]
    sized = [paces.sized(one, 0) for one in refused]
    assert {one.tokens[1] for one in sized} == {10, 20, 25}, "and never more than they may have"
    assert all(one.estimated for one in sized)
    assert paces.sized_others == 60
    known = arrival(live, answered=("cloud", 100.0), tokens=(5, 7))
    assert paces.sized(known, 0) is known
    assert Paces().sized(refused[0], 0) is refused[0], "nothing is known of others"


def test_a_limit_that_was_used_up_when_the_log_begins_is_used_up():
    live = policy(CAPPED)
    used = replace(idle(live), spent={(0, ""): 2.0}, now=NOON)
    asked = [arrival(live, NOON + i, id=f"r-{i}", snapshot=used) for i in range(3)]
    assert backends(simulated(live, asked)) == ["rate_limited"] * 3
    lost = replace(used, ledger_lost=True)
    assert backends(simulated(live, [arrival(live, NOON, snapshot=lost)])) == ["edge"], "nobody knew what was used"


def test_what_another_policy_used_later_does_not_count():
    live = policy(CAPPED)
    first = arrival(live, NOON, id="r-0")
    later = replace(idle(live), spent={(0, ""): 1.0})
    asked = [first, *(arrival(live, NOON + i, id=f"r-{i}", snapshot=later) for i in (1, 2))]
    simulation = Simulation(live, Paces())
    assert backends([simulation.arrive(one) for one in asked]) == ["edge", "edge", "rate_limited"]


def test_reasons_of_moves_between_refusals_and_fleets():
    live = policy(BEST)
    less = policy(BEST, THREE_TIERS[: THREE_TIERS.index("  - name: cloud")])
    moves = Moves(live, less)
    one = arrival(live)
    moves.add(simulated(live, [one])[0], simulated(less, [one])[0])
    assert moves.kinds["cloud", "onprem"].why == "cloud is not in the fleet any more"
    down = replace(idle(live), unavailable=("down", "down", "down"))
    nobody = policy(BEST + "constraints: [{name: moon, match: {}, require: {region: moon}}]\n")
    moves = Moves(live, nobody)
    one = arrival(live, snapshot=down)
    moves.add(simulated(live, [one])[0], simulated(nobody, [one])[0])
    ((_, kind),) = moves.kinds.items()
    assert kind.why == "refused as policy_no_backend, before as backends_unavailable"
