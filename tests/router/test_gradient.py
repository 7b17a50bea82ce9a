"""The concurrency that a backend takes is found out, and found again when it changes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from router.gradient import Gradient, answered, refused
from router.places import Places
from router.state import BackendState


def latency(in_flight: int, takes: int) -> float:
    """Of a backend that does `takes` at once in 100 ms each, and the rest in turn."""
    return 100.0 * max(1.0, in_flight / takes)


def settle(state: Gradient, takes: int, rounds: int = 2500, load: int = 1000) -> Gradient:
    rng = random.Random(1)
    for _ in range(rounds):
        in_flight = min(state.limit, load)
        state = answered(state, latency(in_flight, takes) * rng.uniform(0.9, 1.1), in_flight)
    return state


def test_it_is_near_what_the_backend_takes():
    for takes in (4, 16, 40):
        assert takes <= settle(Gradient.begin(200), takes).grown <= 2 * takes
        assert settle(Gradient.begin(200), takes, 20_000).grown <= 2 * takes, "being always full is not normal"


def test_it_follows_a_backend_that_becomes_slower():
    before = settle(Gradient.begin(200), 40)
    assert settle(before, 8).grown < before.grown / 2


def test_an_idle_backend_teaches_nothing():
    state = settle(Gradient.begin(200), 16)
    assert settle(state, 16, load=2).grown == state.grown


def test_refusals_make_it_smaller():
    state = Gradient(100, 50.0)
    for _ in range(10):
        state = refused(state)
    assert state.limit < 20


@given(st.integers(1, 300), st.lists(st.none() | st.tuples(st.floats(0, 1e6), st.integers(0, 300)), max_size=80))
def test_it_stays_between_one_and_what_the_fleet_allows(most, events):
    state = Gradient.begin(most)
    for event in events:
        state = refused(state) if event is None else answered(state, *event)
        assert 1 <= state.limit <= most


def test_places_follow():
    backend = BackendState("b", Places(4), gradient=Gradient.begin(100))
    for _ in range(4):
        backend.places.taken += 1
    for _ in range(60):
        backend.places.taken = backend.places.capacity
        backend.learn(100.0)
    assert backend.places.capacity > 20
    for _ in range(60):
        backend.learn(None)
    assert backend.places.capacity == 1
