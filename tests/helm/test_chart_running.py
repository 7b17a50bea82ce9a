"""What the chart renders, run: the router's own parser takes its flags, and a router that is started by them serves,
answers its probes, takes up a changed ConfigMap, and drains when its pod is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import (
    CI,
    Template,
    ci,
    command,
    environment,
    lay_out,
    objects,
    rendered,
    single,
    template,
    templates,
    write_config_map,
)
from processes import soon

from router.cli import command_line
from router.demo.processes import free_port

TOKEN = "an-admin-token-of-the-tests"
KEY = "a-key-of-a-clinic-for-the-tests"
SECRETS = {"pointsman-admin": {"token": TOKEN}, "pointsman-tenants": {"clinic": KEY}}


def serve_flags(container: dict[str, Any]) -> list[str]:
    assert container["command"] == ["pointsman"]
    flags: list[str] = container["args"]
    return flags


@pytest.mark.parametrize("name", [name for name in CI if name != "gpu-cloud"])
def test_the_routers_own_parser_takes_the_flags(name):
    flags = serve_flags(template(objects(ci(name))).container("router"))
    parsed = command_line().parse_args(flags)
    assert (parsed.engine, parsed.host, parsed.admin_host) == ("local", "0.0.0.0", "0.0.0.0")
    assert parsed.paths == ["/etc/pointsman"]
    assert parsed.admin_token_file == "/run/secrets/pointsman/admin/token"


def test_every_setting_arrives_as_its_flag():
    values = ci(
        "onprem",
        serve={
            "allowAnonymous": True, "drain": 40, "drainDelay": 7, "deadline": 12.5, "watch": 0, "maxBody": "1MiB",
            "maxBodies": "2MiB", "seed": 20000000, "candidate": "next.yaml.candidate", "logFormat": "text",
            "logLevel": "debug",
        },
        decisionLog={"fileSize": "1MiB", "keepFiles": 3},
        telemetry={"otlp": {"endpoint": "http://collector.monitoring.svc:4318", "share": 0.25}},
        config={"files": {"next.yaml.candidate": "kind: Policy"}},
    )  # fmt: skip
    parsed = command_line().parse_args(serve_flags(template(objects(values)).container("router")))
    told = {
        "allow_anonymous": True, "drain": 40, "drain_delay": 7, "deadline": 12.5, "watch": 0, "max_body": 1024**2,
        "max_bodies": 2 * 1024**2, "seed": 20000000, "candidate": "/etc/pointsman/next.yaml.candidate",
        "log_format": "text", "log_level": "debug", "decision_log": "/var/lib/pointsman/log",
        "decision_log_size": 1024**2, "decision_log_keep": 3, "ledger": "/var/lib/pointsman/ledger/ledger",
        "otlp_endpoint": "http://collector.monitoring.svc:4318", "trace_share": 0.25,
    }  # fmt: skip
    assert {name: getattr(parsed, name) for name in told} == told


def test_what_ray_serve_is_told_is_the_same_as_the_command_line():
    """The application's arguments are the local engine's flags, by the same names and with the same values."""
    values = ci("gpu-cloud")
    (application,) = serve_config(values)["applications"]
    told = application["args"]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in told.items() if name != "paths"]
    by_ray = command_line().parse_args(["serve", *told["paths"], *flags])
    values.update({"engine": "local", "ray": {}, "replicas": 2})
    by_line = command_line().parse_args(serve_flags(template(objects(values)).container("router")))
    assert vars(by_line) == {**vars(by_ray), "engine": "local"}


def serve_config(values: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(single(objects(values), "RayService")["spec"]["serveConfigV2"])
    return config


def test_serve_config_is_what_ray_serve_takes_and_builds_from():
    """Ray's own schema takes it; the application's builder, its arguments."""
    from ray.serve.schema import DeploymentSchema, RayActorOptionsSchema, ServeApplicationSchema, ServeDeploySchema

    from router.engines.ray.application import _flags

    config = serve_config(ci("gpu-cloud"))
    schema = ServeDeploySchema.model_validate(config)
    assert schema.proxy_location == "Disabled"
    (application,) = schema.applications
    module, _, function = application.import_path.partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))
    assert list(_flags(application.args))[-2:] == ["--", "/etc/pointsman"]
    # It takes unknown fields and forgets them, so those are looked for here.
    assert set(config) <= set(ServeDeploySchema.model_fields)
    assert set(config["applications"][0]) <= set(ServeApplicationSchema.model_fields)
    for one in config["applications"][0]["deployments"]:
        assert set(one) <= set(DeploymentSchema.model_fields)
        assert set(one["ray_actor_options"]) <= set(RayActorOptionsSchema.model_fields)


def test_deployments_are_those_of_the_fleet_and_fit_into_their_pods():
    values = ci("gpu-cloud")
    found = objects(values)
    cluster = single(found, "RayService")["spec"]["rayClusterConfig"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    there = {
        name: json.loads(group["rayStartParams"]["resources"].strip('"').replace('\\"', '"'))
        for name, group in groups.items()
    }
    deployments = {one["name"]: one for one in serve_config(values)["applications"][0]["deployments"]}
    fleet = yaml.safe_load(single(found, "ConfigMap", "-config")["data"]["fleet.yaml"])
    torch = {f"backend-{one['name']}" for one in fleet["backends"] if one["protocol"] == "torch"}
    assert set(deployments) == {"router", *torch}
    router, model = deployments["router"], deployments["backend-gpu-classifier"]
    assert router["ray_actor_options"]["resources"] == there["router"] == {"pointsman_router": 1}
    assert model["ray_actor_options"]["resources"] == there["torch-gpu"] == {"pointsman_torch-gpu": 1}
    assert router["num_replicas"] == groups["router"]["replicas"] == 3
    assert model["num_replicas"] == groups["torch-gpu"]["replicas"] == 2
    assert model["ray_actor_options"]["num_gpus"] == int(groups["torch-gpu"]["rayStartParams"]["num-gpus"])
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert router["ray_actor_options"]["label_selector"] == groups["router"]["labels"]


# --- a pod, as a process ----------------------------------------------------------------------------------------------


@dataclass
class Pod:
    """The router container of a rendered pod as a process here: its ports moved, its folders below `folder`."""

    template: Template
    folder: Path
    ports: dict[str, int]
    process: subprocess.Popen[str]

    def probe(self, name: str) -> int:
        asked = self.template.container("router")[name]["httpGet"]
        return self.call(asked["path"], port=asked["port"])[0]

    def call(
        self, path: str, body: object = None, port: str = "data", key: str = "", timeout: float = 20
    ) -> tuple[int, dict[str, str], Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[port]}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()


@contextmanager
def running(values: dict[str, Any], folder: Path) -> Iterator[Pod]:
    found = objects(values)
    pod = template(found)
    lay_out(found, pod, folder, SECRETS)
    container = pod.container("router")
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    ports = {name: free_port() for name in named}
    told = command(container, folder)
    for name, port in named.items():
        assert [word for word in told if word.endswith(f"port={port}")], "the container listens where its ports say"
        told = [word.replace(f"port={port}", f"port={ports[name]}") if "port=" in word else word for word in told]
    process = subprocess.Popen(
        told, env=environment(container, SECRETS), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield Pod(pod, folder, ports, process)
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout
        process.stdout.close()


def started(pod: Pod) -> bool:
    """As a kubelet finds out: by the startup probe."""

    def answers() -> bool:
        assert pod.process.poll() is None, pod.process.stdout and pod.process.stdout.read()
        try:
            return pod.probe("startupProbe") == 200
        except OSError:
            return False

    return soon(answers, 30)


CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


def test_a_rendered_pod_serves_answers_its_probes_takes_up_files_and_drains(tmp_path):
    values = ci("laptop", serve={"drain": 8, "drainDelay": 1})
    slow = "Slowly does it."
    files = values["config"]["files"]
    files["fleet.yaml"] = files["fleet.yaml"].replace(
        '"Hello from the laptop.", latency_ms: 1', f'"{slow}", latency_ms: 2500'
    )
    with running(values, tmp_path) as pod:
        assert started(pod)
        assert (pod.probe("livenessProbe"), pod.probe("readinessProbe")) == (200, 200)
        status, headers, _ = pod.call("/v1/chat/completions", CHAT)
        assert (status, headers["x-pointsman-backend"]) == (200, "laptop")
        assert pod.call("/policy", port="admin")[0] == 401
        before = json.loads(pod.call("/policy", port="admin", key=TOKEN)[2])

        # A changed ConfigMap arrives by itself, as the kubelet writes it, and without a restart.
        changed = dict(single(objects(values), "ConfigMap", "-config")["data"])
        changed["policy.yaml"] = changed["policy.yaml"].replace("name: everything", "name: renamed")
        changed["policy_test.yaml"] = changed["policy_test.yaml"].replace("rule: everything", "rule: renamed")
        write_config_map(changed, tmp_path / "etc/pointsman")
        assert soon(lambda: json.loads(pod.call("/policy", port="admin", key=TOKEN)[2])["rules"][0] == "renamed", 10)
        assert json.loads(pod.call("/policy", port="admin", key=TOKEN)[2])["digest"] != before["digest"]

        # One that fails its tests does not.
        changed["policy_test.yaml"] = changed["policy_test.yaml"].replace("rule: renamed", "rule: another")
        write_config_map(changed, tmp_path / "etc/pointsman")
        time.sleep(2.5)
        assert json.loads(pod.call("/policy", port="admin", key=TOKEN)[2])["rules"][0] == "renamed"

        # The pod is stopped: not ready at once, what is in progress ends, and the process before it would be killed.
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(pod.call("/v1/chat/completions", CHAT)[0]))
        asking.start()
        time.sleep(0.3)
        began = time.monotonic()
        pod.process.send_signal(signal.SIGTERM)
        assert soon(lambda: pod.probe("readinessProbe") == 503, 0.9), "still ready while it is about to end"
        assert pod.process.wait(10) == 0
        asking.join(5)
        assert answers == [200]
        assert time.monotonic() - began < pod.template.spec["terminationGracePeriodSeconds"]


def test_a_pod_with_tenants_a_ledger_and_a_log_serves_who_has_a_key(tmp_path):
    from upstream import Answers, upstream

    with upstream() as model:
        model.answers = Answers(
            body={
                "choices": [{"message": {"role": "assistant", "content": "hi"}}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            }
        )
        values = ci("onprem", networkPolicy={"enabled": False}, serve={"drain": 2, "drainDelay": 0})
        fleet = yaml.safe_load(values["config"]["files"]["fleet.yaml"])
        for backend in fleet["backends"]:
            backend["url"] = model.url
        values["config"]["files"]["fleet.yaml"] = fleet
        with running(values, tmp_path) as pod:
            assert started(pod)
            assert pod.call("/v1/chat/completions", CHAT)[0] == 401
            status, headers, body = pod.call("/v1/chat/completions", CHAT, key=KEY)
            assert (status, headers["x-pointsman-backend"]) == (200, "room-a"), body
            assert [asked.path for asked in model.asked] == ["/v1/chat/completions"]
            assert pod.call("/metrics", port="admin")[0] == 401
            assert pod.call("/metrics", port="admin", key=TOKEN)[0] == 200
            pod.process.send_signal(signal.SIGTERM)
            assert pod.process.wait(15) == 0
    logged = [
        line for path in (tmp_path / "var/lib/pointsman/log").glob("*.jsonl") for line in path.read_text().splitlines()
    ]
    assert sum('"model":"chat"' in line for line in logged) == 1
    assert (tmp_path / "var/lib/pointsman/ledger/ledger").stat().st_size > 0


def test_the_test_pod_says_whether_the_router_is_ready(tmp_path):
    """Its script, against a router with a backend and against a port where nobody listens."""
    values = ci("laptop", serve={"drain": 1, "drainDelay": 0})
    container = template(objects(values), "test").container("ready")
    script, url = container["args"]
    assert url == "http://rel-pointsman:8000"
    quick = script.replace("time.sleep(3 if left else 0)", "").replace("range(10)", "range(2)")
    with running(values, tmp_path) as pod:
        assert started(pod)
        good = _python(quick, f"http://127.0.0.1:{pod.ports['data']}")
    bad = _python(quick, f"http://127.0.0.1:{free_port()}")
    assert (good.returncode, good.stdout.startswith("ready: ")) == (0, True)
    assert (bad.returncode, "not ready: " in bad.stderr) == (1, True)


def _python(script: str, argument: str) -> subprocess.CompletedProcess[str]:
    import sys

    return subprocess.run([sys.executable, "-c", script, argument], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["laptop", "onprem"])
def test_the_curl_that_the_notes_print_works(name, tmp_path):
    """The command for a chat, as it stands there, with the port that port-forward would have opened."""
    values = ci(name, networkPolicy={"enabled": False}, serve={"drain": 1, "drainDelay": 0})
    fleet = ci("laptop")["config"]["files"]["fleet.yaml"].replace("internal", "restricted")
    if name == "onprem":  # with a key, and a backend that answers without a network
        values["config"]["files"]["fleet.yaml"] = fleet
        values["config"]["files"]["policy_test.yaml"] = (
            ci("laptop")["config"]["files"]["policy_test.yaml"].split("tests:")[0]
            + "tests:\n  - {name: x, request: {model: chat, tenant: clinic}, expect: {backend: laptop}}\n"
        )
    notes = rendered(values)["pointsman/templates/NOTES.txt"]
    lines = notes.replace("\\\n", " ").splitlines()
    (curl,) = [line.strip() for line in lines if "curl" in line and "/v1/chat/completions" in line]
    (forward,) = [line.strip() for line in lines if "port-forward service/" in line]
    assert forward == "kubectl -n inference port-forward service/rel-pointsman 8000:8000 &"
    with running(values, tmp_path) as pod:
        assert started(pod)
        moved = curl.replace("127.0.0.1:8000", f"127.0.0.1:{pod.ports['data']}")
        ran = subprocess.run(
            ["bash", "-c", moved], capture_output=True, text=True, env={"POINTSMAN_KEY": KEY, "PATH": "/usr/bin:/bin"}
        )
        assert json.loads(ran.stdout)["choices"], ran.stdout + ran.stderr
        without = subprocess.run(["bash", "-c", moved], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
        assert ("choices" in without.stdout) == (name == "laptop")


def test_ray_pods_drain_before_ray_is_told_and_have_the_time_for_it():
    found = objects(ci("gpu-cloud"))
    for pod in templates(found):
        if pod.who in ("head", "router", "torch-gpu"):
            assert pod.spec["terminationGracePeriodSeconds"] == 60
    drain = template(found, "router").container("ray-worker")["lifecycle"]["preStop"]["exec"]["command"]
    assert drain[0] == "pointsman"
    parsed = command_line().parse_args(drain[1:])
    assert (parsed.module, parsed.url) == ("drain", "http://127.0.0.1:8001")
    mounted = [mount["mountPath"] for mount in template(found, "router").container("ray-worker")["volumeMounts"]]
    assert str(Path(parsed.token_file).parent) in mounted
    head = template(found, "head").container("ray-head")["lifecycle"]["preStop"]["exec"]["command"]
    assert head == ["sleep", "45"]
