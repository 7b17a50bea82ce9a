"""When a backend is full the next one takes over, and gives back without swinging to and fro."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import compile_text, idle, request
from hypothesis import given
from hypothesis import strategies as st
from test_execution import at_rest, wait_until

from policies.decide import decide
from policies.types import Snapshot
from router.places import Places
from router.state import BackendState

LOCAL_FIRST = """
kind: Fleet
backends:
  - {{name: local, tier: onprem, region: jp, clearance: restricted, protocol: fake, script: [{{latency_ms: 300}}],
     models: {{chat: {{task: chat}}}}, limits: {{max_in_flight: 4, max_queued: 40}}}}
  - {{name: cloud, tier: cloud, region: us, clearance: internal, protocol: fake, models: {{chat: {{task: chat}}}},
     price: {{per_request: 0.01}}, script: [{{latency_ms: 10}}]}}
---
kind: Policy
rules:
  - {{name: local-first, objective: {{cost: {{weight: 1}}}}{more}}}
"""


def decided(snapshot, more="", **facts):
    return decide(request(**facts), snapshot, compile_text(LOCAL_FIRST.format(more=more)))


def state(local, busy=()):
    return Snapshot((None, None), (local, 0), (None, None), busy=busy)


def test_a_full_backend_comes_after_those_with_room():
    assert decided(state(3)).attempts[0].target.backend == "local"
    spilled = decided(state(4))
    assert [c.target.backend for c in spilled.attempts] == ["cloud", "local"]
    assert spilled.spilled == ("local",)
    assert decided(state(4), ", spill: never").attempts[0].target.backend == "local"


def test_it_stays_so_until_there_is_room_again():
    assert decided(state(3, (True, False))).spilled == ("local",)
    assert decided(state(3, (False, False))).spilled == ()


def test_never_above_clearance_and_where_all_are_full_they_queue_in_their_order():
    assert [c.target.backend for c in decided(state(9), label=3).attempts] == ["local"]
    both = decided(Snapshot((None, None), (4, 64), (None, None)))
    assert [c.target.backend for c in both.attempts] == ["local", "cloud"]
    assert both.spilled == ()


def test_an_objective_is_met_with_room_to_spare_by_one_that_has_been_full():
    slo = ", slo: {latency_ms: 1000}, spill: never"
    policy = compile_text(LOCAL_FIRST.format(more=slo))

    def first(latency, busy):
        snapshot = Snapshot((None, None), (0, 0), (latency, 100.0), busy=(busy, False))
        return decide(request(), snapshot, policy).attempts[0].target.backend

    assert first(900.0, False) == "local"
    assert first(900.0, True) == "cloud"
    assert first(700.0, True) == "local"
    assert first(1100.0, False) == "cloud"


@given(st.integers(1, 40), st.lists(st.booleans(), max_size=200))
def test_one_request_more_or_less_does_not_turn_it_round(capacity, moves):
    backend = BackendState("b", Places(capacity))
    turns, since = 0, 0
    for enters in moves:
        was = backend.busy
        if enters:
            backend.enter()
        elif backend.in_flight:
            backend.leave()
        since += 1
        if backend.busy != was:
            assert turns == 0 or since >= min(max(capacity // 4, 2), capacity)
            turns, since = turns + 1, 0


def test_under_load_requests_move_on_and_come_back(start_router):
    router = start_router(LOCAL_FIRST.format(more=""))
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: router.chat(), range(16)))
    assert {reply.status for reply in replies} == {200}
    by = [reply.backend for reply in replies]
    assert by.count("local") < 9
    assert by.count("cloud") > 7
    assert router.count("pointsman_spills_total", backend="local") == by.count("cloud")
    wait_until(lambda: at_rest(router))
    assert router.chat().backend == "local"


def test_a_batch_waits_only_in_half_of_the_queue():
    batch = ", priority: batch"
    assert decided(idle(compile_text(LOCAL_FIRST.format(more=batch))), batch, label=3).refusal is None
    assert decided(state(23), batch, label=3).refusal is None
    assert decided(state(24), batch, label=3).refusal is not None
    assert decided(state(24), label=3).refusal is None


@pytest.mark.parametrize("priority", ["interactive", "batch"])
def test_the_priority_is_in_the_decision(priority):
    assert decided(state(0), f", priority: {priority}").priority == priority
