"""Each file in ci/ is a real deployment: it lints, it renders, a cluster would take it, and its own files are right."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from charts import (
    CI,
    NO_CRD,
    VERSIONS,
    check_object,
    ci,
    command,
    environment,
    lay_out,
    lint,
    objects,
    of,
    single,
    template,
    templates,
)

ALWAYS = {"ConfigMap": 2, "Service": 1, "ServiceAccount": 1, "NetworkPolicy": 3, "Pod": 1, "Job": 1}
EXPECTED: dict[str, dict[str, int]] = {
    "laptop": {"Deployment": 1},
    "onprem": {"Deployment": 1, "PersistentVolumeClaim": 1},
    "onprem-cloud": {
        "Deployment": 1, "ConfigMap": 7, "Ingress": 1, "HorizontalPodAutoscaler": 1, "PodDisruptionBudget": 1,
        "PodMonitor": 1, "PrometheusRule": 1,
    },
    "gpu-cloud": {"RayService": 1, "NetworkPolicy": 5, "PodDisruptionBudget": 1, "PodMonitor": 1},
    "edge": {"DaemonSet": 1},
    "ha-redis": {
        "Deployment": 1, "Service": 2, "HTTPRoute": 1, "PersistentVolumeClaim": 1, "PodDisruptionBudget": 1,
        "ServiceMonitor": 1, "PrometheusRule": 1,
    },
    "locked-down": {"Deployment": 1, "PodDisruptionBudget": 1, "ExternalSecret": 1, "PodMonitor": 1},
}  # fmt: skip


def test_there_is_a_file_for_each_kind_of_deployment():
    assert set(CI) == set(EXPECTED)


@pytest.mark.parametrize("name", CI)
def test_it_makes_what_it_should_and_nothing_else(name):
    found: dict[str, int] = {}
    for one in objects(ci(name)):
        found[one["kind"]] = found.get(one["kind"], 0) + 1
    assert found == {**ALWAYS, **EXPECTED[name]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CI)
def test_it_lints_clean(name, version):
    assert lint(ci(name), version) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CI)
def test_every_object_is_valid_to_the_last_field(name, version):
    found = objects(ci(name))
    for one in found:
        check_object(one, version)
    for pod in templates(found):  # those inside a RayService too, as Kubernetes itself sees them
        check_object({"apiVersion": "v1", "kind": "Pod", "metadata": pod.metadata, "spec": pod.spec}, version)


def test_a_field_that_a_cluster_would_drop_is_noticed():
    """The check above can fail: of Kubernetes's kinds, and of those with a CRD."""
    for one in objects(ci("gpu-cloud")):
        if one["kind"] in NO_CRD or one["kind"] == "ConfigMap":
            continue
        one.setdefault("spec", one)["notAField"] = 1
        with pytest.raises(Exception, match="notAField"):
            check_object(one, VERSIONS[0])


@pytest.mark.parametrize("name", CI)
def test_names_and_namespaces_fit_together(name):
    found = objects(ci(name))
    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(names) == len(set(names))
    for one in found:
        assert one["metadata"].get("namespace") is None  # Helm's --namespace decides
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "rel"
    for pod in templates(found):
        volumes = [volume["name"] for volume in pod.spec["volumes"]]
        mounted = {mount["name"] for container in pod.containers for mount in container["volumeMounts"]}
        assert sorted(volumes) == sorted(mounted), "a volume that nothing mounts, or the other way round"
        for container in pod.containers:
            variables = [variable["name"] for variable in container["env"]]
            assert len(variables) == len(set(variables))


@pytest.mark.parametrize("name", CI)
def test_its_init_containers_pass_when_they_are_run(name, tmp_path):
    found = objects(ci(name))
    secrets = _secrets(name)
    for pod in templates(found):
        if pod.who != "router":
            continue
        folder = tmp_path / pod.who
        lay_out(found, pod, folder, secrets)
        assert [container["name"] for container in pod.spec["initContainers"]] == ["check", "test"]
        for container in pod.spec["initContainers"]:
            ran = subprocess.run(
                command(container, folder), env=environment(container, secrets), capture_output=True, text=True
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
        assert " passed, 0 failed" in ran.stdout
        assert "(100.0 %)" in ran.stdout, ran.stdout


def _secrets(name: str) -> dict[str, dict[str, str]]:
    """Secrets that nobody has: whatever is asked of them is there."""

    class Any(dict[str, str]):
        def __missing__(self, key: str) -> str:
            return "nothing-of-importance"

    class Every(dict[str, dict[str, str]]):
        def __missing__(self, key: str) -> dict[str, str]:
            return Any()

    return Every()


def test_a_policy_that_is_broken_in_values_stops_the_pod_and_its_log_says_why(tmp_path):
    values = ci("laptop")
    broken = values["config"]["files"]["policy.yaml"].replace("target_ms: 100", "target_ms: fast")
    values["config"]["files"]["policy.yaml"] = broken
    ran = _init_container(values, "check", tmp_path)
    assert ran.returncode == 1
    line = broken.splitlines().index(next(one for one in broken.splitlines() if "fast" in one)) + 1
    assert f"policy.yaml:{line}:" in ran.stdout
    assert "target_ms" in ran.stdout
    assert "1 error(s)" in ran.stderr


def test_before_an_upgrade_a_job_runs_the_same_on_the_files_that_are_to_come(tmp_path):
    """A change of files restarts no pod, so no init container would stop it."""
    values = ci("laptop")
    found = objects(values)
    job, config = single(found, "Job"), single(found, "ConfigMap", "-check")
    assert config["data"] == single(found, "ConfigMap", "-config")["data"]
    for hook in (job, config):
        assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade,pre-rollback"
    weights = [int(hook["metadata"]["annotations"]["helm.sh/hook-weight"]) for hook in (config, job)]
    assert weights == sorted(weights) and weights[0] < weights[1], "the files are there before the job"
    assert (job["spec"]["backoffLimit"], job["spec"]["template"]["spec"]["restartPolicy"]) == (0, "Never")
    pod, router = template(found, "check"), template(found)
    for name in ("check", "test"):
        assert pod.container(name)["args"] == router.container(name)["args"]
    lay_out(found, pod, tmp_path, _secrets(""))
    for name in ("check", "test"):
        container = pod.container(name)
        ran = subprocess.run(
            command(container, tmp_path), env=environment(container, _secrets("")), capture_output=True
        )
        assert ran.returncode == 0
    values["config"]["check"] = {"beforeUpgrade": False}
    assert of(objects(values), "Job") == []
    values["config"]["check"] = {"requireTests": False}
    assert [container["name"] for container in template(objects(values), "check").containers] == ["check"]


def test_a_policy_that_fails_its_tests_stops_the_pod_and_its_log_shows_the_decision(tmp_path):
    values = ci("laptop")
    files = values["config"]["files"]
    files["fleet.yaml"] = files["fleet.yaml"].replace("clearance: internal", "clearance: restricted")
    ran = _init_container(values, "test", tmp_path)
    assert ran.returncode == 1
    assert "FAIL  an address stays here, also when the laptop is busy" in ran.stdout
    assert "1 passed, 1 failed" in ran.stdout


def test_warnings_stop_a_pod_only_where_they_are_to(tmp_path):
    values = ci("laptop")
    tiers = values["config"]["files"]["policy.yaml"]
    values["config"]["files"]["policy.yaml"] = (
        tiers.replace(
            "rules:", "rules:\n  - name: never\n    match: {tenant: nobody-*}\n    objective: {load: {weight: 1}}"
        )
        + "  - name: after-everything\n    objective: {load: {weight: 1}}\n"
    )
    assert _init_container(values, "check", tmp_path / "a").returncode == 0
    values["config"]["check"] = {"strict": True}
    ran = _init_container(values, "check", tmp_path / "b")
    assert (ran.returncode, "PM" in ran.stdout) == (1, True)


def test_coverage_that_is_too_low_stops_a_pod_where_it_is_to(tmp_path):
    values = ci("laptop")
    tests = yaml.safe_load(values["config"]["files"]["policy_test.yaml"])
    tests["tests"] = [{"name": "nothing", "request": {"model": "unknown"}, "expect": {"refusal": "model_not_found"}}]
    values["config"]["files"]["policy_test.yaml"] = yaml.safe_dump(tests)
    values["config"]["check"] = {"coverage": 60}
    ran = _init_container(values, "test", tmp_path)
    assert ran.returncode == 1
    assert "never:" in ran.stdout


def _init_container(values, name, folder):
    found = objects(values)
    pod = template(found)
    lay_out(found, pod, folder, _secrets(""))
    container = pod.container(name)
    return subprocess.run(
        command(container, folder), env=environment(container, _secrets("")), capture_output=True, text=True
    )
