"""The Ray engine for real: two router replicas and a backend in a deployment of its own, as `serve` starts them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tritonclient.http as triton
from collector import collector
from conftest import ROOT

from router.demo.processes import free_port
from tests.processes import alive, command, descendants, listens, soon
from tests.serving import START_S, serving

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
]

FLEET = """
apiVersion: pointsman/v1
kind: Fleet
backends:
  - name: scripted
    tier: cloud
    region: us
    protocol: fake
    clearance: restricted
    models: {chat: {task: chat}}
  - name: slow
    tier: cloud
    region: us
    protocol: fake
    clearance: restricted
    models: {slow: {task: chat}}
    script: [{latency_ms: 60000}]
  - name: inside
    tier: edge
    region: jp
    protocol: onnx
    clearance: restricted
    models: {double: {task: arithmetic, artifact: double.onnx}}
  - name: apart
    tier: onprem
    region: jp
    protocol: torch
    clearance: restricted
    models: {triple: {task: arithmetic, artifact: triple.pt2}}
"""


@pytest.fixture(scope="module")
def traces():
    with collector() as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory, onnx_models, traces):
    torch = pytest.importorskip("torch")

    class Triple(torch.nn.Module):
        def forward(self, x):
            return {"tripled": x * 3}

    folder = tmp_path_factory.mktemp("served")
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(Triple().eval(), (torch.ones(2, 2),), {}, dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, str(folder / "triple.pt2"))
    (folder / "double.onnx").symlink_to(onnx_models / "double.onnx")
    (folder / "fleet.yaml").write_text(FLEET)
    port, admin_port = free_port(), free_port()
    options = (
        "--replicas", "2", "--watch", "0", "--decision-log", str(folder / "log"),
        "--otlp-endpoint", traces.url, "--log-format", "json",
    )  # fmt: skip
    with serving(folder, port, admin_port, *options) as served:
        yield served
    assert "Traceback" not in (folder / "stderr").read_text()


def test_a_model_that_cannot_be_loaded_is_named_without_a_traceback(tmp_path):
    fleet = FLEET.split("  - name: apart")[0]
    (tmp_path / "fleet.yaml").write_text(fleet)
    (tmp_path / "double.onnx").write_bytes(b"this is no model")
    ports = ("--port", str(free_port()), "--admin-port", str(free_port()))
    command = [sys.executable, "-m", "router", "serve", str(tmp_path), "--engine", "ray", *ports]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("not started: inside: cannot load ")
    assert "double.onnx" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_both_wires_are_answered_from_the_replica_and_from_a_deployment(served):
    status, headers, body = served.chat()
    assert (status, headers["x-pointsman-backend"]) == (200, "scripted")
    assert json.loads(body)["choices"][0]["message"]["content"]
    client = triton.InferenceServerClient(f"127.0.0.1:{served.port}")
    x = np.array([[1, 2.5]], np.float32)
    given = triton.InferInput("x", [1, 2], "FP32").set_data_from_numpy(x)
    np.testing.assert_array_equal(client.infer("double", [given]).as_numpy("doubled"), 2 * x)
    np.testing.assert_array_equal(client.infer("triple", [given]).as_numpy("tripled"), 3 * x)
    metadata = client.get_model_metadata("triple")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    with pytest.raises(triton.InferenceServerException, match="must have shape"):
        wrong = triton.InferInput("x", [1, 3], "FP32").set_data_from_numpy(np.ones((1, 3), np.float32))
        client.infer("triple", [wrong])
    client.close()


def test_a_stream_comes_through(served):
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    status, headers, raw = served.call("POST", "/v1/chat/completions", body)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert raw.endswith(b"data: [DONE]\n\n")


def test_metrics_are_those_of_both_replicas(served):
    before = served.sum("pointsman_requests_total")
    ids = [served.chat()[1]["x-pointsman-decision"] for _ in range(40)]
    assert served.sum("pointsman_requests_total") == before + 40
    assert soon(lambda: served.sum("pointsman_attempts_total", backend="scripted", outcome="ok") >= 40)
    # The admin port is one replica's, and knows its own decisions: that some are missing shows that two served.
    known = sum(served.call("GET", f"/decisions/{one}", admin=True)[0] == 200 for one in ids)
    assert 0 < known < 40


# --- reload -------------------------------------------------------------------------------------------------------


def _write_policy(served, rule):
    (served.folder / "policy.yaml").write_text(
        f"apiVersion: pointsman/v1\nkind: Policy\nrules: [{{name: {rule}, match: {{task: chat}}}}]\n"
    )


def _rules(served, count=30):
    """The rules that answers of either replica name."""
    return {served.chat()[1]["x-pointsman-rule"] for _ in range(count)}


def test_a_reload_reaches_every_replica_while_requests_go_on(served):
    answers: list[tuple[int, str]] = []
    done = threading.Event()

    def client():
        while not done.is_set():
            status, headers, _ = served.chat()
            answers.append((status, headers["x-pointsman-rule"]))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(6):
        _write_policy(served, f"rule-{i}" if i % 3 < 2 else "not a name")
        status, _, body = served.call("POST", "/reload", admin=True)
        assert status == (200 if i % 3 < 2 else 409), body
        if status == 200:
            assert _rules(served, 10) == {f"rule-{i}"}, "from the moment the reload is answered"
    done.set()
    for thread in threads:
        thread.join()
    assert len(answers) > 50
    assert {status for status, _ in answers} == {200}
    assert {rule for _, rule in answers} <= {"default", *(f"rule-{i}" for i in range(6) if i % 3 < 2)}
    assert served.sum("pointsman_reloads_total", outcome="swapped") == 8, "four in two replicas"
    assert served.sum("pointsman_reloads_total", outcome="refused") == 4


def test_sighup_reloads_every_replica(served):
    _write_policy(served, "after-sighup")
    served.process.send_signal(signal.SIGHUP)
    assert soon(lambda: _rules(served) == {"after-sighup"})


def test_each_replica_exports_its_own_traces(served, traces):
    ids = {served.chat()[1]["x-pointsman-decision"] for _ in range(20)}

    def found():
        spans = [span for span in traces.spans if span.facts.get("pointsman.decision.id") in ids]
        return len(spans) == 20 and len({span.resource["service.instance.id"] for span in spans}) == 2

    assert soon(found, within_s=15)


def test_a_log_level_reaches_every_replica(served):
    def told(ids):
        """In which log files of replicas there is a line for these requests."""
        files = [file for file in Path("/tmp/ray").glob("session_2*/logs/serve/replica_*router*") if file.is_file()]
        lines = [(file, line) for file in files for line in file.read_text().splitlines() if '"request_id"' in line]
        return [(file, found) for file, line in lines if (found := json.loads(line))["decision"] in ids]

    before = {served.chat()[1]["x-pointsman-decision"] for _ in range(20)}
    assert json.loads(served.call("PUT", "/log-level", {"level": "info"}, admin=True)[2]) == {"level": "info"}
    ids = {served.chat()[1]["x-pointsman-decision"] for _ in range(20)}
    assert served.call("PUT", "/log-level", {"level": "warning"}, admin=True)[0] == 200
    after = {served.chat()[1]["x-pointsman-decision"] for _ in range(20)}
    assert soon(lambda: len(told(ids)) == 20)
    assert len({file for file, _ in told(ids)}) == 2
    assert {(line["outcome"], line["logger"]) for _, line in told(ids)} == {("ok", "pointsman")}
    assert all(line["trace_id"] for _, line in told(ids))
    assert told(before | after) == []


def test_replicas_share_a_limit_also_when_their_ledger_is_killed(served):
    policy = served.folder / "policy.yaml"
    policy.write_text(
        "apiVersion: pointsman/v1\nkind: Policy\nlimits: [{name: few, match: {model: chat}, requests: 20, per: hour}]\n"
    )
    assert served.call("POST", "/reload", admin=True)[0] == 200
    served.uses_up(20)
    (ledger,) = _ledgers(served)
    os.kill(ledger, signal.SIGKILL)
    assert soon(lambda: len(_ledgers(served) - {ledger}) == 1, within_s=60)
    assert soon(lambda: _rate_limited(served), within_s=60), served.chat()
    assert [served.chat()[0] for _ in range(10)] == [429] * 10, "it goes on counting"
    policy.unlink()
    assert served.call("POST", "/reload", admin=True)[0] == 200
    assert served.chat()[0] == 200


def test_replicas_go_on_while_what_they_tell_each_other_has_no_place(served):
    (board,) = _actors(served, "BoardActor")
    os.kill(board, signal.SIGKILL)
    assert [served.chat()[0] for _ in range(10)] == [200] * 10
    assert soon(lambda: len(_actors(served, "BoardActor") - {board}) == 1, within_s=60)


def _ledgers(served):
    return _actors(served, "LedgerActor")


def _actors(served, name):
    return {pid for pid in descendants(served.process.pid) if command(pid).startswith(f"ray::{name}")}


def _rate_limited(served):
    """Refused by the count, and not for want of a ledger."""
    status, _, body = served.chat()
    return status == 429 and b"20 requests of 20 requests used" in body


def test_a_changed_user_config_is_a_reload():
    """Ray Serve calls `reconfigure` in every replica where `user_config` of the application changes, and once before
    a replica is ready, when there is nothing to reload yet."""
    from router.engines.ray.replica import RouterReplica

    reloads = []

    class Service:
        async def reload(self):
            reloads.append(1)

    starting, started = SimpleNamespace(), SimpleNamespace(_service=Service(), _listeners=None)
    for replica in (starting, started):
        asyncio.run(RouterReplica.reconfigure(replica, {"revision": 1}))
    assert reloads == [1]


def test_each_replica_logs_a_chain_of_its_own_and_all_are_intact(served):
    ids = {served.chat()[1]["x-pointsman-decision"] for _ in range(40)}
    logged: set[str] = set()

    def complete():
        files = (served.folder / "log").glob("*.jsonl")
        logged.update(json.loads(line).get("id") for file in files for line in file.open())
        return ids <= logged

    assert soon(complete)
    verified = subprocess.run(
        [sys.executable, "-m", "router", "log", "verify", "--json", str(served.folder / "log")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(json.loads(verified.stdout)["chains"]) == 2


def test_kill_9_of_a_replica_stops_nobody_else_and_another_takes_its_place(served):
    assert soon(lambda: len(served.serving()) == 2)
    before = served.serving()
    requests = served.sum("pointsman_requests_total")
    slow = [threading.Thread(target=_abandoned, args=(served,)) for _ in range(12)]
    for thread in slow:
        thread.start()
    assert soon(lambda: served.sum("pointsman_in_flight", backend="slow") == 12)
    (holder,) = (pid for pid in before if listens(pid, served.admin_port))
    os.kill(holder, signal.SIGKILL)
    assert soon(lambda: not alive(holder))
    time.sleep(0.5)  # the kernel takes its sockets down
    assert [served.chat()[0] for _ in range(20)] == [200] * 20, "the other one goes on at once"
    taken = soon(lambda: any(listens(pid, served.admin_port) for pid in served.replicas()), within_s=60)
    assert taken, "with the admin port, too"
    for thread in slow:
        thread.join()
    assert soon(lambda: served.sum("pointsman_in_flight") == 0), "nothing of the dead replica counts as in flight"
    assert served.sum("pointsman_requests_total") >= requests + 20, "what it has counted stays counted"
    assert soon(lambda: len(served.serving()) == 2, within_s=60)
    assert len(served.serving() & before) == 1
    assert [served.chat()[0] for _ in range(20)] == [200] * 20


def _abandoned(served):
    """A request whose client gives up, or whose replica is killed."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        served.chat("slow", timeout=3)


def test_sigterm_ends_it_well_and_leaves_nothing_behind(served):
    """The last test of this file."""
    processes = descendants(served.process.pid)
    assert len(processes) > 5
    (replica, *_) = served.replicas()
    (shared,) = {file.parent for file in Path(tempfile.gettempdir()).glob(f"pointsman-metrics-*/*_{replica}.db")}
    began = time.monotonic()
    served.process.terminate()
    assert served.process.wait(30) == 0
    assert time.monotonic() - began < 20
    assert soon(lambda: not any(map(alive, processes))), [command(pid) for pid in filter(alive, processes)]
    assert re.search("stopping the replicas", served.process.stdout.read())
    assert not shared.exists()
