"""One dollar, shared by four processes under full load: is more than it spent, and by how much?

    python -m benchmarks.budgets [file | redis] …

Each process decides by the code that serves, with no HTTP around it, and answers after 0 to 4 ms. The ledger is a
process of its own: one that keeps a file, or a redis-server. Exit status 1 where more was spent than the stated bound,
or where a lease is still out after all have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import multiprocessing
import random
import struct
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from policies.calendar import period_end
from policies.compile import CompiledPolicy, compile_or_raise
from policies.decide import decide
from policies.source import parse
from policies.types import Request, Snapshot
from router.demo.processes import free_port
from router.ledger import Ledger
from router.ledgers.central import CentralLedger, LedgerLost, open_central
from router.ledgers.client import Leases
from router.ledgers.file import FileLedger
from router.ledgers.leases import Grant, Report
from tests.router.ledgers.redis_server import BINARY, RedisServer

CAP, PRICE, PROCESSES, CLIENTS = 1.0, 0.00002, 4, 16
IDLE_S = 4
"""Nothing admitted for so long: the budget is used up."""
POLICY = f"""
apiVersion: pointsman/v1
kind: Fleet
backends:
  - {{name: cloud, tier: cloud, region: us, protocol: fake, models: {{chat: {{task: chat}}}},
     price: {{per_request: {PRICE}}}, limits: {{max_in_flight: 1000}}}}
---
apiVersion: pointsman/v1
kind: Policy
budgets: [{{name: dollar, usd: {CAP}, per: month}}]
"""


@dataclass(frozen=True)
class Scenario:
    name: str
    least: float = 1.0  # what an answer costs, as a share of its estimate
    most: float = 1.0
    kill_ledger: tuple[float, ...] = ()  # seconds after the start
    kill_process: float | None = None
    alone: bool = False

    @property
    def bound(self) -> float:
        """Requests in flight, times what each may cost beyond its estimate."""
        return PROCESSES * CLIENTS * PRICE * max(0.0, self.most - 1)


SCENARIOS = (
    Scenario("each counts for itself", alone=True),
    Scenario("answers cost their estimate"),
    Scenario("answers cost a tenth to all of it", 0.1, 1.0),
    Scenario("answers cost half to twice", 0.5, 2.0),
    Scenario("ledger killed (-9) three times", 0.1, 1.0, kill_ledger=(0.5, 2.0, 3.5)),
    Scenario("one process killed (-9)", 0.1, 1.0, kill_process=1.0),
)


# --- the ledger's process -----------------------------------------------------------------------------------------


def serve_file(path: Path, socket: Path) -> None:
    """A FileLedger behind a Unix socket: frames of MessagePack."""

    async def main() -> None:
        ledger = FileLedger(path)

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    (size,) = struct.unpack("<I", await reader.readexactly(4))
                    raw = await reader.readexactly(size)
                    replica, seq, reports = msgspec.msgpack.decode(raw, type=tuple[str, int, list[Report]])
                    answer = msgspec.msgpack.encode(await ledger.sync(replica, seq, reports))
                    writer.write(struct.pack("<I", len(answer)) + answer)

        await (await asyncio.start_unix_server(client, socket)).serve_forever()

    socket.unlink(missing_ok=True)
    asyncio.run(main())


class Remote:
    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def sync(self, replica: str, seq: int, reports: Sequence[Report]) -> list[Grant]:
        streams, self._streams = self._streams, None
        try:
            reader, writer = streams or await asyncio.open_unix_connection(self._socket)
            said = msgspec.msgpack.encode((replica, seq, reports))
            writer.write(struct.pack("<I", len(said)) + said)
            (size,) = struct.unpack("<I", await reader.readexactly(4))
            grants = msgspec.msgpack.decode(await reader.readexactly(size), type=list[Grant])
        except (OSError, asyncio.IncompleteReadError) as error:
            raise LedgerLost(type(error).__name__) from None
        self._streams = reader, writer
        return grants

    async def aclose(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


class LedgerProcess:
    """Either kind, to be started, killed and asked."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self._folder = kind, folder
        self.where = str(folder / "socket")
        if kind == "redis":
            self._redis = RedisServer(folder, free_port())
            self.where = self._redis.url

    def start(self) -> None:
        if self.kind == "redis":
            return self._redis.start()
        arguments = (self._folder / "ledger", Path(self.where))
        self._process = multiprocessing.get_context("spawn").Process(target=serve_file, args=arguments, daemon=True)
        self._process.start()
        while not self.answers():
            time.sleep(0.01)

    def answers(self) -> bool:
        with contextlib.suppress(LedgerLost):
            asyncio.run(self._ask())
            return True
        return False

    async def _ask(self, *reports: Report) -> list[Grant]:
        central = connect(self.kind, self.where)
        try:
            return await central.sync("asks", 1, reports)
        finally:
            await central.aclose()

    def kill(self) -> None:
        if self.kind == "redis":
            return self._redis.kill()
        self._process.kill()
        self._process.join()

    def known(self) -> tuple[float, float]:
        """What it says is used, and what is leased beyond that."""
        account, end = "dollar/usd/month/", period_end("month", time.time())
        (grant,) = asyncio.run(self._ask(Report(account, end, 10 * CAP, 0, 0, 0, 0, 0, True)))
        return grant.used, 10 * CAP - grant.left - grant.used


def connect(kind: str, where: str) -> CentralLedger:
    return open_central(where) if kind == "redis" else Remote(Path(where))


# --- the routers' processes -----------------------------------------------------------------------------------------


class Router:
    def __init__(self, central: CentralLedger | None, i: int, spent: Any, scenario: Scenario) -> None:
        self.policy = compiled()
        self.leases = Leases(central, f"r{i}-{time.time_ns()}")
        self.ledger = Ledger(self.policy, self.leases)
        self.snapshot = Snapshot((None,), (0,), (None,))
        self.draw, self.i, self.spent, self.scenario = random.Random(i), i, spent, scenario
        self.admitted = self.waited = 0
        self.seconds: list[float] = []
        self.latest = time.monotonic()

    async def run(self) -> None:
        self.leases.start()
        await asyncio.gather(*(self.client(n) for n in range(CLIENTS)))
        await self.leases.aclose()

    async def client(self, n: int) -> None:
        policy, ledger, count = self.policy, self.ledger, 0
        while time.monotonic() - self.latest < IDLE_S:
            count += 1
            wall, request = time.time(), Request(f"{n}-{count}", "chat", "chat")
            if ledger.short(request, policy, wall):
                self.waited += 1
                await ledger.ready(request, policy, wall, time.monotonic() + 10)
            began = time.perf_counter()
            spent = ledger.spent(request, policy, wall)
            counted = time.perf_counter() - began
            decision = decide(request, replace(self.snapshot, now=wall, spent=spent), policy)
            if decision.refusal is not None:
                await asyncio.sleep(0.005)
                continue
            began = time.perf_counter()
            ledger.admit(request.id, decision, request, wall)
            self.seconds.append(counted + time.perf_counter() - began)
            self.admitted, self.latest = self.admitted + 1, time.monotonic()
            await asyncio.sleep(self.draw.uniform(0, 0.004))
            cost = PRICE * self.draw.uniform(self.scenario.least, self.scenario.most)
            ledger.charge(request.id, decision, request, "cloud", 0, cost, wall)
            self.spent[self.i] += cost
            ledger.release(request.id)


def compiled() -> CompiledPolicy:
    documents, problems = parse(textwrap.dedent(POLICY), "budgets.yaml", {})
    assert not problems
    return compile_or_raise(documents, ZoneInfo)


def route(kind: str, where: str, i: int, spent: Any, scenario: Scenario, results: Any) -> None:
    async def main() -> None:
        router = Router(None if scenario.alone else connect(kind, where), i, spent, scenario)
        await router.run()
        seconds = sorted(router.seconds)
        results.put((router.admitted, router.waited, seconds[len(seconds) // 2] if seconds else 0.0, router.latest))

    asyncio.run(main())


@contextlib.contextmanager
def ledger_of(kind: str) -> Iterator[LedgerProcess]:
    with tempfile.TemporaryDirectory() as folder:
        ledger = LedgerProcess(kind, Path(folder))
        ledger.start()
        try:
            yield ledger
        finally:
            ledger.kill()


def measure(kind: str, scenario: Scenario) -> bool:
    context = multiprocessing.get_context("spawn")
    spent = context.Array(ctypes.c_double, PROCESSES, lock=False)
    results: Any = context.Queue()
    with ledger_of(kind) as ledger:
        processes: list[BaseProcess] = []
        for i in range(PROCESSES):
            arguments = (kind, ledger.where, i, spent, scenario, results)
            processes.append(context.Process(target=route, args=arguments, daemon=True))
            processes[-1].start()
        while not all(spent):
            if not any(process.is_alive() for process in processes):
                raise SystemExit("every process ended before it had spent anything")
            time.sleep(0.01)
        begin, kills = time.monotonic(), []
        for at in scenario.kill_ledger:
            time.sleep(max(0.0, begin + at - time.monotonic()))
            kills.append(sum(spent))
            ledger.kill()
            time.sleep(0.3)
            ledger.start()
        if scenario.kill_process is not None:
            time.sleep(scenario.kill_process)
            processes[0].kill()
        for process in processes:
            process.join()
        used, leased = (0.0, 0.0) if scenario.alone else ledger.known()
    counts = [results.get() for _ in range(PROCESSES - (scenario.kill_process is not None))]
    total = sum(spent)
    over = max(0.0, total - CAP)
    waited = sum(count[1] for count in counts) / sum(count[0] for count in counts)
    took = max(count[3] for count in counts) - begin
    micros = sum(count[2] for count in counts) / len(counts) * 1e6
    name = scenario.name if not scenario.alone else f"{scenario.name} (as before)"
    known = "" if scenario.alone else f"{used:10.6f}{abs(leased):10.6f}"
    bound = "-" if scenario.alone else f"{scenario.bound:.6f}"
    print(
        f"{kind:6s}{name:36s}{total:10.6f}{over:10.6f}{bound:>10s}{known:20s}{waited:8.1%}{micros:8.1f}{took:6.1f}",
        flush=True,
    )
    if kills:
        print(f"{'':6s}  killed when ${', $'.join(f'{at:.2f}' for at in kills)} were spent", flush=True)
    # What a killed process had used and not yet said, and its lease, count as spent: never less than was spent.
    honest = used >= total - 1e-6
    return scenario.alone or (over <= scenario.bound + 1e-6 and leased < 1e-6 and honest) or (
        scenario.kill_process is not None and over <= scenario.bound + 1e-6 and used + leased >= total - 1e-6
    )  # fmt: skip


def main() -> int:
    kinds = sys.argv[1:] or ["file", *(["redis"] if BINARY else [])]
    widths = {"spent $": 10, "over $": 10, "bound $": 10, "counted $": 10, "leased $": 10, "waited": 8, "µs": 8, "s": 6}
    heads = "".join(f"{head:>{width}s}" for head, width in widths.items())
    print(f"{'ledger':6s}{'':36s}{heads}")
    good = [measure(kind, one) for kind in kinds for one in SCENARIOS if kind == kinds[0] or not one.alone]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
