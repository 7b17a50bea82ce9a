"""Leases of several processes at once: four loops in four threads that share one central ledger."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from router.demo.processes import free_port
from router.ledgers.book import IDLE_S
from router.ledgers.central import LedgerLost, open_central
from router.ledgers.client import SYNC_S, Leases
from router.ledgers.file import FileLedger
from tests.router.ledgers.redis_server import BINARY, redis_server

CAP = 1.0
END = 4e9


class Counted(Leases):
    def of(self):
        book = self.book("a", "a", "usd", END)
        book.cap = CAP
        return book


async def hammer(leases, spent, seed, until):
    """Requests as a router makes them: ask where too little is leased, reserve, answer for less, settle."""
    draw = random.Random(seed)
    book = leases.of()

    async def client():
        while time.monotonic() < until and book.known < CAP - 5e-4:
            need = draw.choice([0.0004, 0.001, 0.002])
            if book.short(need, time.monotonic()):
                await leases.ask({book: (need, need)}, 0.5)
            if not book.fits(need):
                await asyncio.sleep(0.01)
                continue
            book.reserve(need, time.monotonic())
            leases.touched(book)
            await asyncio.sleep(draw.uniform(0, 0.004))
            actual = need * draw.choice([0, 0.5, 1])
            book.release(book.settle(need, actual))
            spent.append(actual)
            leases.touched(book)

    await asyncio.gather(*(client() for _ in range(8)))


def in_threads(opened, seconds):
    spent, held, errors = [], [], []

    async def main(i):
        leases = Counted(opened(), f"r{i}", lambda: errors.append(i))
        leases.start()
        await hammer(leases, spent, i, time.monotonic() + seconds)
        await leases.aclose()
        held.append(leases.of().free)

    threads = [threading.Thread(target=lambda i=i: asyncio.run(main(i))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 4 and not errors
    return sum(spent)


class Shared:
    """One ledger that nobody closes but the test."""

    def __init__(self, ledger):
        self.sync = ledger.sync

    async def aclose(self): ...


@pytest.mark.parametrize("kept", ["memory", "file"])
def test_four_processes_spend_one_budget_and_no_more(tmp_path, kept):
    ledger = FileLedger(tmp_path / "ledger" if kept == "file" else None)
    spent = in_threads(lambda: Shared(ledger), 8)
    assert 0.99 * CAP < spent <= CAP * (1 + 1e-8)
    (cell,) = ledger._cells.values()
    assert cell.used == pytest.approx(spent)
    assert cell.committed == pytest.approx(spent), "all leases have been given back"


@pytest.mark.skipif(BINARY is None, reason="no redis-server, or no package redis, on this machine")
def test_four_processes_spend_one_budget_through_redis(tmp_path):
    with redis_server(tmp_path, free_port()) as server:
        spent = in_threads(lambda: open_central(server.url), 8)
    assert 0.99 * CAP < spent <= CAP * (1 + 1e-8)


# --- one process ----------------------------------------------------------------------------------------------------


class Slow(FileLedger):
    def __init__(self, delay_s):
        super().__init__(None)
        self.delay_s, self.asked = delay_s, 0

    async def sync(self, replica, seq, reports):
        self.asked += 1
        if self.delay_s is None:
            raise LedgerLost("gone")
        await asyncio.sleep(self.delay_s)
        return await super().sync(replica, seq, reports)


def test_leases_are_renewed_before_they_run_out():
    """With a ledger 20 ms away, a steady load waits for the first lease and then hardly ever."""

    async def run():
        leases = Counted(Slow(0.02))
        leases.start()
        book, waited = leases.of(), 0
        for _ in range(300):
            if book.short(0.0005, time.monotonic()):
                waited += 1
                await leases.ask({book: (0.0005, 0.0005)}, 0.5)
            book.use(0.0005, time.monotonic())
            leases.touched(book)
            await asyncio.sleep(0.003)
        await leases.aclose()
        return waited, book.used

    waited, used = asyncio.run(run())
    assert used == pytest.approx(0.15)
    assert 1 <= waited <= 30


def test_what_nobody_needs_is_given_back():
    async def run():
        ledger = Slow(0)
        leases = Counted(ledger)
        leases.start()
        book = leases.of()
        await leases.ask({book: (0.01, 0.01)}, 0.5)
        held = book.free
        await asyncio.sleep(IDLE_S + 0.6)
        asked = ledger.asked
        await asyncio.sleep(0.6)
        (cell,) = ledger._cells.values()
        found = held, book.free, cell.committed, ledger.asked - asked
        await leases.aclose()
        return found

    held, free, committed, asked = asyncio.run(run())
    assert held > 0
    assert (free, committed) == (0, 0)
    assert asked == 0, "nothing to say, nothing said"


def test_a_ledger_that_hangs_or_fails_is_lost_and_comes_back():
    async def run():
        ledger, errors = Slow(None), []
        leases = Counted(ledger, failed=lambda: errors.append(1))
        leases.start()
        book = leases.of()
        begin = time.monotonic()
        await leases.ask({book: (0.01, 0.01)}, 5)
        assert leases.lost and book.free == 0 and time.monotonic() - begin < 2
        ledger.delay_s = 0
        await asyncio.sleep(0.8)
        assert not leases.lost and errors
        ledger.delay_s = 60
        begin = time.monotonic()
        await leases.ask({book: (0.5, 0.5)}, 5)
        assert leases.lost and SYNC_S * 0.9 < time.monotonic() - begin < 3 * SYNC_S
        ledger.delay_s = 0
        await leases.aclose()

    asyncio.run(run())


def test_requests_that_wait_together_are_asked_for_together():
    async def run():
        ledger = Slow(0.01)
        leases = Counted(ledger)
        leases.start()
        book = leases.of()
        admitted = 0

        async def one():
            nonlocal admitted
            until = time.monotonic() + 0.5
            while book.short(0.03, time.monotonic()) and time.monotonic() < until:
                await leases.ask({book: (0.03, 0.03)}, 0.5)
            if book.fits(0.03):
                book.reserve(0.03, time.monotonic())
                admitted += 1

        await asyncio.gather(*(one() for _ in range(50)))
        await leases.aclose()
        return admitted, ledger.asked

    admitted, asked = asyncio.run(run())
    assert admitted == 33, "as many as the budget has room for"
    assert asked < 60
