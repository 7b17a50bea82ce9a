"""The ledger in Redis does what the arithmetic says, and outlives Redis."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("redis", reason="the package redis is not installed")

from router.demo.processes import free_port
from router.ledgers.central import LedgerLost, open_central
from router.ledgers.leases import GRACE_S, Cell, Report, fold
from router.ledgers.redis import RedisLedger
from tests.router.ledgers.redis_server import BINARY, redis_server

pytestmark = pytest.mark.skipif(BINARY is None, reason="no redis-server, or no package redis, on this machine")

amounts = st.floats(0, 400)
reports = st.builds(
    lambda name, seq, *rest: (name, seq, rest),
    st.sampled_from("abc"), st.integers(1, 30), amounts, amounts, amounts, amounts, amounts, st.booleans(),
)  # fmt: skip
count = iter(range(10**6))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis"), free_port()) as server:
        yield server


@given(steps=st.lists(reports, min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_it_answers_as_the_pure_arithmetic_does(server, steps):
    account, end = f"account {next(count)}", float(int(time.time()) + 1000)
    said = [
        (name, seq, Report(account, end, 1000.0, used, held, wanted, min(least, enough), max(least, enough), last))
        for name, seq, (used, held, wanted, least, enough, last) in steps
    ]

    async def answers():
        ledger = RedisLedger(server.url)
        found = [(await ledger.sync(name, seq, [report]))[0] for name, seq, report in said]
        await ledger.aclose()
        return found

    cell = Cell()
    for (name, seq, report), answer in zip(said, asyncio.run(answers()), strict=True):
        cell, expected = fold(cell, name, seq, report, 0.0)
        assert answer == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_a_period_that_is_over_grants_nothing_and_keys_expire(server):
    async def ask():
        ledger = RedisLedger(server.url)
        now = int(time.time())
        over = Report("over", float(now - GRACE_S - 1), 1000.0, 1.0, 2.0, 50.0, 0.0, 0.0)
        (grant,) = await ledger.sync("r", 1, [over])
        await ledger.sync("r", 2, [Report("now", now + 100.0, 1000.0, 1.0, 2.0, 50.0, 0.0, 0.0)])
        left = [await ledger._redis.ttl(key) for key in await ledger._redis.keys("pointsman:ledger:now@*")]
        await ledger.aclose()
        return grant, left

    grant, left = asyncio.run(ask())
    assert (grant.granted, grant.left) == (3, 0)
    assert len(left) == 1 and 100 < left[0] <= 100 + GRACE_S + 1


def test_it_outlives_a_kill_9_of_redis(tmp_path):
    async def run():
        with redis_server(tmp_path, free_port()) as server:
            ledger = RedisLedger(server.url)
            end = time.time() + 1000
            (before,) = await ledger.sync("a", 1, [Report("x", end, 1000.0, 100.0, 0.0, 50.0, 0.0, 0.0)])
            server.kill()
            with pytest.raises(LedgerLost, match="Redis does not answer"):
                await ledger.sync("a", 2, [])
            server.start()
            (after,) = await ledger.sync("b", 1, [Report("x", end, 1000.0, 0.0, 0.0, 1000.0, 1000.0, 1000.0)])
            await ledger.aclose()
            return before, after

    before, after = asyncio.run(run())
    assert (before.granted, after.used) == (150, 100)
    assert after.granted + after.left == 1000 - 150


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_ones(tmp_path):
    async def run():
        with redis_server(tmp_path, free_port()) as server:
            ledger, end = RedisLedger(server.url), time.time() + 1000

            def ask(account, used):
                return ledger.sync("a", used, [Report(account, end, 1000.0, float(used), 0.0, 5.0, 0.0, 0.0)])

            await ask("x", 1)
            server.signal(signal.SIGSTOP)
            for used in (2, 3):
                with pytest.raises((LedgerLost, TimeoutError)):
                    async with asyncio.timeout(0.3 * used):
                        await ask("x", used)
            server.signal(signal.SIGCONT)
            found = [(await ask(account, used))[0].granted for account, used in (("y", 40), ("x", 4), ("y", 50))]
            await ledger.aclose()
            return found

    assert asyncio.run(run()) == [45, 9, 55]


def test_whoever_cancels_it_at_any_moment_is_heard(server):
    """At each step of the loop while it is at work. A cancellation that is lost leaves a router that never ends."""
    end = time.time() + 1000

    async def run():
        ledger, lost = RedisLedger(server.url), []
        for steps in range(40):
            report = Report("cancelled", end, 1000.0, 1.0, 0.0, 5.0, 0.0, 0.0)
            await ledger.sync("r", 2 * steps + 1, [report])
            task = asyncio.create_task(ledger.sync("r", 2 * steps + 2, [report]))
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.cancel():
                await asyncio.wait([task])
                if not task.cancelled():
                    lost.append(steps)
        await ledger.aclose()
        return lost

    assert asyncio.run(run()) == []


def test_a_url_that_is_none_is_told_without_repeating_it():
    with pytest.raises(OSError) as raised:
        open_central("redis://:secret@host:notaport/0")
    assert "secret" not in str(raised.value)
