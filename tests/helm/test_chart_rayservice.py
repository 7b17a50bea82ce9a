"""The RayService by what it means: its groups, flags, probes, scaling and upgrades."""

from __future__ import annotations

import importlib

import yaml
from charts import ci, objects, single, template, templates


def test_ray_asks_for_a_token_and_keeps_its_state_in_redis():
    cluster = single(objects(ci("gpu-cloud")), "RayService")["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "pointsman-ray"}
    assert cluster["gcsFaultToleranceOptions"] == {
        "redisAddress": "redis://redis.data.svc:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}},
    }
    plain = ci("gpu-cloud", ray={"auth": {"enabled": False}, "gcsFaultTolerance": {"enabled": False}})
    cluster = single(objects(plain), "RayService")["spec"]["rayClusterConfig"]
    assert not {"authOptions", "gcsFaultToleranceOptions"} & set(cluster)


def test_rays_flags_are_the_same_on_the_head_and_on_all_workers():
    values = ci("gpu-cloud", ray={"env": {"RAY_memory_monitor_refresh_ms": "0", "RAY_SERVE_LOG_TO_STDERR": "1"}})
    found = objects(values)
    flags = {
        pod.who: {v["name"]: v["value"] for v in pod.spec["containers"][0]["env"] if v["name"].startswith("RAY_")}
        for pod in templates(found)
        if pod.who not in ("test", "check")
    }
    assert set(flags) == {"head", "router", "torch-gpu"}
    assert flags["head"] == flags["router"] == flags["torch-gpu"]
    assert flags["head"]["RAY_USAGE_STATS_ENABLED"] == "0"
    assert flags["head"]["RAY_memory_monitor_refresh_ms"] == "0"
    assert flags["head"]["RAY_SERVE_LOG_TO_STDERR"] == "1", "the values' own wins"


def test_no_probe_of_a_ray_pod_asks_rays_proxy_or_a_shell():
    """KubeRay gives a probe of its own where there is none, and on workers that asks Ray's proxy, which is off."""
    for pod in templates(objects(ci("gpu-cloud"))):
        if pod.who in ("test", "check"):
            continue
        container = pod.spec["containers"][0]
        for probe in ("livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            of_router = (pod.who, probe) == ("router", "readinessProbe")
            assert asked == (
                {"path": "/servez", "port": "data"} if of_router else {"path": "/api/healthz", "port": 52365}
            )


def test_a_gpu_group_has_its_nodes_its_taint_and_its_gpus():
    pod = template(objects(ci("gpu-cloud")), "torch-gpu")
    assert pod.spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod.spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod.spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_another_revision_deploys_the_application_anew():
    for revision in ("", "3"):
        text = single(objects(ci("gpu-cloud", ray={"revision": revision})), "RayService")["spec"]["serveConfigV2"]
        assert yaml.safe_load(text)["applications"][0]["args"].get("revision", "") == revision


def test_two_models_of_one_group_share_its_gpu():
    values = ci("gpu-cloud")
    values["ray"]["groups"]["torch-gpu"]["backends"] = ["a", "b"]
    fleet = yaml.safe_load(values["config"]["files"]["fleet.yaml"])
    first = next(backend for backend in fleet["backends"] if backend["protocol"] == "torch")
    fleet["backends"] = [{**first, "name": "a"}, {**first, "name": "b"}]
    values["config"]["files"]["fleet.yaml"] = fleet
    config = yaml.safe_load(single(objects(values), "RayService")["spec"]["serveConfigV2"])
    models = [one for one in config["applications"][0]["deployments"] if one["name"].startswith("backend-")]
    assert [one["name"] for one in models] == ["backend-a", "backend-b"]
    assert [one["ray_actor_options"]["num_gpus"] for one in models] == [0.5, 0.5]
    assert [one["ray_actor_options"]["resources"] for one in models] == [{"pointsman_torch-gpu": 0.5}] * 2


def test_with_the_autoscaler_the_head_has_a_token_and_groups_have_room():
    values = ci("gpu-cloud", ray={"autoscaler": True}, networkPolicy={"apiServer": ["10.0.0.1/32"]})
    values["ray"]["groups"]["torch-gpu"]["maxReplicas"] = 5
    found = objects(values)
    cluster = single(found, "RayService")["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["securityContext"]["readOnlyRootFilesystem"] is True
    assert [(group["minReplicas"], group["maxReplicas"]) for group in cluster["workerGroupSpecs"]] == [(3, 10), (2, 5)]
    tokens = {pod.who: pod.spec["automountServiceAccountToken"] for pod in templates(found)}
    assert tokens == {"head": True, "router": False, "torch-gpu": False, "test": False, "check": False}
    config = yaml.safe_load(single(found, "RayService")["spec"]["serveConfigV2"])
    router = config["applications"][0]["deployments"][0]
    module, _, function = router["autoscaling_config"].pop("policy")["policy_function"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert router["autoscaling_config"] == {
        "min_replicas": 3, "max_replicas": 10, "target_ongoing_requests": 32, "upscale_delay_s": 10,
        "downscale_delay_s": 300,
    }  # fmt: skip
    assert router["max_surge_percent"] == 100
    assert "num_replicas" not in router
    fixed = single(objects(ci("gpu-cloud")), "RayService")["spec"]["rayClusterConfig"]
    assert [(group["minReplicas"], group["maxReplicas"]) for group in fixed["workerGroupSpecs"]] == [(3, 3), (2, 2)]


def test_an_incremental_upgrade_has_its_gateway():
    values = ci("gpu-cloud", networkPolicy={"apiServer": ["10.0.0.1/32"]})
    upgrade = {"strategy": "NewClusterWithIncrementalUpgrade", "gatewayClassName": "istio", "stepSizePercent": 25}
    values["ray"] |= {"autoscaler": True, "groups": {}, "upgrade": upgrade}
    values["config"]["files"]["fleet.yaml"] = ci("laptop")["config"]["files"]["fleet.yaml"]  # none in PyTorch
    assert single(objects(values), "RayService")["spec"]["upgradeStrategy"] == {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "gatewayClassName": "istio", "stepSizePercent": 25, "intervalSeconds": 30, "maxSurgePercent": 100,
        },
    }  # fmt: skip
    assert single(objects(ci("gpu-cloud")), "RayService")["spec"]["upgradeStrategy"] == {"type": "NewCluster"}
