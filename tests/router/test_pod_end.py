"""A pod ends under load: whoever sends it requests looks at /servez, as a readiness probe does, and loses none."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

from router.demo.processes import free_port
from tests.processes import soon

FLEET = """
apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: one, tier: cloud, region: us, protocol: fake, clearance: restricted, models: {chat: {task: chat}},
     script: [{latency_ms: 30}]}
"""
PROBE_S = 0.2
DELAY_S = 1.5
"""Of the drain: some probes, and then some for what is on its way."""


@dataclass
class Pod:
    process: subprocess.Popen[str]
    port: int
    admin_port: int
    listed: bool = True  # among the endpoints

    def get(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status

    def serving(self) -> bool:
        try:
            return self.get("/servez") == 200
        except (OSError, http.client.HTTPException):
            return False


class Traffic:
    """A balancer that lists the pods that its probe found serving, and clients that keep a connection to one of them
    while it is open, for fifty requests."""

    def __init__(self, pods: list[Pod], count: int = 8) -> None:
        self.pods, self.answered, self.failures = pods, 0, list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(count)]
        self._threads.append(threading.Thread(target=self._probe))

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _probe(self) -> None:
        while not self._stop.wait(PROBE_S):
            for pod in self.pods:
                pod.listed = pod.serving()

    def _ask(self, number: int) -> None:
        body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}]})
        turn = number
        while not self._stop.is_set():
            turn += 1
            listed = [pod for pod in self.pods if pod.listed]
            pod = listed[turn % len(listed)]
            connection = http.client.HTTPConnection("127.0.0.1", pod.port, timeout=10)
            for _ in range(50):
                try:
                    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
                    reply = connection.getresponse()
                    told = reply.read()
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(f"{pod.port}: {error!r}")
                    break
                if reply.status != 200:
                    self.failures.append(f"{reply.status} {told!r}")
                self.answered += 1
                if reply.will_close or self._stop.is_set():
                    break
            connection.close()


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[list[Pod]]:
    (tmp_path / "fleet.yaml").write_text(FLEET)
    started = []
    for _ in range(2):
        port, admin_port = free_port(), free_port()
        command = [
            sys.executable, "-m", "router", "serve", str(tmp_path), "--engine", "local", "--port", str(port),
            "--admin-port", str(admin_port), "--drain-delay", str(DELAY_S), "--drain", "5",
        ]  # fmt: skip
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        started.append(Pod(process, port, admin_port))
    try:
        assert soon(lambda: all(pod.serving() for pod in started), 20)
        yield started
    finally:
        for pod in started:
            pod.process.kill()
            pod.process.communicate()


def test_sigterm_loses_no_request(pods):
    leaving, staying = pods
    with Traffic(pods) as traffic:
        time.sleep(0.5)
        began = time.monotonic()
        leaving.process.send_signal(signal.SIGTERM)
        assert soon(lambda: not leaving.serving(), 1), "it says so first"
        assert leaving.get("/healthz") == 200, "and goes on answering"
        assert leaving.process.wait(10) == 0
        took = time.monotonic() - began
        time.sleep(0.3)
    assert traffic.failures == []
    assert traffic.answered > 200
    assert DELAY_S <= took < DELAY_S + 2
    assert staying.serving()


def test_the_hook_makes_even_kill_9_lose_no_request(pods):
    """A router on Ray ends as abruptly with its pod: what comes before is the hook's."""
    leaving, _ = pods
    with Traffic(pods) as traffic:
        time.sleep(0.5)
        drain = [sys.executable, "-m", "router", "drain", f"http://127.0.0.1:{leaving.admin_port}"]
        ended = subprocess.run(drain, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended
        assert ended.stdout == "1 replica(s) drained, 0 request(s) still in progress\n"
        os.kill(leaving.process.pid, signal.SIGKILL)
        time.sleep(0.5)
    assert traffic.failures == []
    assert traffic.answered > 200


def test_the_hook_of_a_pod_without_a_router_holds_nothing_up():
    drain = [sys.executable, "-m", "router", "drain", f"http://127.0.0.1:{free_port()}"]
    ended = subprocess.run(drain, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("nothing to drain\n")
