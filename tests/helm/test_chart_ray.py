"""The serveConfigV2 that the chart renders, deployed on a Ray of three nodes; its router answers, and drains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import Object, Template, ci, command, lay_out, objects, single, template
from conftest import ROOT
from processes import descendants, kill
from test_chart_running import CHAT, free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
TOKEN, KEY = "an-admin-token-of-the-tests", "a-key-that-only-router-pods-have"
SECRETS = {"pointsman-admin": {"token": TOKEN}, "pointsman-tenants": {"product": KEY}}


TESTS = """
apiVersion: pointsman/v1
kind: PolicyTest
tests:
  - {name: the nearer one, request: {model: chat, tenant: product}, expect: {backend: laptop}}
"""


def values() -> dict[str, Any]:
    """The GPU cloud's, with one router and a scripted backend, so that neither a GPU nor a network is needed."""
    found = ci("gpu-cloud", serve={"drain": 5, "drainDelay": 1}, ledger={"type": "memory"})
    found["secrets"] = {"env": {"PRODUCT_KEYS": {"secret": "pointsman-tenants", "key": "product"}}}
    found["ray"] |= {"router": {"replicas": 1}, "groups": {}}
    files = found["config"]["files"]
    laptop = ci("laptop")["config"]["files"]
    files["fleet.yaml"] = laptop["fleet.yaml"].replace("latency_ms: 1}", "latency_ms: 1500}")
    files["policy.yaml"] = laptop["policy.yaml"]
    files["policy_test.yaml"] = TESTS
    files["tenants.yaml"] = (
        "apiVersion: pointsman/v1\nkind: Tenants\ntenants: [{name: product, keys: [{env: PRODUCT_KEYS}]}]\n"
    )
    return found


class Deployed:
    def __init__(self, router: Template, folder: Path, ports: dict[str, int], said: dict[str, str]) -> None:
        self.router, self.folder, self.ports, self.said = router, folder, ports, said

    def ask(self, path: str, body: object = None, port: str = "data") -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[port]}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextmanager
def deployed(found: list[Object], folder: Path) -> Iterator[Deployed]:
    service = single(found, "RayService")["spec"]
    router = template(found)
    lay_out(found, router, folder, SECRETS)
    config = yaml.safe_load(service["serveConfigV2"])
    (application,) = config["applications"]
    told, ports = application["args"], {"data": free_port(), "admin": free_port()}
    told["paths"] = [f"{folder}{path}" for path in told["paths"]]
    told["admin_token_file"] = f"{folder}{told['admin_token_file']}"
    told |= {"port": ports["data"], "admin_port": ports["admin"]}
    cluster = {"nodes": list(nodes(service["rayClusterConfig"])), "config": config}
    (folder / "cluster.json").write_text(json.dumps(cluster))
    script = Path(__file__).with_name("raycluster.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder / "cluster.json")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        line = next((line for line in process.stdout if line.startswith("{")), "")
        assert line, "Ray did not start"
        yield Deployed(router, folder, ports, json.loads(line))
    finally:
        left = {process.pid, *descendants(process.pid)}
        process.send_signal(signal.SIGKILL)
        kill(left)
        process.wait(10)


def nodes(cluster: Object) -> Iterator[dict[str, Any]]:
    """The head and one node of each group, as their pods would start them, with keys only where their pods have them;
    and one more without, such as those of models."""
    yield {"num_cpus": int(cluster["headGroupSpec"]["rayStartParams"]["num-cpus"]), "include_dashboard": False}
    yield {"num_cpus": 1}
    for group in cluster["workerGroupSpecs"]:
        start = group["rayStartParams"]
        container = group["template"]["spec"]["containers"][0]
        keys = [one["name"] for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})]
        yield {
            "num_cpus": int(start["num-cpus"]),
            "resources": json.loads(json.loads(start["resources"])),
            "labels": group.get("labels", {}),
            "env_vars": dict.fromkeys(keys, KEY),
        }


def test_what_is_rendered_is_deployed_where_the_keys_are_answers_and_drains(tmp_path):
    """Only the router's node has the tenants' keys. Without the label selector Ray would build the application on any
    of the three, and it would not be deployed."""
    found = objects(values())
    with deployed(found, tmp_path) as cluster:
        assert cluster.said["status"] == "RUNNING", cluster.said["message"]
        container = cluster.router.container("ray-worker")
        ready = container["readinessProbe"]["httpGet"]["path"]
        assert cluster.ask(ready)[0] == 200
        status, body = cluster.ask("/v1/chat/completions", CHAT)
        assert (status, b"Hello from the laptop." in body) == (200, True), body

        # The pod is to end: it is not ready at once, and its preStop hook lasts until what is in progress is done.
        drain = {"command": container["lifecycle"]["preStop"]["exec"]["command"], "args": []}
        words = command({**drain, "volumeMounts": container["volumeMounts"]}, tmp_path)
        words.append(f"http://127.0.0.1:{cluster.ports['admin']}")
        url = f"http://127.0.0.1:{cluster.ports['data']}"
        asked = subprocess.Popen(
            [sys.executable, "-c", ASK, f"{url}/v1/chat/completions", KEY, json.dumps(CHAT)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(0.4)
        hook = subprocess.Popen(
            words, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
        )
        time.sleep(0.7)
        assert cluster.ask(ready)[0] == 503
        said, _ = hook.communicate(timeout=20)
        assert hook.returncode == 0, said
        assert "drained, 0 request(s) still in progress" in said
        assert asked.communicate(timeout=10)[0].strip() == "200", "a request in progress was lost"


ASK = """
import sys, urllib.request
headers = {"content-type": "application/json", "authorization": "Bearer " + sys.argv[2]}
request = urllib.request.Request(sys.argv[1], sys.argv[3].encode(), headers)
print(urllib.request.urlopen(request, timeout=20).status)
"""
