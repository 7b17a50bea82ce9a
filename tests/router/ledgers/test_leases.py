"""The arithmetic of leases, under everything that can happen to processes, to messages and to the ledger itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.ledgers.book import IDLE_S, TICK_S, Book
from router.ledgers.file import FileLedger
from router.ledgers.leases import GRACE_S, SPREAD, Cell, Report, fold

CAP, PERIOD_S = 1000.0, 3600.0
ROUNDING = 1e-8 * CAP
amounts = st.floats(0.001, 400)


def report(used=0.0, held=0.0, wanted=0.0, least=0.0, enough=0.0, last=False, end=PERIOD_S):
    return Report("a", end, CAP, used, held, wanted, least, enough, last)


class Replica:
    """A process: its book of the present period, the requests that are on their way, and what it has truly spent."""

    def __init__(self, name, end):
        self.name, self.seq = name, 0
        self.book = Book("a", "a", "usd", end)
        self.book.cap = CAP
        self.flying = []


class Interleavings(RuleBasedStateMachine):
    """Four processes and a ledger in a file. Anything may be lost, late, doubled or killed, in any order."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger"
        self.now, self.names = 0.0, 0
        self.ledger = FileLedger(self.path, lambda: self.now)
        self.spent, self.excess = {}, {}  # by period; excess: what answers cost beyond their estimate
        self.late = []
        self.replicas = [self.new() for _ in range(4)]

    def new(self):
        self.names += 1
        return Replica(f"r{self.names}", self.end)

    @property
    def end(self):
        return (self.now // PERIOD_S + 1) * PERIOD_S

    def at(self, i):
        one = self.replicas[i]
        if one.book.end < self.end:  # as Leases.book does; what is on its way belongs to the period before
            one.book = Replica("", self.end).book
        return one

    def tell(self, one, fate, last=False):
        one.seq += 1
        said = one.book.report(self.now, last)
        if said is None or fate == "lost":
            return
        if fate == "late":
            self.late.append((one.name, one.seq, said))
            return
        (grant,) = self.ledger.fold(one.name, one.seq, [said])
        if fate == "answered":
            one.book.granted_by(said, grant, self.now)

    fates = st.sampled_from(["answered", "answered", "answered", "lost", "late", "answer lost"])

    @rule(i=st.integers(0, 3), estimate=amounts, fate=fates)
    def request(self, i, estimate, fate):
        one = self.at(i)
        if one.book.short(estimate, self.now):
            one.book.asking[1] = (estimate, estimate)
            one.book.need, one.book.active_at = estimate, self.now
            self.tell(one, fate)
            one.book.asking.clear()
        if one.book.fits(estimate):
            one.book.reserve(estimate, self.now)
            one.flying.append((one.book, estimate))

    @rule(i=st.integers(0, 3), share=st.sampled_from([0, 0.3, 1, 1, 1.5]))
    def answer(self, i, share):
        one = self.at(i)
        if one.flying:
            book, estimate = one.flying.pop()
            actual = estimate * share
            book.release(book.settle(estimate, actual))
            self.spent[book.end] = self.spent.get(book.end, 0) + actual
            self.excess[book.end] = self.excess.get(book.end, 0) + max(0, actual - estimate)

    @rule(i=st.integers(0, 3), fate=fates)
    def sync(self, i, fate):
        self.tell(self.at(i), fate)

    @rule(i=st.integers(0, 3), fate=fates)
    def gives_back(self, i, fate):
        self.now += IDLE_S + 1
        self.tell(self.at(i), fate)

    @rule(i=st.integers(0, 3))
    def spends_all_it_can(self, i):
        self.now += TICK_S
        for amount in (300,) * 4 + (50,) * 6 + (5,) * 9:
            self.request(i, amount, "answered")

    @rule()
    def arrive_late(self):
        for name, seq, said in self.late:
            self.ledger.fold(name, seq, [said])
        self.late = []

    @rule(i=st.integers(0, 3))
    def kill_9(self, i):
        """Whoever was answering its requests bills them all the same."""
        for book, estimate in self.replicas[i].flying:
            self.spent[book.end] = self.spent.get(book.end, 0) + estimate
        self.replicas[i] = self.new()

    @rule(i=st.integers(0, 3), fate=fates)
    def end_well(self, i, fate):
        while self.replicas[i].flying:
            self.answer(i, 0.3)
        self.tell(self.at(i), fate, last=True)
        self.replicas[i] = self.new()

    @rule(torn=st.binary(max_size=5))
    def ledger_is_killed(self, torn):
        """With what a write that was under way may leave."""
        before = dict(self.ledger._cells)
        self.teardown_ledger()
        with self.path.open("ab") as file:
            file.write(torn.replace(b"\n", b""))
        self.ledger = FileLedger(self.path, lambda: self.now)
        assert all(self.ledger._cells[at] == cell for at, cell in before.items())

    @rule(seconds=st.sampled_from([0.1, TICK_S, IDLE_S + 1, IDLE_S + 1]))
    def time_goes_by(self, seconds):
        self.now += seconds

    @rule(rarely=st.integers(0, 9))
    def the_period_ends(self, rarely):
        if rarely == 9:
            self.now = self.end

    @invariant()
    def never_more_than_the_cap_and_what_estimates_missed(self):
        reserved = {}
        for one in self.replicas:
            for book, estimate in one.flying:
                reserved[book.end] = reserved.get(book.end, 0) + estimate
        for end in {*self.spent, *reserved}:
            most = CAP + self.excess.get(end, 0) + ROUNDING
            assert self.spent.get(end, 0) + reserved.get(end, 0) <= most

    def teardown_ledger(self):
        import asyncio

        asyncio.run(self.ledger.aclose())

    def teardown(self):
        self.teardown_ledger()
        self.folder.cleanup()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 3), amounts, amounts, st.booleans()), max_size=40))
def test_what_is_committed_never_falls_but_by_what_is_given_back(steps):
    """The ledger never un-counts: neither what was used nor what was leased and not given back."""
    cell = Cell()
    for seq, (replica, used, wanted, last) in enumerate(steps, 1):
        holder = cell.holders.get(f"r{replica}")
        used += holder.used if holder else 0.0
        before, was = cell, max(holder.granted, holder.used) if holder else 0.0
        cell, grant = fold(cell, f"r{replica}", seq, report(used, wanted=wanted, last=last), 0.0)
        assert cell.used >= before.used - ROUNDING
        assert cell.committed >= before.committed - max(0.0, was - used - wanted) - ROUNDING
        assert cell.committed <= max(CAP, before.committed + max(0, used - was)) + ROUNDING
        assert grant.granted >= used


def test_leases_shrink_towards_the_limit():
    cell, sizes = Cell(), []
    for seq in range(1, 30):
        used = cell.holders["r"].granted if cell.holders else 0.0  # all of it was spent
        cell, grant = fold(cell, "r", seq, report(used, wanted=CAP), 0.0)
        sizes.append(grant.granted - used)
    assert sizes[0] == CAP / SPREAD
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < CAP / 1000


def test_a_request_that_waits_gets_what_it_needs_while_there_is_so_much():
    cell, _ = fold(Cell(), "a", 1, report(used=990), 0.0)
    _, grant = fold(cell, "b", 1, report(wanted=9, least=9, enough=9), 0.0)
    assert grant.granted == 9
    _, grant = fold(cell, "b", 1, report(wanted=30, least=11, enough=30), 0.0)
    assert grant.granted < 2, "too large for what is left: nothing is held for it"


def test_a_report_that_comes_late_or_twice_changes_nothing():
    first, second = report(used=5, wanted=10), report(used=8, held=7, wanted=1)
    cell, _ = fold(Cell(), "a", 1, first, 0.0)
    cell, _ = fold(cell, "a", 2, second, 0.0)
    assert fold(cell, "a", 1, first, 0.0)[0] == cell
    assert fold(cell, "a", 2, second, 0.0) == (cell, (9.0, 8.0, CAP - 9))


def test_a_ledger_that_forgot_learns_from_those_that_live():
    cell = Cell()
    for name in "abc":
        cell, _ = fold(cell, name, 7, report(used=300, held=20, wanted=20), 0.0)
    assert (cell.used, cell.committed) == (900, 960)
    _, grant = fold(cell, "d", 1, report(wanted=500), 0.0)
    assert grant.granted <= 40


def test_a_period_that_is_over_grants_nothing():
    cell, grant = fold(Cell(), "a", 1, report(used=1, held=2, wanted=50), PERIOD_S + GRACE_S)
    assert (cell, grant.granted) == (Cell(), 3)


def test_an_idle_account_gives_back_what_it_holds():
    one = Replica("r", PERIOD_S)
    one.book.reserve(5, 100.0)
    ledger = FileLedger(None, lambda: 0.0)
    said = one.book.report(100.0)
    one.book.granted_by(said, ledger.fold("r", 1, [said])[0], 100.0)
    assert one.book.free > 0
    one.book.release(one.book.settle(5, 4))
    said = one.book.report(100.0 + IDLE_S + 1)
    assert said.wanted == 0 and one.book.free == 0
    ledger.fold("r", 2, [said])
    assert ledger._cells["a", PERIOD_S].committed == 4
