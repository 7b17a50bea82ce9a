"""Who gets a place: interactive before batch, tenants in turn, and nobody who could not be answered in time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.places import Places, TooLate

FOREVER = 1e9


async def served(places, wanted):
    """The order in which those who wait get their places: (priority, tenant, name)."""
    order = []

    async def one(priority, tenant, name):
        await places.acquire(priority, tenant, FOREVER)
        order.append(name)
        places.release()

    await places.acquire("interactive", "", FOREVER)
    tasks = [asyncio.create_task(one(*each)) for each in wanted]
    await asyncio.sleep(0)
    places.release()
    await asyncio.gather(*tasks)
    return order


def test_interactive_before_batch_and_tenants_in_turn():
    wanted = [
        ("batch", "a", "b1"), ("interactive", "a", "a1"), ("interactive", "a", "a2"), ("interactive", "a", "a3"),
        ("interactive", "b", "c1"), ("interactive", "b", "c2"),
    ]  # fmt: skip
    assert asyncio.run(served(Places(1), wanted)) == ["a1", "c1", "a2", "c2", "a3", "b1"]


def test_one_who_could_not_be_answered_in_time_makes_room_for_the_next():
    now = [0.0]

    async def main():
        places = Places(1, lambda: now[0])
        await places.acquire("interactive", "", FOREVER)
        late = asyncio.create_task(places.acquire("interactive", "a", 5.0))
        good = asyncio.create_task(places.acquire("interactive", "a", 50.0))
        await asyncio.sleep(0)
        now[0] = 10.0
        places.release()
        with pytest.raises(TooLate):
            await late
        await good
        assert (places.taken, places.waiting) == (1, 0)

    asyncio.run(main())


@given(
    st.lists(st.tuples(st.sampled_from(["take", "cancel", "give"]), st.integers(0, 5)), max_size=60), st.integers(1, 3)
)
def test_no_place_is_lost_or_given_twice(steps, capacity):
    async def main():
        places = Places(capacity)
        tasks: list[asyncio.Task[None]] = []

        def holding():
            return [t for t in tasks if t.done() and not t.cancelled()]

        for step, number in steps:
            if step == "take":
                tasks.append(asyncio.create_task(places.acquire("interactive", str(number), FOREVER)))
            elif step == "cancel" and number < len(tasks) and not tasks[number].done():
                tasks[number].cancel()
            elif step == "give" and holding():
                tasks.remove(holding()[0])
                places.release()
            if number % 2:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        waiting = [t for t in tasks if not t.done()]
        assert places.taken == len(holding()) <= capacity
        assert places.waiting == len(waiting)
        assert not waiting or places.taken == capacity
        for task in waiting:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_those_who_have_left_take_nobodys_turn_and_no_room():
    async def main():
        places = Places(1)
        await places.acquire("interactive", "", FOREVER)
        gone = [asyncio.create_task(places.acquire("batch", "a", FOREVER)) for _ in range(50)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        assert not any(waiting for waiting in places._queue.tenants)

    asyncio.run(main())


def test_a_batch_is_not_kept_out_for_ever():
    wanted = [("batch", "b", "batch"), *(("interactive", "a", f"i{i}") for i in range(40))]
    order = asyncio.run(served(Places(1), wanted))
    assert order.index("batch") <= 8
