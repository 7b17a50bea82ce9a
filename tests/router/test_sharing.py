"""What replicas tell each other: sums of what is under way, who fails for most of them, and nothing that is old."""

from __future__ import annotations

import time

import pytest
from conftest import Router
from hypothesis import given
from hypothesis import strategies as st
from test_execution import TWO, wait_until

from backends.registry import BUILDERS
from router.configuration import load
from router.settings import Settings
from router.sharing import STALE_S, Board, View, together

views = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(
        View,
        st.dictionaries(st.sampled_from("xyz"), st.integers(1, 9)),
        st.dictionaries(st.sampled_from("xyz"), st.floats(0.1, 60)),
    ),
    max_size=4,
)


@given(views)
def test_together_is_the_sum_and_what_most_keep_out(told):
    found = together(told)
    for name in "xyz":
        assert found.in_flight.get(name, 0) == sum(view.in_flight.get(name, 0) for view in told.values())
        keep_out = [view.ejected_for_s[name] for view in told.values() if name in view.ejected_for_s]
        assert (name in found.ejected_for_s) == (bool(keep_out) and 2 * len(keep_out) >= len(told))


@given(views, st.sampled_from("abcd"))
def test_a_replica_hears_of_the_others_only(told, me):
    board = Board()
    for name, view in told.items():
        board.exchange(name, view, 0.0)
    others = {name: view for name, view in told.items() if name != me}
    assert board.exchange(me, View({"x": 5}), 0.1) == together(others)


def test_what_is_old_and_who_is_gone_does_not_count():
    board = Board()
    board.exchange("a", View({"x": 3}), 0.0)
    assert board.exchange("b", View(), STALE_S - 0.1).in_flight == {"x": 3}
    assert board.exchange("b", View(), STALE_S + 0.1).in_flight == {}
    board.exchange("a", View({"x": 3}), 10.0)
    board.exchange("a", None, 10.1)
    assert board.exchange("b", View(), 10.2).in_flight == {}


class Local:
    """A board that two routers of one process share; `down` while it does not answer."""

    def __init__(self):
        self.board, self.down = Board(), False

    async def exchange(self, replica, view):
        if self.down:
            raise OSError("down")
        return self.board.exchange(replica, view, time.monotonic())


@pytest.fixture
def pair(tmp_path):
    """Two routers of one fleet."""
    board, routers = Local(), []

    def start(**options):
        settings = {"first": "[{}]", "second": "[{}]", "fallback": "{}", "limits": "{}"} | options
        file = tmp_path / "config.yaml"
        file.write_text(TWO.format(**settings).replace("kind: ", "apiVersion: pointsman/v1\nkind: "))
        routers.extend(Router(load([file], {}), Settings(), BUILDERS, board=board).start() for _ in range(2))
        return (*routers, board)

    yield start
    for router in routers:
        router.stop()
    for router in routers:
        router.join()


def unavailable(router):
    return router.service.state.snapshot(time.monotonic(), time.time()).unavailable[0]


def test_what_one_finds_dead_the_other_does_not_try(pair):
    one, other, _ = pair(first="[{fail: status_500}]", second="[{latency_ms: 50}]")
    for _ in range(3):
        one.chat()
    assert "after repeated failures" in unavailable(one)
    wait_until(lambda: "ejected by other replicas" in (unavailable(other) or ""))
    assert other.chat().headers["x-pointsman-attempts"] == "1"
    assert len(other.backend("first").calls) == 0


def test_limits_hold_for_both_together_and_requests_move_on(pair):
    import threading

    one, other, board = pair(first="[{latency_ms: 2500}]", limits="{max_in_flight: 2, max_queued: 0}")
    threads = [threading.Thread(target=one.chat) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: other.service.state.snapshot(time.monotonic(), 0.0).in_flight[0] == 2)
    assert other.chat().backend == "second"
    assert len(other.backend("first").calls) == 0
    for thread in threads:
        thread.join()
    wait_until(lambda: other.service.state.snapshot(time.monotonic(), 0.0).in_flight[0] == 0)
    board.down = True


def test_without_the_board_each_goes_on_with_what_it_knows(pair):
    one, other, board = pair(first="[{fail: status_500}]", second="[{latency_ms: 50}]")
    for _ in range(3):
        one.chat()
    wait_until(lambda: unavailable(other) is not None)
    board.down = True
    wait_until(lambda: unavailable(other) is None, STALE_S + 2)
    assert other.chat().status == 200
