"""A serveConfigV2 as the chart renders it, deployed as KubeRay does: given to the dashboard of a Ray of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from router.demo.processes import free_port
from tests.processes import alive, command, descendants, kill, listens, soon
from tests.serving import START_S, Served

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
]
TOKEN = "an-admin-token-of-the-tests"
FLEET = """
apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: one, tier: cloud, region: us, protocol: fake, clearance: restricted, script: [{latency_ms: 20}],
     models: {chat: {task: chat}, free: {task: chat}}}
"""
POLICY = "apiVersion: pointsman/v1\nkind: Policy\nrules: [{{name: {rule}, match: {{task: chat}}}}]\n"
LIMIT = "limits: [{name: few, match: {model: chat}, requests: 20, per: hour}]\n"


def by_load(low: int, high: int) -> dict[str, Any]:
    return {
        "min_replicas": low, "max_replicas": high, "target_ongoing_requests": 2, "upscale_delay_s": 1,
        "look_back_period_s": 2, "metrics_interval_s": 0.5,
        "policy": {"policy_function": "router.engines.ray.scaling:by_requests"},
    }  # fmt: skip


class Cluster(Served):
    """A Ray with a dashboard, and what is deployed there."""

    dashboard: int
    token: str
    config: dict[str, Any]

    def dashboard_call(self, method: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.dashboard, timeout=60)
        raw = None if body is None else json.dumps(body)
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        connection.request(method, "/api/serve/applications/", raw, headers)
        reply = connection.getresponse()
        told = reply.read()
        assert reply.status == 200, told
        return json.loads(told) if told else None

    def deploy(self, args: dict[str, Any] | None = None, **router: Any) -> None:
        """As KubeRay does where serveConfigV2 changes."""
        (application,) = self.config["applications"]
        application["args"].update(args or {})
        application["deployments"][0].update(router)
        self.dashboard_call("PUT", self.config)

    def scale(self, low: int, high: int) -> None:
        """By load, where there is room between them."""
        self.deploy(autoscaling_config=by_load(low, high))

    def status(self) -> tuple[str, str]:
        """Of the application, with everything that is said of it and of its deployments."""
        application = self.dashboard_call("GET")["applications"]["pointsman"]
        said = [application["message"], *(one["message"] for one in application["deployments"].values())]
        return application["status"], "\n".join(said)

    def settled(self, replicas: int) -> bool:
        return len(self.serving()) == replicas and self.status()[0] == "RUNNING"

    def call(self, method, path, body=None, *, admin=False, timeout=20):  # type: ignore[no-untyped-def]
        """As `Served` does, with the admin token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port if admin else self.port, timeout=timeout)
        with contextlib.closing(connection):
            headers = {"content-type": "application/json", **({"authorization": f"Bearer {TOKEN}"} if admin else {})}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()


class Clients:
    """Clients with connections that they keep while they may, until the end of the block."""

    def __init__(self, port: int, count: int = 6, model: str = "chat") -> None:
        self.model = model
        self.port, self.statuses, self.failures = port, [0] * count, list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        body = json.dumps({"model": self.model, "messages": [{"role": "user", "content": "hi"}]})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
                reply = connection.getresponse()
                told = reply.read()
                if reply.status == 200:
                    self.statuses[number] += 1
                else:
                    self.failures.append(f"{reply.status} {told!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            if self.statuses[number] % 20 == number:  # new connections as well
                connection.close()
        connection.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("configuration")
    (folder / "fleet.yaml").write_text(FLEET)
    session = Path(tempfile.mkdtemp(prefix="pm-", dir="/tmp"))  # Ray's sockets need a short path
    dashboard, port, admin_port, agent = (free_port() for _ in range(4))
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(session), "POINTSMAN_ADMIN_TOKEN": TOKEN,
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    bin = Path(sys.executable).parent
    ray = subprocess.Popen(
        [
            bin / "ray", "start", "--head", "--block", f"--port={free_port()}", f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={free_port()}", "--num-cpus=1",
            "--min-worker-port=0", "--max-worker-port=0", "--resources", '{"pointsman_router": 4}',
            f"--object-store-memory={128 * 1024 * 1024}", "--disable-usage-stats", f"--temp-dir={session}/ray",
        ],
        env=environment, cwd=session, stdout=(session / "out").open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    found = Cluster(ray, port, admin_port, folder)  # type: ignore[arg-type]
    found.dashboard, found.token = dashboard, environment["RAY_AUTH_TOKEN"]
    found.config = {
        "proxy_location": "Disabled",
        "http_options": {"host": "127.0.0.1", "port": free_port()},
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
        "applications": [
            {
                "name": "pointsman",
                "route_prefix": None,
                "import_path": "router.engines.ray.application:build",
                "args": {
                    "paths": [str(folder)], "host": "0.0.0.0", "port": port, "allow_anonymous": True,
                    "admin_host": "0.0.0.0", "admin_port": admin_port, "admin_token_env": "POINTSMAN_ADMIN_TOKEN",
                    "watch": 0, "drain_delay": 1, "drain": 5,
                },
                "deployments": [
                    {
                        "name": "router", "max_surge_percent": 100, "user_config": {"revision": "1"},
                        "graceful_shutdown_timeout_s": 12,
                        "ray_actor_options": {"num_cpus": 0.1, "resources": {"pointsman_router": 1}},
                    }
                ],
            }
        ],
    }  # fmt: skip
    try:
        assert soon(lambda: _answers(dashboard), START_S), (session / "out").read_text()
        file = session / "serve.yaml"
        options = found.config["applications"][0]["deployments"][0]
        options["autoscaling_config"] = by_load(1, 1)
        file.write_text(yaml.safe_dump(found.config))
        deployed = [bin / "serve", "deploy", "-a", f"http://127.0.0.1:{dashboard}", str(file)]
        subprocess.run(deployed, env=environment, check=True, capture_output=True, timeout=START_S)
        assert soon(lambda: found.settled(1), START_S), found.status()
        yield found
    finally:
        # Ray takes half a minute to end by itself; nothing of it is needed any more.
        left = {ray.pid, *descendants(ray.pid)}
        kill(left)
        ray.wait(10)
        assert soon(lambda: not any(map(alive, left)), 10)
        shutil.rmtree(session, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/api/version")
        return connection.getresponse().status > 0
    except (OSError, http.client.HTTPException):
        return False


def test_what_serve_deploys_answers(cluster):
    status, headers, body = cluster.chat()
    assert status == 200, body
    assert headers["x-pointsman-backend"] == "one"
    assert json.loads(body)["choices"]
    assert cluster.status() == ("RUNNING", "\n")
    assert [cluster.call("GET", path)[0] for path in ("/healthz", "/readyz", "/servez")] == [200] * 3
    assert cluster.call("GET", "/metrics", admin=True)[0] == 200


def test_another_user_config_reloads_the_files_and_loses_no_request(cluster):
    with Clients(cluster.port) as clients:
        for revision in ("2", "3"):
            (cluster.folder / "policy.yaml").write_text(POLICY.format(rule=f"rule-{revision}"))
            replicas = cluster.serving()
            cluster.deploy(user_config={"revision": revision})
            assert soon(lambda rule=f"rule-{revision}": cluster.chat()[1]["x-pointsman-rule"] == rule, 60)
            assert cluster.serving() == replicas, "without a restart"
    assert clients.failures == []
    assert sum(clients.statuses) > 100


def test_scaling_up_and_down_loses_no_request(cluster):
    with Clients(cluster.port) as clients:
        cluster.scale(1, 2)
        assert soon(lambda: cluster.settled(2), 60), cluster.status()
        before = clients.statuses[:]
        assert soon(lambda: all(now > then + 20 for now, then in zip(clients.statuses, before, strict=True)), 60)
        cluster.scale(1, 1)
        assert soon(lambda: cluster.settled(1), 60), cluster.status()
        time.sleep(0.5)
    assert clients.failures == []
    assert sum(clients.statuses) > 200


def test_replicas_share_a_limit_that_outlives_a_new_version(cluster):
    cluster.scale(2, 2)
    assert soon(lambda: cluster.settled(2), 60), cluster.status()
    (cluster.folder / "policy.yaml").write_text(POLICY.format(rule="limited") + LIMIT)
    assert cluster.call("POST", "/reload", admin=True)[0] == 200
    try:
        cluster.uses_up(20)
        with Clients(cluster.port, model="free") as clients:
            before = cluster.serving()
            cluster.deploy({"revision": "anew"})
            assert soon(lambda: cluster.settled(2) and not cluster.serving() & before, 40), cluster.status()
        assert clients.failures == [], "a new version loses no request, either"
        assert [cluster.chat()[0] for _ in range(5)] == [429] * 5
    finally:  # what comes after this test asks for the same model
        (cluster.folder / "policy.yaml").unlink()
        assert soon(lambda: any(listens(pid, cluster.admin_port) for pid in cluster.replicas())), "one takes it over"
        assert cluster.call("POST", "/reload", admin=True)[0] == 200
    assert cluster.sum("pointsman_reloads_total", outcome="swapped") >= 2, "of both: their node adds up their metrics"


def test_what_is_wrong_stands_in_the_status_while_the_old_one_goes_on(cluster):
    good = dict(cluster.config["applications"][0]["args"])
    with Clients(cluster.port, 2) as clients:
        cluster.deploy({"log_levle": "info"})
        assert soon(lambda: cluster.status()[0] == "DEPLOY_FAILED", 60), cluster.status()
        assert "args: log_levle is unknown: did you mean log_level?" in cluster.status()[1]
    assert clients.failures == []
    assert sum(clients.statuses) > 0
    cluster.config["applications"][0]["args"] = good


def test_the_hook_of_a_pod_that_ends_drains_its_replicas(cluster):
    """The last but one: they do not come back from that."""
    drain = [sys.executable, "-m", "router", "drain", f"http://127.0.0.1:{cluster.admin_port}", "--token-env", "TOKEN"]
    with Clients(cluster.port) as clients:
        ended = subprocess.run(
            drain, env={**os.environ, "TOKEN": TOKEN}, cwd=ROOT, capture_output=True, text=True, check=False
        )
        status, headers, _ = cluster.call("GET", "/servez")
        assert (status, headers["connection"]) == (503, "close")
    assert ended.stdout.startswith("2 replica(s) drained, "), ended
    assert clients.failures == [], "whoever still comes is answered"


def test_what_replicas_share_ends_with_the_application(cluster):
    actors = {
        pid for pid in descendants(cluster.process.pid) if command(pid) in ("ray::LedgerActor", "ray::BoardActor")
    }
    assert len(actors) == 2
    cluster.dashboard_call("PUT", {**cluster.config, "applications": []})
    assert soon(lambda: not any(map(alive, actors)), 40)
