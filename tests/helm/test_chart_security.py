"""Each rule of the restricted Pod Security Standard, and what keeps it, for every pod that any file in ci/ makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from charts import CI, Template, ci, merged, objects, template, templates

ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def containers(pod: Template) -> Iterator[dict[str, Any]]:
    yield from pod.containers


def context(container: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = container["securityContext"]
    return found


RULES: dict[str, Callable[[Template], bool]] = {
    # baseline
    "no privileged container": lambda pod: not any(context(c).get("privileged") for c in containers(pod)),
    "no namespace of the host": lambda pod: not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec),
    "no port of the host": lambda pod: not any(p.get("hostPort") for c in containers(pod) for p in c.get("ports", ())),
    "no capability added": lambda pod: not any(context(c)["capabilities"].get("add") for c in containers(pod)),
    "no proc mount of another kind": lambda pod: not any("procMount" in context(c) for c in containers(pod)),
    "no SELinux options": lambda pod: not any("seLinuxOptions" in context(c) for c in containers(pod)),
    "no sysctls": lambda pod: "sysctls" not in pod.spec["securityContext"],
    # restricted
    "volumes of allowed types": lambda pod: all(set(v) - {"name"} <= ALLOWED_VOLUMES for v in pod.spec["volumes"]),
    "no privilege escalation": lambda pod: all(
        context(c)["allowPrivilegeEscalation"] is False for c in containers(pod)
    ),
    "runs as non-root": lambda pod: (
        pod.spec["securityContext"]["runAsNonRoot"] is True
        and all(context(c)["runAsNonRoot"] is True for c in containers(pod))
    ),
    "its user is not root": lambda pod: (
        pod.spec["securityContext"]["runAsUser"] > 0 and not any("runAsUser" in context(c) for c in containers(pod))
    ),
    "seccomp profile of the runtime": lambda pod: (
        pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        and all(context(c)["seccompProfile"] == {"type": "RuntimeDefault"} for c in containers(pod))
    ),
    "all capabilities dropped": lambda pod: all(
        context(c)["capabilities"] == {"drop": ["ALL"]} for c in containers(pod)
    ),
    # and beyond it
    "root file system is read-only": lambda pod: all(context(c)["readOnlyRootFilesystem"] for c in containers(pod)),
    "no token of the API server": lambda pod: pod.spec["automountServiceAccountToken"] is False,
    "no addresses of other services": lambda pod: pod.spec["enableServiceLinks"] is False,
    "requests and a memory limit": lambda pod: all(
        {"cpu", "memory"} <= set(c["resources"]["requests"]) and "memory" in c["resources"]["limits"]
        for c in containers(pod)
    ),
    "emptyDirs have a size": lambda pod: all(
        "sizeLimit" in v["emptyDir"] for v in pod.spec["volumes"] if "emptyDir" in v
    ),
    "an image of a stated version": lambda pod: all(
        not c["image"].endswith(":latest") and (":" in c["image"] or "@" in c["image"]) for c in containers(pod)
    ),
    "secrets are files that their group reads": lambda pod: all(
        v["secret"]["defaultMode"] == 0o440 for v in pod.spec["volumes"] if "secret" in v
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CI)
def test_every_pod_keeps_the_rule(name, rule):
    pods = list(templates(objects(ci(name))))
    assert len(pods) >= 2
    for pod in pods:
        assert RULES[rule](pod), pod.who


BROKEN: dict[str, dict[str, Any]] = {
    "no privileged container": {"securityContext": {"privileged": True}},
    "no capability added": {"securityContext": {"capabilities": {"add": ["NET_RAW"]}}},
    "no port of the host": {"ports": [{"hostPort": 1}]},
    "no privilege escalation": {"securityContext": {"allowPrivilegeEscalation": True}},
    "runs as non-root": {"securityContext": {"runAsNonRoot": False}},
    "its user is not root": {"securityContext": {"runAsUser": 0}},
    "seccomp profile of the runtime": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    "all capabilities dropped": {"securityContext": {"capabilities": {"drop": []}}},
    "root file system is read-only": {"securityContext": {"readOnlyRootFilesystem": False}},
}


@pytest.mark.parametrize("rule", BROKEN)
def test_the_rule_notices_one_container_that_breaks_it(rule):
    pod = template(objects(ci("onprem")))
    init = pod.spec["initContainers"]
    pod.spec["initContainers"] = [init[0], merged(init[1], BROKEN[rule])]
    assert not RULES[rule](pod)


def test_a_port_of_the_node_is_the_only_way_out_of_the_standard_and_is_off():
    pod = template(objects(ci("edge", edge={"hostPort": 8000})))
    assert [rule for rule in RULES if not RULES[rule](pod)] == ["no port of the host"]


def test_neither_rays_head_nor_models_hold_a_key():
    """Whoever gets into their processes finds neither keys of backends and tenants, nor the admin token."""
    keys = {"env": {"SOME_KEY": {"secret": "s", "key": "k"}}, "files": [{"name": "f", "secret": "f"}]}
    values = ci("gpu-cloud", secrets=keys)
    found = objects(values)
    for pod in (template(found, "torch-gpu"), template(found, "head")):
        assert not [v for v in pod.spec["volumes"] if "secret" in v or "configMap" in v]
        assert not [e for c in pod.containers for e in c["env"] if "secretKeyRef" in e.get("valueFrom", {})]
    router = template(found, "router").container("ray-worker")
    assert "SOME_KEY" in [variable["name"] for variable in router["env"]]


def test_the_service_account_has_no_rights():
    kinds = {one["kind"] for name in CI for one in objects(ci(name))}
    assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
