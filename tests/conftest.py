"""What tests share: building policies from text, and a router on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import uvloop
from hypothesis import settings
from prometheus_client.parser import text_string_to_metric_families

from backends.registry import BUILDERS, Builder
from policies.compile import CompiledPolicy, compile_or_raise
from policies.errors import ConfigurationError
from policies.source import parse
from policies.types import Request, Snapshot
from router.cli import main
from router.configuration import Configuration, load
from router.ledgers.central import CentralLedger
from router.server import Listeners, bind
from router.service import Loader, Service
from router.settings import Settings
from router.sharing import CentralBoard

settings.register_profile("shared-machine", deadline=None)  # a slow moment of the machine is no failure
settings.load_profile("shared-machine")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


HEAVY = (
    "tests/chaos/", "tests/helm/test_chart_ray.py", "tests/prometheus/test_live.py", "tests/router/test_ray_",
    "tests/router/test_serve_config.py", "tests/router/demo/test_demo_end_to_end.py",
)  # fmt: skip
"""Tests that start many processes, or measure under load: two of them at once would be in each other's way."""


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> None:
    """The demo ignores it while it stops; where that ran in this process, every process started later would, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers (`-n 2 --dist loadfile`) one takes all the heavy files, first, and the others the rest."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "heavy" if nodeid.startswith(HEAVY) else str(super()._split_scope(nodeid))

        def _assign_work_unit(self, node: Any) -> None:
            if "heavy" in self.workqueue:
                self.workqueue.move_to_end("heavy", last=False)
            super()._assign_work_unit(node)

    return Scheduling(config, log)


def compile_text(text: str, env: dict[str, str] | None = None) -> CompiledPolicy:
    """A policy from YAML; documents may leave out apiVersion."""
    text = textwrap.dedent(text).replace("kind: ", "apiVersion: pointsman/v1\nkind: ")
    documents, problems = parse(text, "test.yaml", env or {})
    if problems:
        raise ConfigurationError(problems)
    return compile_or_raise(documents, ZoneInfo)


def idle(policy: CompiledPolicy, **down: str) -> Snapshot:
    """A fleet at rest; `down` names backends (with _ for -) and why they are unavailable."""
    names = [backend.name for backend in policy.fleet.backends]
    reasons = {name.replace("_", "-"): why for name, why in down.items()}
    return Snapshot(tuple(reasons.get(name) for name in names), (0,) * len(names), (None,) * len(policy.targets))


def request(model: str = "chat", task: str = "chat", **facts: object) -> Request:
    return Request("r-1", model, task, **facts)  # type: ignore[arg-type]


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str, str]:
    """`pointsman ARGUMENTS…` in this process: (exit status, stdout, stderr), and never a traceback."""
    try:
        status: Any = main([str(argument) for argument in arguments])
    except SystemExit as ended:
        status = ended.code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


THREE_TIERS = """
kind: Fleet
backends:
  - name: edge
    tier: edge
    region: jp-east
    clearance: restricted
    protocol: fake
    models: {chat: {task: chat, quality: 0.3, licence: {commercial_use: true}}}
    latency: {prior_ms: 50}
    price: {reserved_per_hour: 0.36, capacity_rps: 1}
  - name: onprem
    tier: onprem
    region: jp-west
    clearance: confidential
    protocol: fake
    models: {chat: {task: chat, quality: 0.6, licence: {commercial_use: false}}}
    latency: {prior_ms: 200}
    limits: {max_in_flight: 2, max_queued: 1}
  - name: cloud
    tier: cloud
    region: us-east-1
    protocol: fake
    models: {chat: {task: chat, quality: 0.9}}
    latency: {prior_ms: 400}
    price: {input_per_mtok: 1, output_per_mtok: 2}
    labels: {vendor: acme}
"""
"""An edge that may see everything, an on-prem up to confidential, a cloud without a stated clearance."""


class Router:
    """The local engine's service on real sockets of its own, in a thread with its own event loop."""

    def __init__(
        self,
        configuration: Configuration,
        settings: Settings,
        builders: Mapping[str, Builder],
        loader: Loader | None = None,
        central: CentralLedger | None = None,
        board: CentralBoard | None = None,
    ) -> None:
        self._data, self._admin = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
        self.port, self.admin_port = self._data.getsockname()[1], self._admin.getsockname()[1]
        self.url, self.admin_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        self._configuration, self._settings, self._builders = configuration, settings, builders
        self._loader, self._central, self._board = loader, central, board
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Router:
        self._thread.start()
        assert self._ready.wait(30)
        if self._error is not None:
            raise self._error
        return self

    def _run(self) -> None:
        try:
            uvloop.run(self._main())
        except BaseException as error:  # handed to the test's thread
            self._error = error
            self._ready.set()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        given = self._configuration, self._settings, self._builders, self._loader
        self.service = Service(*given, central=self._central, board=self._board)
        await self.service.start()
        listeners = Listeners(self.service, self._data, self._admin)
        await listeners.start()
        self._ready.set()
        await self._stop.wait()
        await listeners.stop()
        await self.service.aclose()

    def stop(self) -> None:
        """Begin to stop; `join` waits for the end of it."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has come to its end just now
                self.loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def backend(self, name: str) -> Any:
        """The backend behind the guard."""
        return self.service.backends[name]._backend  # type: ignore[attr-defined]

    def call(
        self,
        method: str,
        path: str,
        body: bytes | object = b"",
        headers: dict[str, str] | None = None,
        *,
        admin: bool = False,
    ) -> Reply:
        """One request by the standard library's client. A body that is not bytes goes as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} | (headers or {})
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port if admin else self.port, timeout=20)
        try:
            connection.request(method, path, raw, sent)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def chat(self, text: str = "hello", headers: dict[str, str] | None = None, **fields: object) -> Reply:
        body = {"model": "chat", "messages": [{"role": "user", "content": text}]} | fields
        return self.call("POST", "/v1/chat/completions", body, headers)

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of /metrics, as prometheus-client's own parser reads it."""
        text = self.call("GET", "/metrics", admin=True).body.decode()
        families = text_string_to_metric_families(text)
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def count(self, name: str, **labels: str) -> float:
        """Sum of the samples of `name` that carry these labels."""
        return sum(v for (n, found), v in self.metrics().items() if n == name and set(labels.items()) <= found)


def egress_blocked(service: Service) -> float:
    """How often the guard stopped a call, at any backend."""
    return sum(sample.value for sample in service.metrics.egress_blocked.collect()[0].samples)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def backend(self) -> str | None:
        return self.headers.get("x-pointsman-backend")


@pytest.fixture(scope="session")
def stopping() -> Iterator[list[Router]]:
    """Routers on their way down. Each takes 0.2 s, so they are waited for together and not after every test."""
    routers: list[Router] = []
    yield routers
    for router in routers:
        router.join()


@pytest.fixture
def start_router(tmp_path: Path, stopping: list[Router]) -> Iterator[Callable[..., Router]]:
    """Starts routers from YAML text (apiVersion may be left out); all are stopped with the test.

    `files` is a folder whose files the configuration may name."""
    routers: list[Router] = []

    def start(
        text: str,
        *,
        env: dict[str, str] | None = None,
        builders: Mapping[str, Builder] = BUILDERS,
        files: Path | None = None,
        central: CentralLedger | None = None,
        **settings: Any,
    ) -> Router:
        for artefact in files.iterdir() if files else ():
            if not (tmp_path / artefact.name).exists():
                (tmp_path / artefact.name).symlink_to(artefact)
        file = tmp_path / f"config{len(routers)}.yaml"
        file.write_text(textwrap.dedent(text).replace("kind: ", "apiVersion: pointsman/v1\nkind: "))
        router = Router(load([file], env or {}), Settings(**settings), builders, central=central).start()
        routers.append(router)
        return router

    yield start
    for router in routers:
        router.stop()
    stopping += routers


@pytest.fixture(scope="session")
def onnx_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`double`: doubled = 2 * x (FP32 [batch, 2]); `echo`: strings out as they came; `nan`: always NaN."""
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path_factory.mktemp("models")

    def save(name: str, node: Any, kind: int, shape: list[Any], outputs: str, initializers: Any = ()) -> None:
        graph = helper.make_graph(
            [node],
            name,
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info(outputs, kind, shape)],
            list(initializers),
        )
        opset = helper.make_opsetid("", 17)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / f"{name}.onnx")

    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    shape = ["batch", 2]
    save("double", helper.make_node("Mul", ["x", "two"], ["doubled"]), TensorProto.FLOAT, shape, "doubled", [two])
    save("nan", helper.make_node("Div", ["x", "zero"], ["y"]), TensorProto.FLOAT, shape, "y", [zero])
    save("echo", helper.make_node("Identity", ["x"], ["y"]), TensorProto.STRING, ["n"], "y")
    return folder
