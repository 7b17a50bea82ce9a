"""What budgets and limits have used in their current period, as a decision is to see it; counted per quota and key.

A decision never waits here and takes no lock: it goes by what is leased to this process (`router/ledgers/`). A request
reserves its estimate when it is admitted, and is charged what its answers cost; what is left of the estimate is
released when it is over. So what is on its way counts, and belongs to the period in which it was admitted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import Gauge

from policies.calendar import period_end
from policies.compile import CompiledPolicy
from policies.estimate import cost_usd
from policies.quotas import Quota
from policies.types import Candidate, Decision, Request, Target
from router.ledgers.book import Book
from router.ledgers.client import WAIT_S, Leases
from router.telemetry.metrics import Metrics

_NOTHING: Mapping[tuple[int, str], float] = {}
_At = tuple[int, str]
"""A quota's index, and who counts together."""


class Ledger:
    """The books of one policy's quotas. Belongs to one event loop. What was counted for a quota of the same name, unit
    and period under another policy goes on counting: the books are those of the process."""

    def __init__(self, policy: CompiledPolicy, leases: Leases | None = None) -> None:
        self.leases = leases or Leases()
        self._alone = self.leases.central is None
        self._quotas = policy.quotas
        self._books: dict[_At, Book] = {}
        self._reserved: dict[str, dict[_At, tuple[Book, float]]] = {}  # by decision

    # --- before a decision ------------------------------------------------------------------------------------------

    def spent(self, request: Request, policy: CompiledPolicy, now: float) -> Mapping[_At, float]:
        """What the quotas that may apply to the request have used or reserved; what has used nothing is left out. Where
        less is leased than the request may need, everything beyond the lease counts as used."""
        if not self._quotas:
            return _NOTHING
        found: dict[_At, float] = {}
        for quota, at, targets in self._asked(request, policy):
            book = self._book(quota, at, now)
            used = book.known
            if not self._alone and quota.rejects and not (self.leases.lost and quota.on_loss == "local"):
                need = max(_needs(quota, request, targets), default=0.0)
                if not book.fits(need):
                    used = max(used, quota.cap - book.free)
            if used > 0:
                found[at] = used
        return found or _NOTHING

    def short(self, request: Request, policy: CompiledPolicy, now: float) -> Mapping[Book, tuple[float, float]]:
        """Where more has to be leased before the request is decided: how much it needs, at the cheapest backend and at
        the dearest. Empty as a rule, and where asking would not help."""
        if self._alone or self.leases.lost or not self._quotas:
            return {}
        found: dict[Book, tuple[float, float]] = {}
        for quota, at, targets in self._asked(request, policy):
            needs = _needs(quota, request, targets)
            if quota.rejects and needs and (book := self._book(quota, at, now)).short(max(needs), time.monotonic()):
                found[book] = min(needs), max(needs)
        return found

    async def ready(self, request: Request, policy: CompiledPolicy, now: float, deadline: float) -> None:
        """Wait until enough is leased, or it is known that there is not enough; at most WAIT_S, and no longer than
        the request has (monotonic clock)."""
        until = min(time.monotonic() + WAIT_S, deadline)
        while (needs := self.short(request, policy, now)) and (left_s := until - time.monotonic()) > 0:
            await self.leases.ask(needs, left_s)

    # --- after it ---------------------------------------------------------------------------------------------------

    def admit(self, id: str, decision: Decision, request: Request, now: float) -> None:
        """Count a request that is about to be sent, and reserve what it may use until `release`."""
        ticks = time.monotonic()
        for index in decision.quotas:
            quota = self._quotas[index]
            if quota.unit == "requests":
                book = self._book(quota, (index, quota.key(request, "")), now)
                book.use(1.0, ticks)
                self.leases.touched(book)
        self.reserve(id, decision, request, now)

    def reserve(self, id: str, decision: Decision, request: Request, now: float) -> None:
        """Keep what the attempts of the decision may use, until `release`."""
        ticks = time.monotonic()
        reserved: dict[_At, tuple[Book, float]] = {}
        for index in decision.quotas:
            quota = self._quotas[index]
            if quota.unit == "requests":
                continue
            for key, amount in _reservations(quota, decision, request).items():
                book = self._book(quota, (index, key), now)
                book.reserve(amount, ticks)
                reserved[index, key] = book, amount
                self.leases.touched(book)
        if reserved:
            self._reserved[id] = reserved

    def charge(
        self, id: str, decision: Decision, request: Request, backend: str, tokens: int, usd: float, now: float
    ) -> None:
        """Count what an answer used. A request may have several answers."""
        reserved = self._reserved.get(id, {})
        for index in decision.quotas:
            quota = self._quotas[index]
            if quota.unit == "requests" or not quota.covers(backend):
                continue
            at = index, quota.key(request, backend)
            amount = quota.amount(tokens, usd)
            book, left = reserved.get(at) or (self._book(quota, at, now), 0.0)
            left = book.settle(left, amount)
            if at in reserved:
                reserved[at] = book, left
            self.leases.touched(book)

    def release(self, id: str) -> None:
        """The request is over: what it has reserved and not used is free again. May be called twice."""
        for book, left in self._reserved.pop(id, {}).values():
            book.release(left)
            self.leases.touched(book)

    # --- for people -------------------------------------------------------------------------------------------------

    def publish(self, tell: Callable[[Gauge, tuple[str, ...], float], None], metrics: Metrics, now: float) -> None:
        """How its quotas stand, each over all its keys."""
        by_quota: dict[tuple[str, str], list[Book]] = {}
        for book in self.leases.books.values():
            if now < book.end:
                by_quota.setdefault((book.name, book.unit), []).append(book)
        for quota in self._quotas:
            labels = quota.name, quota.unit
            books = by_quota.get(labels, [])
            remaining = min([quota.cap - book.known for book in books], default=quota.cap)
            leased = 0.0 if self._alone else sum(max(0.0, book.granted - book.used) for book in books)
            tell(metrics.quota_used, labels, sum(book.elsewhere + book.used for book in books))
            tell(metrics.quota_remaining, labels, max(0.0, remaining))
            tell(metrics.quota_cap, labels, quota.cap)
            tell(metrics.quota_leased, labels, leased)

    # ----------------------------------------------------------------------------------------------------------------

    def _asked(self, request: Request, policy: CompiledPolicy) -> Iterator[tuple[Quota, _At, Sequence[Target]]]:
        """The accounts that the request may count against, and the targets that would do so."""
        plan = policy.plan(request)
        for quota in plan.quotas:
            if quota.each == "backend":
                for target in plan.targets:
                    if quota.covers(target.backend):
                        yield quota, (quota.index, target.backend), (target,)
            elif plan.targets:
                yield quota, (quota.index, quota.key(request, "")), plan.targets

    def _book(self, quota: Quota, at: _At, now: float) -> Book:
        book = self._books.get(at)
        if book is None or now >= book.end:
            account = f"{quota.name}/{quota.unit}/{quota.per}/{at[1]}"
            book = self._books[at] = self.leases.book(account, quota.name, quota.unit, period_end(quota.per, now))
            book.cap, book.hard = quota.cap, quota.rejects
        return book


def _needs(quota: Quota, request: Request, targets: Sequence[Target]) -> list[float]:
    tokens = request.tokens_in + request.tokens_out
    return [
        quota.amount(tokens, cost_usd(target, request.tokens_in, request.tokens_out))
        for target in targets
        if quota.covers(target.backend)
    ]


def _reservations(quota: Quota, decision: Decision, request: Request) -> dict[str, float]:
    """What the request may use of the quota, by key: of its attempts the dearest, since one of them answers; with a
    hedge or a cascade the two dearest, since two may."""
    found: dict[str, list[float]] = {}
    tokens = request.tokens_in + request.tokens_out

    def amount(candidate: Candidate) -> float:
        return quota.amount(tokens, candidate.estimate.cost_usd)

    for candidate in decision.attempts:
        if quota.covers(candidate.target.backend):
            found.setdefault(quota.key(request, candidate.target.backend), []).append(amount(candidate))
    answers = 1 if decision.strategy is None else 2
    return {key: sum(sorted(amounts)[-answers:]) for key, amounts in found.items()}
