"""A router in a process of its own, with scripted backends and a model that runs, and everything that happens to it:
streams, hedges, cascades, failures, budgets, tenants, entities, copies, a candidate policy, reloads."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from router.demo.processes import free_port
from tests.processes import end, soon

ROOT = Path(__file__).resolve().parents[2]
KEYS = {name: f"pm-{name}-0123456789abcdef0123456789abcdef" for name in ("acme", "beta", "audit")}
STEPS = 400
HEAD = "apiVersion: pointsman/v1\nkind: "
FLEET = """Fleet
backends:
  - name: edge
    tier: edge
    region: jp
    protocol: fake
    clearance: restricted
    latency: {prior_ms: 5}
    limits: {max_in_flight: 16}
    models: {chat: {task: chat, quality: 0.3}, embed: {task: embedding}}
    price: {reserved_per_hour: 0.36, capacity_rps: 500}
    energy: {active_w: 15, idle_w: 5}
    carbon: {g_per_kwh: 485}
    script: EDGE
  - name: narrow
    tier: onprem
    region: jp
    protocol: fake
    clearance: confidential
    latency: {prior_ms: 30}
    limits: {max_in_flight: 1, max_queued: 4}
    models: {chat: {task: chat, quality: 0.6}, narrow: {task: chat}}
    price: {reserved_per_hour: 1.1, capacity_rps: 50}
    energy: {active_w: 300, idle_w: 60}
    script: [{latency_ms: 60}]
  - name: shaky
    tier: onprem
    region: jp
    protocol: fake
    clearance: confidential
    latency: {prior_ms: 4}
    models: {shaky: {task: chat}}
    price: {per_request: 0.0001}
    script: SHAKY
  - name: cloud
    tier: cloud
    region: us
    protocol: fake
    clearance: internal
    latency: {prior_ms: 8}
    models: {chat: {task: chat, quality: 0.9}, shaky: {task: chat}, narrow: {task: chat}, embed: {task: embedding}}
    price: {input_per_mtok: 1500, output_per_mtok: 6000}
    energy: {active_w: 700, idle_w: 100}
    carbon: {g_per_kwh: 390}
    script: CLOUD
  - name: trial
    tier: cloud
    region: us
    protocol: fake
    clearance: internal
    models: {chat: {task: chat}}
    price: {per_request: 0.0001, output_per_mtok: 60}
    script: SHAKY
  - name: inside
    tier: edge
    region: jp
    protocol: onnx
    clearance: restricted
    latency: {prior_ms: 1}
    models: {double: {task: arithmetic, artifact: double.onnx, quality: 0.3, batching: {max_size: 8, max_wait_ms: 5}}}
    price: {reserved_per_hour: 0.05, capacity_rps: 500}
    energy: {active_w: 15, idle_w: 5}
  - name: inside-better
    tier: onprem
    region: jp
    protocol: onnx
    clearance: restricted
    latency: {prior_ms: 5}
    models: {double: {task: arithmetic, artifact: double.onnx, quality: 0.9}}
    price: {per_second: 0.01}
    energy: {active_w: 30}
"""
POLICY = """Policy
sensitivity:
  default: public
  detectors: [{use: pii, label: confidential}, {use: secrets, label: restricted}]
rules:
  - {name: masked, match: {label: confidential, usage: masked}, transform: pseudonymise,
     objective: {quality: {weight: 1}}}
  - {name: hedged, match: {usage: hedged}, objective: {latency: {weight: 1}},
     strategy: {hedge: {after_quantile: 0.8, max_extra_load: 0.3}}}
  - {name: sure, match: {task: arithmetic}, objective: {latency: {weight: 1}},
     strategy: {cascade: {escalate_below_confidence: 0.8}}}
  - {name: tried, match: {usage: tried}, shadow: {backend: trial, share: 0.5}, slo: {latency_ms: 20}}
  - {name: shaky-first, match: {model: shaky}, objective: {latency: {weight: 1}}, fallback: {retry_share: 0.5}}
  - {name: home-first, match: {model: narrow}, objective: {cost: {weight: 1}}}
  - {name: sparing, objective: {cost: {weight: 1}}}
budgets:
  - {name: limited, match: {usage: limited}, usd: 0.5, per: hour, on_exhausted: reject}
  - {name: of-tenants, each: tenant, usd: 1000, per: day}
limits:
  - {name: beta-rate, match: {tenant: beta}, requests: 100, per: minute}
"""
CANDIDATE = """Policy
sensitivity:
  default: public
  detectors: [{use: pii, label: confidential}]
constraints: [{name: at-home, match: {}, require: {region: [jp]}}]
rules: [{name: everything, objective: {latency: {weight: 1}}}]
"""


def _script(rng: random.Random, failing: float, slow: float) -> str:
    """Answers of many kinds; the last one, which repeats, is a good one."""
    steps: list[dict[str, Any]] = []
    for _ in range(STEPS):
        step: dict[str, Any] = {"latency_ms": 120 if rng.random() < slow else rng.choice([1, 2, 4])}
        if rng.random() < failing:
            step["fail"] = rng.choice(["connect", "timeout", "rubbish", "overloaded", "status_500"])
        step |= {"text": "Write to [EMAIL_ADDRESS_9] as before", "chunks": 5, "chunk_delay_ms": rng.choice([1, 3])}
        if rng.random() < 0.05:
            step["break_after_chunks"] = 2
        steps.append(step)
    return json.dumps([*steps, {"latency_ms": 3}])


def write(folder: Path, models: Path) -> None:
    """The configuration, in `folder`."""
    rng = random.Random(8)
    live = folder / "live"
    live.mkdir(parents=True)
    (live / "double.onnx").symlink_to(models / "double.onnx")
    fleet = FLEET.replace("EDGE", _script(rng, 0.02, 0.15)).replace("CLOUD", _script(rng, 0.03, 0.05))
    (live / "fleet.yaml").write_text(HEAD + fleet.replace("SHAKY", _script(rng, 0.6, 0.0)))
    (live / "policy.yaml").write_text(HEAD + POLICY)
    (folder / "candidate.yaml").write_text(HEAD + CANDIDATE)
    tenants = "Tenants\ntenants:\n"
    for name, key in KEYS.items():
        digest = hashlib.sha256(key.encode()).hexdigest()
        more = ", may_declassify: true" if name == "audit" else ""
        tenants += f"  - {{name: {name}, keys: [{{sha256: {digest}}}]{more}}}\n"
    (live / "tenants.yaml").write_text(HEAD + tenants)


class Fleet:
    """The router, and a load on it, until the end of the block."""

    def __init__(self, folder: Path, models: Path) -> None:
        write(folder, models)
        self.folder, self.port, self.admin_port = folder, free_port(), free_port()
        self.asked = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Fleet:
        command = [
            sys.executable, "-m", "router", "serve", "live", "--engine", "local", "--port", str(self.port),
            "--admin-port", str(self.admin_port), "--candidate", "candidate.yaml", "--decision-log", "log",
            "--watch", "0",
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with (self.folder / "router.log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        try:
            assert soon(self._ready, 60), (self.folder / "router.log").read_text()[-3000:]
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        if self._process is not None:
            end(self._process, 20)

    def _ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self.folder / "router.log").read_text()
        try:
            return self.admin("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def admin(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def load(self, clients: int = 8) -> None:
        """Begin to ask."""
        for seed in range(clients):
            self._threads.append(threading.Thread(target=self._ask, args=(seed,), daemon=True))
            self._threads[-1].start()

    def healthy(self) -> None:
        """Raises what a client came across that is no answer of the router's."""
        if self._errors:
            raise self._errors[0]

    def reload(self) -> None:
        """One that is swapped in, one that changes nothing, and one that is refused."""
        policy = self.folder / "live" / "policy.yaml"
        good = policy.read_text().replace("latency_ms: 20}", "latency_ms: 21}")
        for text, outcome in ((good, "swapped"), (good, "unchanged"), ("kind: Nonsense\n", "refused")):
            policy.write_text(text)
            assert json.loads(self.admin("POST", "/reload")[1])["outcome"] == outcome
        policy.write_text(good)

    def _ask(self, seed: int) -> None:
        rng = random.Random(seed)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            while not self._stop.is_set():
                path, body, headers = request(rng)
                connection.request("POST", path, msgspec.json.encode(body), headers)
                connection.getresponse().read()
                self.asked += 1
                time.sleep(rng.random() * 0.06)
            connection.close()
        except BaseException as error:  # shown by `healthy`
            self._errors.append(error)


def request(rng: random.Random) -> tuple[str, dict[str, Any], dict[str, str]]:
    tenant = rng.choice(["acme", "acme", "beta", "audit"])
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEYS[tenant]}"}
    text, path = "Say hello to the night shift.", "/v1/chat/completions"
    body: dict[str, Any] = {"model": "chat", "stream": rng.random() < 0.3}
    match rng.choice(["plain", "hedged", "tried", "limited", "masked", "secret", "far", "shaky", "narrow", "embed",
                      "double", "double", "lowered", "stranger", "wrong"]):  # fmt: skip
        case "hedged" | "tried" | "limited" as usage:
            headers["x-usage"] = usage
        case "masked":
            headers["x-usage"], text = "masked", f"Write to hanako{rng.randrange(9)}@example.com about it"
        case "secret":
            text = "the card is 4242 4242 4242 4242"
        case "far":
            headers["x-data-sensitivity"] = "restricted"
        case "shaky" | "narrow" as model:
            body["model"] = model
        case "embed":
            return "/v1/embeddings", {"model": "embed", "input": ["pump failure"]}, headers
        case "double":
            row = rng.choice([[0.1, 0.1], [0.1, 9.0]])
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": row}
            return "/v2/models/double/infer", {"inputs": [tensor]}, headers
        case "lowered":
            text = "Write to taro@example.com"
            headers |= {"authorization": f"Bearer {KEYS['audit']}", "x-declassify": "internal",
                        "x-declassify-reason": "a test"}  # fmt: skip
        case "stranger":
            headers["authorization"] = "Bearer nobody-knows-this-key-0000"
        case "wrong":
            return path, {"model": "chat", "messages": "not a list"}, headers
    return path, body | {"messages": [{"role": "user", "content": text}], "max_tokens": 32}, headers
