"""A router and one backend of known capacity, as processes of their own, for measurements under load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from router.demo.processes import free_port

ROOT = Path(__file__).resolve().parents[1]
SERVER = ROOT / "tests" / "chaos" / "server.py"
CONCURRENCY = 5
LATENCY_MS = 100
CAPACITY = CONCURRENCY * 1000 / LATENCY_MS
"""Requests a second. The backend queues what is more than it can do at once."""
FLEET = """apiVersion: pointsman/v1
kind: Fleet
backends:
  - name: one
    tier: onprem
    region: jp
    protocol: openai
    clearance: restricted
    url: http://127.0.0.1:{port}
    models: {{chat: {{task: chat}}}}
    latency: {{prior_ms: {latency}}}
    limits: {{max_in_flight: {places}, max_queued: {queued}}}
"""


class Served:
    """To be used as a context; both processes end with it."""

    def __init__(self, folder: Path, queued: int = 256) -> None:
        self.port = free_port()
        backend_port = free_port()
        server = [sys.executable, str(SERVER), "one", os.devnull, "--port", str(backend_port)]
        server += ["--latency-ms", str(LATENCY_MS), "--concurrency", str(CONCURRENCY)]
        config = folder / "config"
        config.mkdir()
        (config / "fleet.yaml").write_text(
            FLEET.format(port=backend_port, latency=LATENCY_MS, places=CONCURRENCY, queued=queued)
        )
        router = [sys.executable, "-m", "router", "serve", str(config), "--engine", "local", "--watch", "0"]
        router += ["--port", str(self.port), "--admin-port", str(free_port())]
        self._commands = ((server, "ready"), (router, "pointsman is ready"))
        self._log = folder / "log"
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Served:
        for command, sign in self._commands:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log.open("a"), text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            self._processes.append(process)
            assert process.stdout is not None
            while sign not in (line := process.stdout.readline()):
                if not line:
                    self.__exit__()
                    raise RuntimeError(f"it did not start: {self._log.read_text()}")
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(30)

    @property
    def router(self) -> Path:
        """The router process as /proc shows it."""
        return Path(f"/proc/{self._processes[1].pid}")

    def rss_mib(self) -> float:
        pages = int((self.router / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def descriptors(self) -> int:
        return len(list((self.router / "fd").iterdir()))

    def threads(self) -> int:
        return len(list((self.router / "task").iterdir()))
