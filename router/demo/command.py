"""The demo: `make run`. Three tiers of real models, the router, real requests, and where each of them went."""

from __future__ import annotations

import argparse
import http.client
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from router.cli.output import console
from router.demo.client import Outcome, burst, get_json, send
from router.demo.processes import Processes, StartError, free_port
from router.demo.scenario import CLOUD, Sample, samples
from router.server import bind

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "demo"
READY_TIMEOUT_S = 120.0


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    begin = time.monotonic()

    def progress(line: str) -> None:
        print(f"[{time.monotonic() - begin:5.1f}s] {line}", flush=True)

    try:
        with Processes(progress=progress, grace_s=20) as processes:
            return _demo(arguments, processes, progress)
    except (DemoError, StartError) as error:
        print(f"\nthe demo cannot run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; no process of the demo is left")
        return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--engine", choices=("ray", "local"), default="ray")
    parser.add_argument("--once", action="store_true", help="exit after the table; 0 only if all was as expected")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--admin-port", type=int, default=8001)
    return parser.parse_args()


def _interrupt() -> None:
    raise KeyboardInterrupt


class _Cloud:
    """The process that stands where a cloud endpoint would; it can go away and come back."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.key = secrets.token_urlsafe(24)
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        _start_llm(self._processes, "cloud-llm", self.port, "smollm2-cloud", {"POINTSMAN_DEMO_KEY": self.key})

    def stop(self) -> None:
        self._processes.stop_one("cloud-llm")


def _start_llm(processes: Processes, name: str, port: int, alias: str, env: dict[str, str] | None = None) -> None:
    processes.start(name, "router.demo.llm_server", "--port", port, "--alias", alias, "--threads", 1, env=env)


def _demo(arguments: argparse.Namespace, processes: Processes, progress: object) -> int:
    assert callable(progress)
    for option, port in (("--port", arguments.port), ("--admin-port", arguments.admin_port)):
        try:
            bind("127.0.0.1", port).close()
        except OSError as error:
            raise DemoError(f"{error} with {option}") from None
    progress("building the models (a few seconds the first time)")
    if subprocess.run([sys.executable, "-m", "router.demo.assets", str(CONFIGS / "models")], check=False).returncode:
        raise DemoError("the models could not be built; the lines above say why")
    cloud = _Cloud(processes)
    onprem, embeddings = free_port(), free_port()
    cloud.start()
    _start_llm(processes, "onprem-llm", onprem, "smollm2-onprem")
    processes.start("onprem-embeddings", "router.demo.embedding_server", "--port", embeddings)
    environment = {
        "CLOUD_URL": cloud.url,
        "CLOUD_API_KEY": cloud.key,
        "ONPREM_LLM_URL": f"http://127.0.0.1:{onprem}",
        "ONPREM_EMBEDDINGS_URL": f"http://127.0.0.1:{embeddings}",
    }
    ports = ("--port", arguments.port, "--admin-port", arguments.admin_port)
    command = (str(CONFIGS), "--engine", arguments.engine, *ports)
    processes.start("router", "router.demo.router_process", *command, env=environment)
    for name, port in (("cloud-llm", cloud.port), ("onprem-llm", onprem), ("onprem-embeddings", embeddings)):
        processes.wait_ready(name, f"http://127.0.0.1:{port}/health", READY_TIMEOUT_S)
    _wait_for_router(processes, arguments.admin_port)
    progress("router: ready, every backend answers")
    outcomes = [_send(sample, cloud, arguments) for sample in samples()]
    _show(outcomes)
    wrong = [outcome for outcome in outcomes if not outcome.as_expected]
    for outcome in wrong:
        expected = outcome.sample.backend or "a refusal"
        print(f"NOT AS EXPECTED: {outcome.sample.title}: {expected}, got {outcome.status} from {outcome.backend}")
    if not wrong:
        print(f"all {len(outcomes)} requests went where policy sends them")
    _show_spill(arguments)
    if arguments.once:
        return 1 if wrong else 0
    _invite(arguments)
    while True:
        if "router" not in processes.running():
            raise DemoError(f"the router ended\n{processes.tail('router')}")
        time.sleep(1)


def _wait_for_router(processes: Processes, admin_port: int) -> None:
    """Until the router answers and has heard from every backend."""
    processes.wait_ready("router", f"http://127.0.0.1:{admin_port}/healthz", READY_TIMEOUT_S)
    deadline = time.monotonic() + READY_TIMEOUT_S
    found: dict[str, object] = {}
    while time.monotonic() < deadline:
        try:
            found = get_json(admin_port, "/readyz")
        except (OSError, http.client.HTTPException):
            found = {"unreachable": "the admin port does not answer"}
        if not found["unreachable"]:
            return
        time.sleep(0.2)
    raise DemoError(f"not every backend answers: {found['unreachable']}")


def _send(sample: Sample, cloud: _Cloud, arguments: argparse.Namespace) -> Outcome:
    if not sample.without_cloud:
        return send(sample, arguments.port, arguments.admin_port)
    print("stopping cloud-llm, to show what then happens to a request for it", flush=True)
    cloud.stop()
    try:
        return send(sample, arguments.port, arguments.admin_port)
    finally:
        cloud.start()


def _show_spill(arguments: argparse.Namespace) -> None:
    """More at once than the box beside the line takes: the server room helps out, and then no more."""
    photo = samples()[0]
    relaxed = replace(photo, headers={k: v for k, v in photo.headers.items() if k != "x-slo-latency-ms"})
    spread = burst(relaxed, BURST, arguments.port)
    after = burst(relaxed, 1, arguments.port)
    told = ", ".join(f"{count} by {name}" for name, count in spread.most_common())
    print(f"{BURST} photos at once: {told}; the next one alone: by {next(iter(after))}")


BURST = 24
"""Photos at once; the box takes four, and others come before it until two places are free."""
_ALL_COLUMNS = ("request", "label", "rule", "backend", "tier", "latency", "cost", "why", "answer")
_WIDE = 150
"""Columns of a terminal that has room for all of them; in a narrower one the last two would cut the others short."""


def _show(outcomes: list[Outcome]) -> None:
    out = console()
    columns = _ALL_COLUMNS if out.width >= _WIDE else _ALL_COLUMNS[:-2]
    table = Table(title="where the requests went, and why", title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=column in ("rule", "backend"))
    for outcome in outcomes:
        headers = outcome.headers
        streamed = headers.get("content-type", "").startswith("text/event-stream")
        first = f" (first {outcome.first_byte_ms:.0f})" if streamed else ""
        cost = headers.get("x-pointsman-cost-usd")
        cells = (
            outcome.sample.title,
            headers.get("x-pointsman-label", ""),
            headers.get("x-pointsman-rule", ""),
            outcome.backend or f"refused ({outcome.status})",
            headers.get("x-pointsman-tier", ""),
            f"{outcome.latency_ms:.0f} ms{first}",
            f"${float(cost):.6f}" if cost else "",
            outcome.why,
            _short(outcome.answer.replace("\n", " ")),
        )
        table.add_row(*cells[: len(columns)], style=None if outcome.as_expected else "bold red")
    out.print()
    out.print(table)
    if len(columns) < len(_ALL_COLUMNS):
        for outcome in outcomes:
            out.print(f"  {outcome.sample.title}: {outcome.why}", highlight=False)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _invite(arguments: argparse.Namespace) -> None:
    base, admin = f"http://127.0.0.1:{arguments.port}", f"http://127.0.0.1:{arguments.admin_port}"
    print(
        f"""
serving until Ctrl-C
  data       {base}/v1 (OpenAI)   {base}/v2 (Open Inference Protocol)
  metrics    {admin}/metrics
  decisions  {admin}/decisions
  CLOUD      {CLOUD} is a second process on this machine

try it:

  curl -i {base}/v1/chat/completions -H 'content-type: application/json' \\
    -H 'x-data-sensitivity: confidential' \\
    -d '{{"model": "chat", "messages": [{{"role": "user", "content": "Hello!"}}], "max_tokens": 32}}'
""",
        flush=True,
    )
