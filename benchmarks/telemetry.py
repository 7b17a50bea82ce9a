"""What telemetry costs a request: the router's whole pipeline without sockets, with a part of it taken out by turns.

Run: .venv/bin/python -m benchmarks.telemetry [rounds]

20 rules, 10 backends, the scan on, a backend that answers at once; metrics are folded four times a second, as when
serving. CPU-µs of a request, the best of rounds that alternate (whatever else the machine does only adds), and what
each part adds. Tracing is off (see `benchmarks/tracing.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import uvloop

from backends.calls import Answer, Usage
from backends.registry import BUILDERS
from benchmarks.peers import pointsman
from benchmarks.peers.upstream import MODEL
from policies.estimate import cost_usd
from policies.types import Candidate
from router.app import DataApp
from router.billing import Bill, Counted
from router.decisionlog.record import Decided
from router.decisionlog.writer import LogSettings
from router.exchange import Exchange
from router.http.connection import ServerConnection
from router.http.server import HttpServer
from router.live import Live
from router.loading import ConfigurationLoader
from router.process import settle
from router.service import Service
from router.settings import Settings
from router.telemetry.accounts import Account, Accounts, EndedKey
from router.telemetry.gauges import Gauges
from router.telemetry.tallies import Distribution, Tally

REQUESTS = 1500
_TEXT = "Summarise the minutes of the last meeting in five sentences, and name what was left open. " * 5
_BODY = msgspec.json.encode({"model": MODEL, "messages": [{"role": "user", "content": _TEXT}], "max_tokens": 64})
_RAW = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)


class AtOnce:
    """A backend that has the answer already."""

    def __init__(self, spec: Any, folder: Path, api_key: str | None) -> None:
        self.spec = spec
        self._answer = Answer(body=b'{"choices": []}', usage=Usage(120, 64))

    async def start(self) -> None: ...

    async def probe(self) -> None: ...

    async def metadata(self, model: str) -> None: ...

    async def aclose(self) -> None: ...

    async def send(self, call: Any) -> Answer:
        return self._answer


class Nowhere(asyncio.Transport):
    """A client's end without a socket."""

    def __init__(self, answered: Callable[[], None]) -> None:
        super().__init__()
        self._answered = answered

    def write(self, data: Any) -> None:
        self._answered()

    def writelines(self, data: Any) -> None:
        self._answered()

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...


_ALIKE = Account(EndedKey("", "", "", "", "", "", "", "ok"))


def _nothing(*_: object, **__: object) -> Account:
    """Whoever is given it looks at nothing but the key."""
    return _ALIKE


def _priced(
    bill: Bill, live: Live, decided: Decided, purpose: str, candidate: Candidate, counted: Counted, s: float
) -> None:
    """What is left of a charge without telemetry: the answer's header says what it cost."""
    usage = counted.told or Usage(decided.request.tokens_in, decided.request.tokens_out)
    bill.usd += cost_usd(candidate.target, *usage, s)


Part = tuple[type, str] | tuple[type, str, Callable[..., Any]]
"""A function, and what to put in its place if it is not nothing."""


@contextlib.contextmanager
def without(*parts: Part) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for owner, name, *instead in parts:
            stack.enter_context(mock.patch.object(owner, name, *(instead or [_nothing])))
        yield


METRICS = (
    *((Tally, one) for one in ("add", "fold")),
    *((Distribution, one) for one in ("observe", "fold")),
    *((Accounts, one) for one in ("count", "ended", "fold")),
    (Gauges, "publish"),
)
RECORD = ((Service, "concluded"),)
BOOKS = ((Exchange, "_count"), (Exchange, "_conclude"), (Bill, "charge", _priced))
VARIANTS: dict[str, tuple[Part, ...]] = {
    "everything": (),
    "without metrics": METRICS,
    "without the decision's record": RECORD,
    "without both, and what is only for them": METRICS + RECORD + BOOKS,
}


async def _round(app: DataApp, parts: tuple[Part, ...]) -> float:
    """CPU-µs of a request."""
    written = 0

    def answered() -> None:
        nonlocal written
        written += 1

    connection = ServerConnection(HttpServer(app, None))
    connection.connection_made(Nowhere(answered))
    raw = _RAW % (len(_BODY), _BODY)
    with without(*parts):
        gc.collect()
        began = time.process_time()
        for i in range(REQUESTS):
            connection.data_received(raw)
            while written <= i:  # noqa: ASYNC110  (an event would cost more than what is measured)
                await asyncio.sleep(0)
        return (time.process_time() - began) / REQUESTS * 1e6


async def _main(rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = pointsman.configuration(Path(name), 9)
        builders = {**BUILDERS, "openai": AtOnce}
        settings = Settings(decision_log=LogSettings(Path(name) / "log", keep_files=1))
        service = Service(ConfigurationLoader((folder,), {})(), settings, builders)
        await service.start()
        app = DataApp(service)
        settle()
        taken: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for one in range(rounds + 1):
            for variant, parts in VARIANTS.items():
                cost = await _round(app, parts)
                if one:  # the first warms up
                    taken[variant].append(cost)
        await service.aclose()
    return {variant: min(costs) for variant, costs in taken.items()}


def measure(rounds: int = 25) -> dict[str, float]:
    """CPU-µs of a request, by what is left out."""
    return uvloop.run(_main(rounds))


if __name__ == "__main__":
    found = measure(*(int(rounds) for rounds in sys.argv[1:2]))
    for variant, cost in found.items():
        less = found["everything"] - cost
        print(f"{variant:44}{cost:8.1f} µs" + (f"   ({less:.1f} µs less)" if less else ""))
