"""The health state machine, event by event."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.schema import Ejection
from router.health import USUAL, Event, Health, room, step, unavailable


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
    assert unavailable(ejected, 2 + USUAL.first_s) is None


def test_a_success_between_forgets():
    assert unavailable(run((F, 0), (F, 1), (S, 2), (F, 3), (F, 4)), 4) is None


def test_on_trial_one_failure_ejects_for_longer_and_one_success_acquits():
    ejected = run((F, 0), (F, 0), (F, 0))
    again = step(ejected, F, 6)
    assert again.ejected_until == 6 + 2 * USUAL.first_s
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
        assert health.ejected_until <= now + USUAL.longest_s
    assert unavailable(step(health, OK, now), now + USUAL.longest_s) is None


def test_a_share_of_failures_ejects_even_with_successes_between():
    health, now = Health(), 0.0
    while not health.ejections:
        health = run((F, now), (F, now), (S, now), health=health) if now < 100 else health
        now += 1
        assert now < 50, "two of three fail, and it is still used"
    few = run(*[(F, 0), (F, 0), (S, 0)] * 5)
    assert not few.ejections, "fewer than twenty answers say little"
    assert not run(*[(F, 0), (S, 0), (S, 0), (S, 0)] * 50).ejections


def test_it_comes_back_on_trial_and_then_bit_by_bit():
    health = run((F, 0), (F, 0), (F, 0))
    back = USUAL.first_s + 1
    assert room(health, back, 64) == 1
    assert "1 at a time" in (unavailable(health, back, 1, 64) or "")
    assert unavailable(health, back, 0, 64) is None
    acquitted = step(health, S, back)
    rooms = [room(acquitted, back + t, 64) for t in range(12)]
    assert rooms[0] == 1
    assert rooms == sorted(rooms)
    assert rooms[-1] == 64
    assert room(acquitted, back, 64, Ejection(slow_start_s=0)) == 64


def test_the_settings_count():
    patient = Ejection(failures=5, first_s=1, longest_s=2)
    health = Health()
    for _ in range(4):
        health = step(health, F, 0, patient)
    assert unavailable(health, 0) is None
    health = step(health, F, 0, patient)
    assert health.ejected_until == 1
    assert step(health, F, 1, patient).ejected_until == 3
    assert step(step(health, F, 1, patient), F, 3, patient).ejected_until == 5


def test_those_who_fail_together_eject_it_once():
    ejected = run(*[(F, 0.0)] * 3)
    assert run(*[(F, 0.1)] * 40, health=ejected) == ejected
