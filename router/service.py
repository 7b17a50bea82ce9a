"""The service: labels, decides, executes, remembers; reloads its configuration. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from backends.calls import Backend, Call, Usage
from backends.errors import BackendError
from backends.registry import BUILDERS, Builder
from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.errors import ConfigurationError
from policies.tenants import ANONYMOUS, Tenant
from router.attempts import Ask, Result, Step
from router.billing import Bill, Counted
from router.candidate import Compared, Comparisons, Told
from router.configuration import Configuration
from router.decisionlog.record import Decided, Outcome, as_record
from router.decisionlog.writer import DecisionLog
from router.endings import Endings, Going, Over
from router.errors import ApiError
from router.hints import Hints
from router.identity import RawHeaders
from router.ledgers.central import CentralLedger, open_central
from router.ledgers.client import Leases
from router.live import Live
from router.orders import LOG_LEVEL, RELOAD, Orders, Reload
from router.recent import Ended, Recent, Remembered
from router.requests import Masked, build_request, deadline_ms
from router.scans import Scans, beside_the_loop
from router.settings import Settings
from router.shadow import Shadows
from router.sharing import CentralBoard, Sharing, View
from router.state import FleetState
from router.telemetry import logs
from router.telemetry.accounts import Accounts
from router.telemetry.energy import MeasuredEnergy
from router.telemetry.exposition import render
from router.telemetry.gauges import Gauges, expect
from router.telemetry.metrics import Metrics
from router.telemetry.trail import open_tracing
from router.wire.parsed import Parsed

log = logging.getLogger("pointsman")

_ENCODER = msgspec.json.Encoder()
_FOLD_S = 0.25
_RETIRE_S = 300.0
"""How long requests under a configuration that has been replaced may keep its backends open."""
Loader = Callable[[], Configuration]
"""Reads the configuration again. Called in a thread; raises ConfigurationError with every reason."""


class Service:
    """Everything between a parsed request and an answer. Belongs to one event loop."""

    def __init__(
        self,
        configuration: Configuration,
        settings: Settings | None = None,
        builders: Mapping[str, Builder] = BUILDERS,
        loader: Loader | None = None,
        writer: str = "main",
        central: CentralLedger | None = None,
        board: CentralBoard | None = None,
    ) -> None:
        """`writer` names this process among those that log decisions into one folder. `central` is the ledger that it
        shares budgets with others by, if it is not the one that the settings name; `board` where it tells them of the
        fleet. Raises OSError where the ledger cannot be opened."""
        self.settings = settings or Settings()
        self.metrics = Metrics()
        self.energy = MeasuredEnergy(self.metrics, self.settings.replicas)
        self.accounts = Accounts(self.metrics, self.energy)
        self.gauges = Gauges(self.metrics)
        self._builders, self._loader, self._writer = builders, loader, writer
        if central is None and self.settings.ledger is not None:
            central = open_central(self.settings.ledger)
        replica = f"{writer}-{secrets.token_hex(4)}"
        self.leases = Leases(central, replica, self.metrics.ledger_errors.inc)
        self.live = Live(configuration, self.metrics, builders, self.settings.probe_interval_s, leases=self.leases)
        self._sharing = None if board is None else Sharing(board, replica, self._view, self._hear)
        self.shadows = Shadows(self.metrics, self._execute, self._copied)
        self._ids = random.Random(secrets.randbits(256))  # names of decisions, no secrets: without a system call each
        self._folding: asyncio.Task[None] | None = None
        self.draining = False  # told to stop
        self.ended = False  # nothing is begun any more
        self.exchanges: set[Going] = set()
        self.endings = Endings(self._written_down)
        self._ended: list[Ended] = []  # whose records are made, and not put yet
        self.recent = Recent(self._going)
        self.log: DecisionLog | None = None
        self.orders = Orders({RELOAD: self.reload, LOG_LEVEL: logs.obey})
        self.tracing = open_tracing(self.settings, replica)
        self._reloading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._scans = Scans()
        self._comparisons = Comparisons(self.settings, self.metrics, self._scans.pool)
        expect(self.metrics, self.policy)

    @property
    def policy(self) -> CompiledPolicy:
        return self.live.policy

    @property
    def state(self) -> FleetState:
        return self.live.state

    @property
    def backends(self) -> Mapping[str, Backend]:
        return self.live.backends

    async def start(self) -> None:
        """Raises BackendError listing every backend that cannot start, OSError where no log can be written."""
        if self.settings.decision_log is not None:
            drop = self.metrics.decision_log_dropped.inc
            self.log = DecisionLog(self.settings.decision_log, self._writer, drop, lambda: self.endings.waiting)
        self._folding = asyncio.create_task(self._fold())
        self.leases.start()
        if self._sharing is not None:
            self._sharing.start()
        try:
            await self.live.start()
        except BaseException:
            await self.aclose()
            raise

    def end_requests(self) -> None:
        """Tell every request in progress that the router stops now."""
        self.ended = True
        for exchange in tuple(self.exchanges):
            exchange.end()

    async def aclose(self) -> None:
        for task in self._retiring:
            task.cancel()
        self.endings.settle()
        await asyncio.gather(*self._retiring, self._comparisons.aclose(), return_exceptions=True)
        self.endings.settle()
        await self.shadows.aclose()
        await self.live.aclose()
        if self._folding is not None:
            self._folding.cancel()
            self.metrics.fold()
        self._scans.close()
        await self.leases.aclose()
        if self._sharing is not None:
            await self._sharing.aclose()
        if self.log is not None:
            await asyncio.to_thread(self.log.close)
        if self.tracing is not None:
            await self.tracing.aclose()

    # --- one request ------------------------------------------------------------------------------------------------

    async def tenant(self, live: Live, headers: RawHeaders) -> Tenant:
        """Who asks. Raises ApiError 401, 400 or 503, counted."""
        try:
            return await live.identity.tenant(headers)
        except ApiError as error:
            reason = {"bad_request": "malformed", "identity_unavailable": "unavailable"}.get(error.code, "")
            self.metrics.unauthorized.labels(reason or getattr(error, "reason", "")).inc()
            raise

    def deadline(self, asked_ms: float | None, began: float) -> float:
        """Of a request that was there at `began`, on the monotonic clock."""
        return began + (self.settings.default_deadline_s if asked_ms is None else asked_ms / 1000)

    async def decide(
        self,
        live: Live,
        parsed: Parsed,
        hints: Hints,
        body_bytes: int,
        tenant: str = ANONYMOUS,
        began: float | None = None,
    ) -> tuple[Decided, Masked | None]:
        """Label the call of a tenant and decide where it goes; with the call as it may be sent where the decision is
        to mask it. Raises ApiError 403 where it asks for too much, 504 where its text takes longer than it has;
        its time runs from `began`."""
        begin, wall = time.perf_counter(), time.time()
        policy = live.policy
        decision_id = f"{self._ids.getrandbits(128):032x}"
        facts = (parsed, hints, policy, body_bytes, decision_id, wall, tenant)
        end = self.deadline(deadline_ms(parsed, hints), time.monotonic() if began is None else began)
        if beside_the_loop(body_bytes, policy):
            request, found, masked = await self._scans.build(*facts, end)
        else:
            request, found, masked = build_request(*facts)
        if live.ledger.short(request, policy, wall):  # rare: leases are renewed before they run out
            await live.ledger.ready(request, policy, wall, end)
        # No await from here to `admit`: what the decision saw as free must still be so.
        snapshot = live.state.snapshot(time.monotonic(), wall, live.ledger.spent(request, policy, wall))
        if self.leases.lost:
            snapshot = replace(snapshot, ledger_lost=True)
        decision = decide(request, snapshot, policy, self.settings.seed)
        if decision.refusal is None and decision.quotas:
            live.ledger.admit(decision_id, decision, request, wall)
        self.metrics.decision_seconds.observe((), time.perf_counter() - begin)
        self.metrics.labels.add((policy.levels[found.rank],))
        for kind, count in found.entities.items():
            self.metrics.entities.add((kind,), count)
        for detector in found.failed:
            self.metrics.detector_failures.labels(detector).inc()
        if found.declassified_from is not None:
            levels = policy.levels[found.declassified_from], policy.levels[found.rank]
            self.metrics.declassified.labels(tenant, *levels).inc()
        for name in decision.spilled:
            self.metrics.spills.add((name,))
        for rejection in decision.rejected:
            if rejection.filter != "capability":  # a backend that serves other models was never a candidate
                self.metrics.rejections.add((rejection.backend, rejection.filter))
        decided = Decided(decision_id, request, found, snapshot, decision, policy)
        if decision.transform is None or masked is None:
            return decided, None
        self.metrics.pseudonymised.inc(len(masked.pseudonyms.values))
        return decided, masked

    async def execute(
        self,
        live: Live,
        decided: Decided,
        call: Call,
        steps: list[Step],
        bill: Bill,
        began: float | None = None,
    ) -> Result:
        """The first good answer; a copy goes to the backend on trial where the decision says so. What is tried is added
        to `steps`, what it costs to `bill`."""
        self.shadows.copy(live, decided, call)
        return await self._execute(live, decided, call, bill, decided.request.deadline_ms, steps, began)

    async def resume(self, live: Live, decided: Decided, call: Call, steps: list[Step], bill: Bill) -> Result:
        """Of a stream that broke: the first good answer of those that are left in the decision."""
        return await self._execute(live, decided, call, bill, None, steps)

    async def _execute(
        self,
        live: Live,
        decided: Decided,
        call: Call,
        bill: Bill,
        asked_ms: float | None = None,
        steps: list[Step] | None = None,
        began: float | None = None,
    ) -> Result:
        ask = Ask(
            call,
            self.deadline(asked_ms, time.monotonic() if began is None else began),
            asked_ms is not None,
            decided.decision.priority,
            decided.request.tenant,
            Usage(decided.request.tokens_in, decided.request.tokens_out),
            [] if steps is None else steps,
        )
        try:
            return await live.executor.execute(decided.decision, ask)
        finally:
            for one in ask.wasted:  # hedges, escalations: what is not used is paid for all the same
                counted = Counted(one.told, one.seen)
                bill.charge(live, decided, "unused", one.candidate, counted, one.seconds)

    def concluded(self, live: Live, decided: Decided, outcome: Outcome, parsed: Parsed, headers: RawHeaders) -> None:
        """After the answer: what the candidate policy would have done, and the line in the decision log."""
        candidate = live.configuration.candidate
        if candidate is None:
            self._record(decided, outcome)
            return
        beside = beside_the_loop(decided.request.body_bytes, candidate)

        def told(other: Told) -> None:
            if beside:
                self.endings.put(Compared(decided, functools.partial(self._record, decided, outcome, other)))
            else:
                self._record(decided, outcome, other)

        self._comparisons.compare(candidate, Remembered(decided, outcome), parsed, headers, beside, told)

    def _record(self, decided: Decided, outcome: Outcome, other: Told = None) -> None:
        self._ended.append((decided.id, _ENCODER.encode(as_record(decided, outcome, other)), decided.policy))

    def _going(self) -> list[Remembered]:
        requests: tuple[Going | Over, ...] = (*self.exchanges, *self.endings.untold)
        return [*self._comparisons.waiting, *(Remembered(one.decided) for one in requests if one.decided is not None)]

    def _written_down(self) -> None:
        ended, self._ended = self._ended, []
        self.recent.end(ended)
        if self.log is not None and ended:
            self.log.put(*[record for _, record, _ in ended])

    def _copied(self, decided: Decided, bill: Bill) -> None:
        """What a copy has cost, and its line in the decision log: its request's own may be there already."""
        self.accounts.copied(bill.charges)
        if self.log is not None:
            of = {"of": decided.id.partition("/")[0], "policy": decided.policy.digest}
            self.log.put(msgspec.json.encode({"event": "copy", "at": time.time(), **of, "charges": bill.charges}))

    async def _fold(self) -> None:
        """For other replicas on this node, of which any may be asked for the metrics of all."""
        while True:
            try:
                self._publish()
                self.metrics.fold()
            except Exception:  # a defect there must not end it
                log.exception("the metrics could not be written")
            await asyncio.sleep(_FOLD_S)

    def _publish(self) -> None:
        self.gauges.publish(self.live, None if self.log is None else self.log.queued)
        self.energy.backends = self.live.in_process(self._builders)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics as they are now, in the format that an Accept header asks for, and its content-type."""
        self.endings.settle()
        self._publish()
        return render(self.metrics, accept)

    def _view(self) -> View:
        return self.live.state.view(time.monotonic())

    def _hear(self, others: View, until: float) -> None:
        self.live.state.hear(others, until, time.monotonic())

    # --- the fleet --------------------------------------------------------------------------------------------------

    def readiness(self) -> dict[str, Any]:
        """Ready with a policy, which a service always has, and at least one backend that answers, until it stops."""
        reachable = self.state.reachable(time.monotonic())
        unreachable = [name for name in self.backends if name not in reachable]
        return {"ready": bool(reachable) and not self.draining, "reachable": reachable, "unreachable": unreachable}

    @property
    def serving(self) -> bool:
        """Whether requests are to be sent here: until it stops, whatever its backends do. Without any it still says
        why it refuses, which a port that is taken out of service does not."""
        return not self.draining

    def model_ready(self, model: str) -> bool:
        reachable = set(self.state.reachable(time.monotonic()))
        return any(target.model == model and target.backend in reachable for target in self.policy.targets)

    # --- reload -----------------------------------------------------------------------------------------------------

    async def reload_everywhere(self) -> Reload:
        """In every process of the router, this one included: what came of it, the worst if they differ."""
        results: list[Reload] = await self.orders.everywhere(RELOAD)
        return min(results, key=lambda one: ("refused", "swapped", "unchanged").index(one.outcome))

    async def reload(self) -> Reload:
        """Read the configuration again and swap it in whole. One that is bad in any way is refused; the live one
        stays."""
        if self._loader is None:
            return Reload("refused", self.policy.digest, ("this router was started without files to reload",))
        async with self._reloading:
            try:
                result = await self._reload(self._loader)
            except Exception as error:  # a defect here must not end the watch over the files, nor go unseen
                log.exception("reload failed")
                result = Reload("refused", self.policy.digest, (f"the reload failed: {type(error).__name__}",))
        self.metrics.reloads.labels(result.outcome).inc()
        self.metrics.configuration_stale.set(result.outcome == "refused")
        if result.outcome == "refused":
            told = "\n".join(result.problems)
            log.error("reload refused, policy %s stays: %d problem(s)\n%s", result.policy, len(result.problems), told)
        elif result.outcome == "swapped":
            log.warning("policy %s is live", result.policy)
        return result

    async def _reload(self, loader: Loader) -> Reload:
        old = self.live
        try:
            configuration = await asyncio.to_thread(loader)
        except ConfigurationError as error:
            return Reload("refused", old.policy.digest, tuple(str(problem) for problem in error.problems))
        if configuration.same_as(old.configuration):
            return Reload("unchanged", old.policy.digest)
        try:
            live = Live(configuration, self.metrics, self._builders, self.settings.probe_interval_s, old)
            await live.start()
        except BackendError as error:
            return Reload("refused", old.policy.digest, (str(error),))
        self.live = live
        expect(self.metrics, live.policy)
        self._publish()
        task = asyncio.create_task(old.retire(live, _RETIRE_S))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return Reload("swapped", live.policy.digest)
