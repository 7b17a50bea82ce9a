"""The health state machine, event by event."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.health import FIRST_EJECTION_S, LONGEST_EJECTION_S, Event, Health, step, unavailable


def run(*events: tuple[Event, float], health: Health | None = None) -> Health:
    health = health or Health()
    for event, now in events:
        health = step(health, event, now)
    return health


F, S, OK, BAD = Event.FAILURE, Event.SUCCESS, Event.PROBE_OK, Event.PROBE_FAILED


def test_three_failures_in_a_row_eject_and_time_brings_back():
    assert unavailable(run((F, 0), (F, 1)), 1) is None
    ejected = run((F, 0), (F, 1), (F, 2))
    assert unavailable(ejected, 2) == "ejected after repeated failures, for 5 s more"
    assert unavailable(ejected, 2 + FIRST_EJECTION_S) is None


def test_a_success_between_forgets():
    assert unavailable(run((F, 0), (F, 1), (S, 2), (F, 3), (F, 4)), 4) is None


def test_on_trial_one_failure_ejects_for_longer_and_one_success_acquits():
    ejected = run((F, 0), (F, 0), (F, 0))
    again = step(ejected, F, 6)
    assert again.ejected_until == 6 + 2 * FIRST_EJECTION_S
    acquitted = run((S, 6), (F, 7), (F, 7), health=ejected)
    assert unavailable(acquitted, 7) is None


def test_probes_take_out_after_two_and_bring_back_after_one():
    assert unavailable(run((BAD, 0)), 0) is None
    out = run((BAD, 0), (BAD, 5))
    assert "does not answer its probes" in (unavailable(out, 5) or "")
    assert unavailable(step(out, OK, 10), 10) is None


@given(st.lists(st.tuples(st.sampled_from(list(Event)), st.floats(0, 100)), max_size=50))
def test_it_always_comes_back(events):
    """No sequence of events keeps a backend out for ever: a good probe and time suffice."""
    now, health = 0.0, Health()
    for event, passed in events:
        now += passed
        health = step(health, event, now)
        assert health.ejected_until <= now + LONGEST_EJECTION_S
    assert unavailable(step(health, OK, now), now + LONGEST_EJECTION_S) is None
