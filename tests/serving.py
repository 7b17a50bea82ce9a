"""A router on Ray in processes of its own, as `pointsman serve` starts it, and what one wants to know of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import command, descendants, end, kill, listens, rested

START_S = 90


@dataclass
class Served:
    process: subprocess.Popen[str]
    port: int
    admin_port: int
    folder: Path

    def call(self, method, path, body=None, *, admin=False, timeout=20):
        """One request on a connection of its own, so that the kernel may give it to either replica."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port if admin else self.port, timeout=timeout)
        try:
            raw = None if body is None else json.dumps(body)
            connection.request(method, path, raw, {"content-type": "application/json"} if raw else {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def chat(self, model="chat", **options):
        return self.call(
            "POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "hi"}]}, **options
        )

    def sum(self, name, **labels):
        """Of the samples of `name` that carry these labels, as prometheus-client's own parser reads /metrics."""
        status, _, body = self.call("GET", "/metrics", admin=True)
        assert status == 200
        families = text_string_to_metric_families(body.decode())
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def replicas(self):
        return {pid for pid in descendants(self.process.pid) if command(pid).startswith("ray::ServeReplica:") and
                "router" in command(pid)}  # fmt: skip

    def serving(self):
        """The replicas that take requests."""
        return {pid for pid in self.replicas() if listens(pid, self.port)}

    def uses_up(self, limit):
        """Ask until as many requests are answered as a limit allows to all replicas together, and not one more."""
        statuses = [self.chat()[0] for _ in range(limit + 10)]
        # The last may be leased to the one replica while the other asks for it: it is given back then, not at once.
        if statuses.count(200) < limit:
            assert rested(lambda: statuses.append(self.chat()[0]) or statuses.count(200) >= limit), statuses
        statuses += [self.chat()[0] for _ in range(10)]
        assert (statuses.count(200), {*statuses}) == (limit, {200, 429}), "and not so many of each replica"


@contextlib.contextmanager
def serving(folder: Path, port: int, admin_port: int, *options: str) -> Iterator[Served]:
    """Until the end of the block. Its standard error goes to `stderr` in the folder."""
    ports = ("--port", str(port), "--admin-port", str(admin_port))
    process = subprocess.Popen(
        [sys.executable, "-m", "router", "serve", str(folder), "--engine", "ray", *ports, *options],
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr").open("w"),
        text=True,
        cwd=ROOT,
    )
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    try:
        said = []
        while not any("pointsman is ready (ray engine" in line for line in said):
            said.append(process.stdout.readline())
            assert said[-1], f"it ended: {said} {(folder / 'stderr').read_text()}"
        watchdog.cancel()
        yield Served(process, port, admin_port, folder)
    finally:
        watchdog.cancel()
        left = descendants(process.pid)
        end(process, 30)
        kill(left)
