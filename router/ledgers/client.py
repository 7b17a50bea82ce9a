"""Leases of one process: fetched before they run out, in the background, and given back when nobody needs them.

Requests decide by what is leased, without waiting. Only one that finds too little waits, for one answer of the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping

from router.ledgers.book import TICK_S, Book
from router.ledgers.central import CentralLedger, LedgerLost

log = logging.getLogger("pointsman")

SYNC_S = 1.0
"""How long the central ledger may take to answer before it counts as lost."""
WAIT_S = 0.5
"""How long a request waits for a lease."""


class Leases:
    """The books of this process. Belongs to one event loop; one report is on its way at a time."""

    def __init__(
        self,
        central: CentralLedger | None = None,
        replica: str = "main",
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Without a central ledger this process is alone, and its leases are the caps. `replica` must be new with every
        start. `failed` is called for each report that got no answer."""
        self.central = central
        self.lost = False
        self.books: dict[str, Book] = {}
        self._replica, self._failed = replica, failed
        self._seq = self._asks = 0
        self._touched: dict[Book, None] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Give back what is not used."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.central is not None:
            with contextlib.suppress(LedgerLost):
                await self._sync(list(self.books.values()), last=True)
            await self.central.aclose()

    def book(self, account: str, name: str, unit: str, end: float) -> Book:
        """Of the account in the period that ends then. The one before is forgotten, and its lease with it: a lease is
        for one period."""
        found = self.books.get(account)
        if found is None or found.end < end:
            found = self.books[account] = Book(account, name, unit, end)
        return found

    def touched(self, book: Book) -> None:
        """It has been used: report it, and at once where little is left."""
        if self.central is None:
            return
        self._touched[book] = None
        if book.hard and book.free < book.low and time.monotonic() >= book.denied_until:
            self._wake.set()

    async def ask(self, needs: Mapping[Book, tuple[float, float]], timeout_s: float) -> None:
        """Wait for the next answer of the central ledger to what is asked for now, or as long as that."""
        waiter = asyncio.get_running_loop().create_future()
        self._asks += 1
        number = self._asks
        for book, need in needs.items():
            book.asking[number] = need
            book.need, book.active_at = max(book.need, need[1]), time.monotonic()
            self._touched[book] = None
        self._waiters.append(waiter)
        self._wake.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await waiter
        finally:
            for book in needs:
                book.asking.pop(number, None)

    # --- in the background ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        full = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            now = time.monotonic()
            if now >= full + TICK_S:
                full = now
                self._forget(time.time())
                self._touched.update(dict.fromkeys(self.books.values()))
            if self.central is not None:
                books, self._touched = list(self._touched), {}
                waiters, self._waiters = self._waiters, []
                await self._tell(books)
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)
                if self.lost:
                    await asyncio.sleep(TICK_S)

    async def _tell(self, books: list[Book]) -> None:
        try:
            await self._sync(books)
        except Exception as error:  # a defect, too, must not end the background, nor go unseen
            self._touched.update(dict.fromkeys(books))
            self._failed()
            if not self.lost:  # once per outage
                why = str(error) if isinstance(error, LedgerLost) else type(error).__name__
                log.error("the ledger of budgets is lost: %s", why)
            self.lost = True

    def _forget(self, now: float) -> None:
        for account in [account for account, book in self.books.items() if now >= book.end]:
            del self.books[account]

    async def _sync(self, books: list[Book], last: bool = False) -> None:
        assert self.central is not None
        now = time.monotonic()
        told = [(book, report) for book in books if (report := book.report(now, last)) is not None]
        if not told and not self.lost:
            return
        self._seq += 1
        try:
            async with asyncio.timeout(SYNC_S):
                grants = await self.central.sync(self._replica, self._seq, [report for _, report in told])
        except TimeoutError:
            raise LedgerLost(f"no answer within {SYNC_S:g} s") from None
        now = time.monotonic()
        for (book, report), grant in zip(told, grants, strict=True):
            book.granted_by(report, grant, now)
        if self.lost:
            log.warning("the ledger of budgets answers again")
            self.lost = False
