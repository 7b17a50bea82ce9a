"""A router and its backends as real processes on loopback, each started, hurt and ended by its pid."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from router.demo.processes import free_port
from tests.chaos.certificate import self_signed
from tests.processes import alive, descendants, kill, soon

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "tests" / "chaos" / "server.py"
WITNESS = ROOT / "tests" / "chaos" / "witness.py"
START_S = 60.0
DEFAULT_DEADLINE_S = 1.5
"""Of requests that state none."""
IDLE_S = 0.7
"""How long a stream may pause."""
SECRET = "STAYS-HOME"
"""Stands in every request that must not go to the cloud."""
KEYWORD = "極秘"
"""What makes a request confidential though its headers do not say so."""
CLEARANCE = {"edge": "restricted", "onprem": "confidential", "cloud": "internal"}

FLEET = """apiVersion: pointsman/v1
kind: Fleet
backends:
"""
BACKEND = """  - {{name: {name}, tier: {tier}, region: jp, protocol: openai, clearance: {clearance}, url: "{url}",
     models: {{{models}}}, latency: {{prior_ms: 20}}, labels: {{epoch: "{epoch}"}},
     timeouts: {{connect_s: 1, first_byte_s: 5, idle_s: {idle}}}}}
"""
POLICY = """apiVersion: pointsman/v1
kind: Policy
sensitivity:
  detectors:
    - {use: keywords, words: [極秘], label: confidential}
    - {use: pii, label: confidential}
rules:
  - name: broken-first
    match: {model: "chat-*"}
    split: {weights: {tls-plain: 1, tls-untrusted: 1, no-name: 1}}
  - {name: shared, split: {weights: {edge: 2, onprem: 1, cloud: 1}}, fallback: {attempts: 3}}
"""


class Backend:
    """One backend process on a port that it keeps over restarts; its records outlive it."""

    def __init__(self, name: str, folder: Path, *options: str) -> None:
        self.name, self.options = name, options
        self.port = free_port()
        self.file = folder / f"{name}.jsonl"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, str(SERVER), self.name, str(self.file), "--port", str(self.port), *self.options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready"), f"{self.name} did not start"

    def signal(self, signum: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signum)

    def kill(self) -> None:
        """SIGKILL, and until it is gone. Also one that is stopped."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def fault(self, kind: str = "", share: float = 1.0, seed: int = 0) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("PUT", "/fault", json.dumps({"kind": kind, "share": share, "seed": seed}))
            assert connection.getresponse().status == 200
        finally:
            connection.close()

    def records(self, since: float = 0.0) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        lines = self.file.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [one for one in found if one["at"] >= since]


class World:
    def __init__(self, folder: Path, engine: str = "local", replicas: int = 1) -> None:
        self.folder, self.engine, self.replicas = folder, engine, replicas
        self.port, self.admin_port = free_port(), free_port()
        self.epoch = 0
        self._read = 0
        pem = self_signed(folder)
        self.backends = {name: Backend(name, folder) for name in CLEARANCE}
        self.untrusted = Backend("tls-untrusted", folder, "--cert", str(pem))
        self._urls = {name: f"http://127.0.0.1:{one.port}" for name, one in self.backends.items()} | {
            "tls-plain": f"https://127.0.0.1:{self.backends['edge'].port}",
            "tls-untrusted": f"https://127.0.0.1:{self.untrusted.port}",
            "no-name": "http://nowhere.invalid:8000",
        }
        self.router: subprocess.Popen[str] | None = None

    def __enter__(self) -> World:
        try:
            for backend in (*self.backends.values(), self.untrusted):
                backend.start()
            self._start_router()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _configuration(self) -> str:
        text = FLEET
        for name, url in self._urls.items():
            odd = name not in self.backends
            models = f"chat-{name}: {{task: chat}}, only-{name}: {{task: chat}}" if odd else "chat: {task: chat}"
            if name == "edge":
                for other in self._urls.keys() - self.backends.keys():
                    models += f", chat-{other}: {{task: chat}}"
            clearance = CLEARANCE.get(name, "restricted")
            tier = name if name in CLEARANCE else "onprem"
            text += BACKEND.format(
                name=name, tier=tier, clearance=clearance, url=url, models=models, epoch=self.epoch, idle=IDLE_S
            )
        return text

    def _start_router(self) -> None:
        config = self.folder / "config"
        config.mkdir(exist_ok=True)
        (config / "policy.yaml").write_text(POLICY)
        (config / "fleet.yaml").write_text(self._configuration())
        command = [sys.executable, str(WITNESS), str(self.folder / "tasks"), "serve", str(config)]
        command += ["--engine", self.engine, "--port", str(self.port), "--admin-port", str(self.admin_port)]
        command += ["--watch", "0", "--deadline", str(DEFAULT_DEADLINE_S)]
        if self.replicas > 1:
            command += ["--replicas", str(self.replicas)]
        self.router = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=(self.folder / "stderr").open("w"), text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        watchdog = threading.Timer(START_S, self.router.kill)
        watchdog.start()
        assert self.router.stdout is not None
        while "pointsman is ready" not in (line := self.router.stdout.readline()):
            assert line, f"the router did not start: {self.errors()}"
        watchdog.cancel()

    def close(self) -> None:
        for backend in (*self.backends.values(), self.untrusted):
            backend.kill()
        if self.router is not None:
            left = descendants(self.router.pid)
            self.router.terminate()
            try:
                self.router.wait(30)
            except subprocess.TimeoutExpired:
                self.router.kill()
                self.router.wait()
            kill(left)
            if self.router.stdout is not None:
                self.router.stdout.close()

    # --- looking at the router ------------------------------------------------------------------------------------

    def admin(self, method: str, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=20)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def sum(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.admin("GET", "/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def tasks(self) -> Counter[str]:
        """The router's asyncio tasks by the name of what they run."""
        assert self.router is not None
        file = self.folder / "tasks"
        file.unlink(missing_ok=True)
        for _ in range(50):
            os.kill(self.router.pid, signal.SIGUSR1)
            if soon(file.exists, 0.2):
                break
        rows = (line.split() for line in file.read_text().splitlines())
        return Counter({name: int(count) for count, name in rows})

    def descriptors(self) -> int:
        assert self.router is not None
        return len(list(Path(f"/proc/{self.router.pid}/fd").iterdir()))

    def sockets(self, state: str, local_port: int | None = None) -> int:
        """The router's TCP sockets in a state, by the kernel's number for it."""
        assert self.router is not None
        own = set()
        for fd in Path(f"/proc/{self.router.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                own.add(str(fd.readlink()))
        rows = [line.split() for line in Path(f"/proc/{self.router.pid}/net/tcp").read_text().splitlines()[1:]]
        return sum(
            row[3] == state
            and f"socket:[{row[9]}]" in own
            and (local_port is None or int(row[1].split(":")[1], 16) == local_port)
            for row in rows
        )

    def errors(self) -> str:
        """The router's log since the backends were last healed."""
        return (self.folder / "stderr").read_bytes()[self._read :].decode(errors="replace")

    def lives(self) -> bool:
        return self.router is not None and alive(self.router.pid)

    # --- between faults -------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """All backends up and well, and nothing remembered of them: a reload with another label makes each a new one,
        with no ejections, latencies or connections from before."""
        for backend in self.backends.values():
            if backend.process is None:
                backend.start()
            backend.signal(signal.SIGCONT)
            backend.fault()
        self.epoch += 1
        self._read = (self.folder / "stderr").stat().st_size
        (self.folder / "config" / "fleet.yaml").write_text(self._configuration())
        status, text = self.admin("POST", "/reload")
        assert status == 200, text
        ready = dict.fromkeys(self.backends, 1.0)
        assert soon(lambda: {n: self.sum("pointsman_backend_available", backend=n) for n in ready} == ready)

    def calm(self, within_s: float = 5.0) -> bool:
        """Whether nothing is in flight any more, and no client's connection is left."""
        return soon(lambda: self.sum("pointsman_in_flight") == 0 and not self.clients(), within_s)

    def clients(self) -> int:
        """Connections from clients, those included that they have closed and the router has not."""
        return self.sockets("01", self.port) + self.sockets("08", self.port)
