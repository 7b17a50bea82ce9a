"""Each template by what it means: with its values on, and off."""

from __future__ import annotations

import json

import pytest
import yaml
from charts import CHART, ci, objects, of, rendered, single, template, templates

ROUTER = {
    "app.kubernetes.io/name": "pointsman",
    "app.kubernetes.io/instance": "rel",
    "app.kubernetes.io/component": "router",
}


def test_the_service_sends_to_router_pods_and_to_nothing_else():
    found = objects(ci("gpu-cloud", service={"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}}))
    service = single(found, "Service")
    assert service["metadata"]["annotations"] == {"a": "b"}
    assert service["spec"]["type"] == "LoadBalancer"
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (80, "data")
    assert service["spec"]["selector"] == ROUTER
    chosen = [
        pod.who for pod in templates(found) if service["spec"]["selector"].items() <= pod.metadata["labels"].items()
    ]
    assert chosen == ["router"]


@pytest.mark.parametrize(
    ("name", "given", "policy"), [("edge", "", "Local"), ("edge", "Cluster", "Cluster"), ("laptop", "", None)]
)
def test_at_the_edge_callers_reach_the_router_of_their_own_node(name, given, policy):
    service = single(objects(ci(name, service={"internalTrafficPolicy": given})), "Service")
    assert service["spec"].get("internalTrafficPolicy") == policy


def test_the_admin_port_is_in_no_service_but_that_of_the_service_monitor():
    assert [one["spec"]["ports"][0]["port"] for one in of(objects(ci("onprem")), "Service")] == [8000]
    admin = single(objects(ci("ha-redis")), "Service", "-admin")
    assert admin["spec"]["clusterIP"] == "None"
    assert admin["spec"]["publishNotReadyAddresses"] is True
    monitor = single(objects(ci("ha-redis")), "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= admin["metadata"]["labels"].items()
    data = single(objects(ci("ha-redis")), "Service", "rel-pointsman")
    assert not monitor["spec"]["selector"]["matchLabels"].items() <= data["metadata"]["labels"].items()


def test_an_ingress_shows_the_two_apis_and_nothing_else():
    assert of(objects(ci("onprem")), "Ingress") == []
    ingress = single(objects(ci("onprem-cloud")), "Ingress")["spec"]
    assert ingress["ingressClassName"] == "nginx"
    assert ingress["tls"] == [{"secretName": "llm-example-com", "hosts": ["llm.example.com"]}]
    (rule,) = ingress["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/v1", "/v2"]
    assert {path["backend"]["service"]["port"]["name"] for path in rule["http"]["paths"]} == {"data"}
    plain = ci("onprem-cloud", ingress={"tlsSecret": "", "allowPlaintext": True})
    assert "tls" not in single(objects(plain), "Ingress")["spec"]


def test_an_http_route_shows_the_same_and_cuts_no_stream():
    """By hand: the definition of HTTPRoute (gateway.networking.k8s.io/v1) is not among the shared schemas."""
    assert of(objects(ci("onprem")), "HTTPRoute") == []
    route = single(objects(ci("ha-redis")), "HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert set(route["spec"]) == {"parentRefs", "hostnames", "rules"}
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
    (rule,) = route["spec"]["rules"]
    assert set(rule) == {"matches", "timeouts", "backendRefs"}
    assert [match["path"] for match in rule["matches"]] == [
        {"type": "PathPrefix", "value": "/v1"},
        {"type": "PathPrefix", "value": "/v2"},
    ]
    assert rule["timeouts"] == {"request": "0s"}
    assert rule["backendRefs"] == [{"name": "rel-pointsman", "port": 8000}]


def test_an_external_secret_says_where_the_secret_is_and_never_what_it_is():
    """By hand, as above (external-secrets.io/v1)."""
    assert of(objects(ci("onprem")), "ExternalSecret") == []
    secret = single(objects(ci("locked-down")), "ExternalSecret")
    assert secret["apiVersion"] == "external-secrets.io/v1"
    assert secret["spec"] == {
        "refreshInterval": "1h",
        "secretStoreRef": {"name": "vault", "kind": "ClusterSecretStore"},
        "target": {"name": "pointsman-admin", "creationPolicy": "Owner"},
        "data": [{"secretKey": "token", "remoteRef": {"key": "pointsman", "property": "admin-token"}}],
    }


def test_the_chart_makes_no_secret():
    for name in ("locked-down", "gpu-cloud", "onprem-cloud"):
        assert of(objects(ci(name)), "Secret") == []


@pytest.mark.parametrize(
    ("name", "over", "there"),
    [
        ("ha-redis", {}, True),
        ("ha-redis", {"podDisruptionBudget": {"enabled": False}}, False),
        ("laptop", {}, False),  # one pod: a budget would only keep its node from being emptied
        ("edge", {}, False),
        ("gpu-cloud", {}, True),
        ("gpu-cloud", {"ray": {"router": {"replicas": 1}}}, False),
    ],
)
def test_a_disruption_budget_is_there_where_there_are_several_pods(name, over, there):
    found = of(objects(ci(name, **over)), "PodDisruptionBudget")
    assert bool(found) == there
    for budget in found:
        assert budget["spec"]["selector"]["matchLabels"] == ROUTER
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_autoscaler_and_the_deployment_do_not_both_set_the_number_of_pods():
    scaled = objects(ci("onprem-cloud"))
    hpa = single(scaled, "HorizontalPodAutoscaler")["spec"]
    deployment = single(scaled, "Deployment")
    assert "replicas" not in deployment["spec"]
    assert hpa["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (2, 6)
    (metric,) = hpa["metrics"]
    assert metric["containerResource"]["container"] == template(scaled).spec["containers"][0]["name"]
    assert "cpu" in template(scaled).container("router")["resources"]["requests"]
    fixed = objects(ci("onprem-cloud", autoscaling={"enabled": False}, replicas=4))
    assert single(fixed, "Deployment")["spec"]["replicas"] == 4
    assert of(fixed, "HorizontalPodAutoscaler") == []


def test_an_update_loses_no_pod_before_the_next_is_there_unless_the_volume_has_one_owner():
    assert single(objects(ci("ha-redis")), "Deployment")["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    assert single(objects(ci("onprem")), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    log_only = ci("onprem", ledger={"type": "memory"})
    assert single(objects(log_only), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    passing = ci("onprem", ledger={"type": "memory"}, data={"type": "emptyDir"})
    assert single(objects(passing), "Deployment")["spec"]["strategy"]["type"] == "RollingUpdate"


def test_the_claim_is_kept_when_the_release_goes_and_another_can_be_named():
    claim = single(objects(ci("ha-redis")), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["spec"]["storageClassName"] == "shared"
    assert claim["spec"]["resources"]["requests"]["storage"] == "100Gi"
    own = objects(ci("ha-redis", data={"existingClaim": "mine"}))
    assert of(own, "PersistentVolumeClaim") == []
    volumes = {volume["name"]: volume for volume in template(own).spec["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "mine"}


def test_each_pod_writes_a_log_of_its_own_and_all_share_no_file():
    mounts = {
        mount["mountPath"]: mount for mount in template(objects(ci("ha-redis"))).container("router")["volumeMounts"]
    }
    assert mounts["/var/lib/pointsman/log"]["subPathExpr"] == "log/$(POD_NAME)"
    assert "/var/lib/pointsman/ledger" not in mounts
    nothing = template(objects(ci("laptop")))
    assert "data" not in [volume["name"] for volume in nothing.spec["volumes"]]


def test_the_configuration_is_mounted_as_a_folder_and_a_change_of_it_restarts_nothing():
    before, after = ci("onprem"), ci("onprem")
    after["config"]["files"]["policy.yaml"] += "# another\n"
    old, new = objects(before), objects(after)
    for mount in template(old).container("router")["volumeMounts"]:
        assert mount["name"] != "config" or not {"subPath", "subPathExpr"} & set(mount)
    assert single(old, "Deployment") == single(new, "Deployment")
    assert single(old, "ConfigMap", "-config") != single(new, "ConfigMap", "-config")
    after["config"]["env"] = {"SITE": "b"}  # variables are read at the start, so these do
    assert single(old, "Deployment") != single(objects(after), "Deployment")


def test_secrets_reach_the_router_by_reference_only():
    values = ci("onprem-cloud", secrets={"csi": [{"name": "vault.keys", "secretProviderClass": "keys"}]})
    router = template(objects(values))
    env = {variable["name"]: variable for variable in router.container("router")["env"]}
    assert env["CLOUD_API_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "pointsman-cloud", "key": "api-key"}}
    assert env["CLOUD_URL"]["value"] == "https://api.cloud.example.com"
    volumes = {volume["name"]: volume for volume in router.spec["volumes"]}
    assert volumes["secret-tenants"]["secret"]["secretName"] == "pointsman-tenants"
    assert volumes["secret-vault-keys"]["csi"]["volumeAttributes"] == {"secretProviderClass": "keys"}
    mounts = {mount["name"]: mount for mount in router.container("router")["volumeMounts"]}
    assert mounts["secret-vault-keys"]["mountPath"] == "/run/secrets/pointsman/vault.keys"
    assert all(mounts[name]["readOnly"] for name in ("secret-tenants", "secret-vault-keys", "admin-token", "config"))


def test_checking_waits_for_no_secret():
    """External Secrets may make one only after the hook has run; what checks needs keys for nothing."""
    found = objects(ci("onprem-cloud"))
    for pod, name in ((template(found), "check"), (template(found), "test"), (template(found, "check"), "check")):
        env = {variable["name"]: variable for variable in pod.container(name)["env"]}
        assert env["CLOUD_API_KEY"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert not {"secret", "csi"} & {kind for volume in template(found, "check").spec["volumes"] for kind in volume}


def test_a_ledgers_url_with_a_password_and_a_collectors_headers_come_from_secrets():
    otlp = {"endpoint": "http://collector.monitoring.svc:4318", "headers": {"secret": "otlp", "key": "headers"}}
    env = {
        variable["name"]: variable
        for variable in template(objects(ci("ha-redis", telemetry={"otlp": otlp}))).container("router")["env"]
    }
    assert env["POINTSMAN_LEDGER_URL"]["valueFrom"]["secretKeyRef"] == {"name": "pointsman-ledger", "key": "url"}
    assert env["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"]["secretKeyRef"] == {"name": "otlp", "key": "headers"}


def test_a_daemon_set_runs_where_it_is_told():
    pod = template(objects(ci("edge", edge={"hostPort": 8000})))
    assert pod.spec["nodeSelector"] == {"example.com/line": "true"}
    assert pod.spec["tolerations"][0]["key"] == "example.com/line"
    assert pod.container("router")["ports"][0]["hostPort"] == 8000
    assert "hostPort" not in template(objects(ci("edge"))).container("router")["ports"][0]
    update = single(objects(ci("edge")), "DaemonSet")["spec"]["updateStrategy"]
    assert update == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
    assert "nodeSelector" not in template(objects(ci("onprem"))).spec


def test_where_pods_go_can_be_said():
    placed = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "priorityClassName": "high",
        "runtimeClassName": "gvisor",
        "podLabels": {"team": "x"},
        "podAnnotations": {"note": "y"},
        "commonLabels": {"cost-centre": "42"},
    }
    pod = template(objects(ci("onprem", **placed)))
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "runtimeClassName"):
        assert pod.spec[key] == placed[key]
    assert pod.metadata["labels"]["team"] == "x"
    assert pod.metadata["annotations"] == {"note": "y"}
    assert all(one["metadata"]["labels"]["cost-centre"] == "42" for one in objects(ci("onprem", **placed)))


def test_pods_are_spread_over_zones_and_nodes_unless_told_otherwise():
    spread = template(objects(ci("onprem-cloud"))).spec["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert all(one["labelSelector"]["matchLabels"] == ROUTER for one in spread)
    own = template(objects(ci("ha-redis"))).spec["topologySpreadConstraints"]
    assert [one["whenUnsatisfiable"] for one in own] == ["DoNotSchedule"]


def test_prometheus_sends_the_admin_token():
    for name, kind, where in (
        ("onprem-cloud", "PodMonitor", "podMetricsEndpoints"),
        ("ha-redis", "ServiceMonitor", "endpoints"),
    ):
        monitor = single(objects(ci(name)), kind)
        (endpoint,) = monitor["spec"][where]
        assert (endpoint["port"], endpoint["path"]) == ("admin", "/metrics")
        assert endpoint["authorization"]["credentials"] == {"name": "pointsman-admin", "key": "token"}
    other = {"tokenSecret": {"name": "prometheus", "key": "only"}}
    (endpoint,) = single(objects(ci("onprem-cloud", monitoring=other)), "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "prometheus", "key": "only"}
    assert single(objects(ci("onprem-cloud")), "PodMonitor")["metadata"]["labels"]["release"] == "prometheus"
    assert single(objects(ci("onprem-cloud")), "PodMonitor")["spec"]["selector"]["matchLabels"] == ROUTER


def test_rules_and_dashboards_are_those_of_the_repository():
    found = objects(ci("onprem-cloud"))
    groups = [
        group
        for path in sorted((CHART / "files/prometheus").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    assert groups
    assert single(found, "PrometheusRule")["spec"]["groups"] == groups
    dashboards = {
        name: text
        for one in of(found, "ConfigMap")
        if one["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in one["data"].items()
    }
    files = sorted((CHART / "files/grafana").glob("*.json"))
    assert files
    assert dashboards == {f"pointsman-{path.name}": path.read_text() for path in files}
    for text in dashboards.values():
        assert json.loads(text)["uid"]
    assert all(len(text) < 900_000 for text in dashboards.values())  # a ConfigMap holds 1 MiB


def test_runbooks_are_links_where_they_are_told_a_base():
    rule = {"prometheusRule": {"runbookBase": "https://git.example.com/pointsman/docs/"}}
    text = json.dumps(single(objects(ci("onprem-cloud", monitoring=rule)), "PrometheusRule")["spec"])
    plain = json.dumps(single(objects(ci("onprem-cloud")), "PrometheusRule")["spec"])
    assert (
        plain.count('"runbook_url": "docs/')
        == text.count('"runbook_url": "https://git.example.com/pointsman/docs/')
        > 0
    )


def test_the_image_is_named_by_its_digest_where_there_is_one():
    image = template(objects(ci("locked-down"))).container("router")["image"]
    assert image.startswith("registry.example.com/pointsman@sha256:")
    assert template(objects(ci("locked-down"))).spec["imagePullSecrets"] == [{"name": "registry"}]
    assert template(objects(ci("onprem"))).container("router")["image"] == "registry.example.com/pointsman:0.1.0"


def test_names_can_be_chosen():
    assert {one["metadata"]["name"] for one in objects(ci("laptop", fullnameOverride="gate"))} == {
        "gate", "gate-config", "gate-router", "gate-test", "gate-check",
    }  # fmt: skip
    assert single(objects(ci("laptop", nameOverride="gate")), "Deployment")["metadata"]["name"] == "rel-gate"
    account = {"serviceAccount": {"create": False, "name": "theirs"}}
    found = objects(ci("laptop", **account))
    assert of(found, "ServiceAccount") == []
    assert {pod.spec["serviceAccountName"] for pod in templates(found)} == {"theirs"}
    of_release = {pod.who: pod.spec["serviceAccountName"] for pod in templates(objects(ci("laptop")))}
    # The hook runs before there is a ServiceAccount of the release.
    assert of_release == {"router": "rel-pointsman", "test": "rel-pointsman", "check": "default"}


def test_tests_can_be_left_out():
    found = objects(ci("laptop", tests={"enabled": False}))
    assert of(found, "Pod") == []
    names = {one["metadata"]["name"] for one in of(found, "NetworkPolicy")}
    assert names == {"rel-pointsman-router", "rel-pointsman-check"}


@pytest.mark.parametrize(
    ("name", "over", "told"),
    [
        ("ha-redis", {"ledger": {"type": "memory"}}, "Budgets and limits are counted in each pod by itself"),
        ("edge", {"edge": {"hostPort": 8000}}, "cannot enforce the baseline Pod Security Standard"),
        ("laptop", {"networkPolicy": {"enabled": False}}, "There is no network policy"),
        ("laptop", {}, "Nobody but the kubelet reaches the admin port"),
    ],
)
def test_the_notes_say_what_one_should_know(name, over, told):
    notes = rendered(ci(name, **over))["pointsman/templates/NOTES.txt"]
    assert told in notes
    assert told not in rendered(ci("onprem-cloud"))["pointsman/templates/NOTES.txt"]
