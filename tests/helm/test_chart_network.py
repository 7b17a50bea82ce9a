"""The network policy against the fleet: what may be reached is what the fleet names, and nothing else.

What it must be is computed here, by the router's own reader of fleets and Python's own of URLs, not as the chart does.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import pytest
from charts import CI, NAMESPACE, ci, objects, of, refused, single, template, templates

from policies.source import Document, parse

DNS = {53}
DEFAULT_PORTS = {"http": 80, "https": 443, "redis": 6379}
Reached = set[tuple[str, int]]


def documents(values: dict[str, Any], found: list[dict[str, Any]]) -> list[Document]:
    data = single(found, "ConfigMap", "-config")["data"]
    texts = {name: text for name, text in data.items() if name.endswith(".yaml") and not name.endswith("_test.yaml")}
    env = values["config"].get("env", {})
    read = [parse(text, name, env) for name, text in texts.items()]
    assert not [problem for _, problems in read for problem in problems]
    return [document for found, _ in read for document in found]


def expected(values: dict[str, Any], found: list[dict[str, Any]]) -> Reached:
    urls = []
    for document in documents(values, found):
        if document.kind == "Fleet":
            urls += [backend["url"] for backend in document.data["backends"] if "url" in backend]
        if document.kind == "Tenants" and "jwt" in document.data:
            urls.append(document.data["jwt"]["jwks"]["url"])
    ledger = values.get("ledger", {})
    if ledger.get("type") == "redis":
        redis = ledger["redis"]
        urls.append(redis.get("url") or f"redis://{redis['address']}")
    if endpoint := values.get("telemetry", {}).get("otlp", {}).get("endpoint"):
        urls.append(endpoint)
    return {place for url in urls for place in places(url, values.get("networkPolicy", {}))}


def places(url: str, policy: dict[str, Any]) -> Reached:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    try:
        address = ipaddress.ip_address(host)
        return set() if address.is_loopback else {(f"{address}/{address.max_prefixlen}", port)}
    except ValueError:
        pass
    if host in policy.get("hosts", {}):
        return {(cidr, port) for cidr in policy["hosts"][host]}
    service = policy.get("services", {}).get(host, {})
    labels = host.split(".")
    namespace = service.get("namespace") or (labels[1] if len(labels) > 1 else NAMESPACE)
    return {(f"{namespace}/{service.get('podLabels', {})}", service.get("port", port))}


def allowed(policy: dict[str, Any]) -> Reached:
    """What a rendered policy lets out, DNS left out."""
    result: Reached = set()
    for rule in policy["spec"]["egress"]:
        assert set(rule) == {"to", "ports"} and rule["to"] and rule["ports"], "a rule without either allows everything"
        for port in (one["port"] for one in rule["ports"]):
            result |= {(peer(one), port) for one in rule["to"] if port not in DNS}
    return result


def peer(peer: dict[str, Any]) -> str:
    if "ipBlock" in peer:
        assert set(peer) == {"ipBlock"} and set(peer["ipBlock"]) == {"cidr"}
        return str(peer["ipBlock"]["cidr"])
    namespace = peer["namespaceSelector"]["matchLabels"]
    assert list(namespace) == ["kubernetes.io/metadata.name"]
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    return f"{namespace['kubernetes.io/metadata.name']}/{labels}"


@pytest.mark.parametrize("name", CI)
def test_what_may_be_reached_is_what_the_fleet_names(name):
    values = ci(name)
    found = objects(values)
    assert allowed(single(found, "NetworkPolicy", "-router")) == expected(values, found)


@pytest.mark.parametrize("name", [name for name in CI if name != "laptop"])
def test_a_backend_more_is_a_way_out_more_and_one_less_is_one_less(name):
    """The test above can fail: with the fleet changed and the old policy, it does."""
    values = ci(name)
    before = objects(values)
    files = values["config"]["files"]
    more = {"name": "new", "tier": "cloud", "region": "x", "protocol": "oip", "url": "http://192.0.2.99:9000",
            "models": {"m": {"task": "chat"}}}  # fmt: skip
    fleet, *_ = [one for one in documents(values, before) if one.kind == "Fleet"]
    files["fleet.yaml"] = {**fleet.data, "backends": [*fleet.data["backends"], more]}
    after = objects(values)
    old, new = (allowed(single(found, "NetworkPolicy", "-router")) for found in (before, after))
    assert new - old == {("192.0.2.99/32", 9000)}
    assert old <= new
    assert new == expected(values, after) != old


@pytest.mark.parametrize("name", CI)
def test_every_pod_is_under_a_policy_for_both_directions(name):
    found = objects(ci(name))
    for pod in templates(found):
        assert [policy for policy in of(found, "NetworkPolicy") if selects(policy, pod.metadata["labels"])], pod.who
    for policy in of(found, "NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "rel"


def selects(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = policy["spec"]["podSelector"]["matchLabels"]
    return all(labels.get(key) == value for key, value in wanted.items())


@pytest.mark.parametrize("name", CI)
def test_the_admin_port_is_for_those_who_are_named_and_nobody_else(name):
    values = ci(name)
    admins = values.get("networkPolicy", {}).get("admins", [])
    ingress = single(objects(values), "NetworkPolicy", "-router")["spec"]["ingress"]
    open_to = {rule["ports"][0]["port"]: rule.get("from") for rule in ingress}
    assert open_to.get("admin") == (admins or None)
    assert set(open_to) == ({"data", "admin"} if admins else {"data"})
    assert all(rule["ports"] for rule in ingress)


def test_callers_can_be_named():
    policy = single(objects(ci("locked-down")), "NetworkPolicy", "-router")
    (data,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == "data"]
    named, tests = data["from"]
    assert named["podSelector"] == {"matchLabels": {"app": "desk"}}
    assert tests["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"


def test_rays_ports_are_open_inside_the_release_and_to_the_operator_only():
    found = objects(ci("gpu-cloud"))
    head = template(found, "head").metadata["labels"]
    selecting = [policy for policy in of(found, "NetworkPolicy") if selects(policy, head)]
    assert {policy["metadata"]["name"] for policy in selecting} == {"rel-pointsman-ray", "rel-pointsman-head"}
    inside, operator = (single(found, "NetworkPolicy", name)["spec"]["ingress"] for name in ("-ray", "-head"))
    (only,) = inside[0]["from"]
    assert set(only) == {"podSelector"}  # no namespaceSelector: this namespace
    assert only["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "rel"
    assert [port["port"] for port in operator[0]["ports"]] == [8265]
    (other,) = operator[0]["from"]
    assert other["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kuberay-operator"}
    for who in ("head", "router", "torch-gpu"):
        assert selects(single(found, "NetworkPolicy", "-ray"), template(found, who).metadata["labels"])
    assert not selects(single(found, "NetworkPolicy", "-router"), template(found, "torch-gpu").metadata["labels"])


def test_the_head_reaches_redis_and_with_the_autoscaler_the_api_server():
    head = single(objects(ci("gpu-cloud")), "NetworkPolicy", "-head")
    assert allowed(head) == {("data/{}", 6379)}
    scaled = ci("gpu-cloud", ray={"autoscaler": True}, networkPolicy={"apiServer": ["10.0.0.1/32"]})
    scaled["ray"]["groups"]["torch-gpu"]["maxReplicas"] = 4
    head = single(objects(scaled), "NetworkPolicy", "-head")
    assert allowed(head) == {("data/{}", 6379), ("10.0.0.1/32", 443), ("10.0.0.1/32", 6443)}


def test_what_checks_files_reaches_nobody_and_is_reached_by_nobody():
    policy = single(objects(ci("onprem-cloud")), "NetworkPolicy", "-check")
    assert (policy["spec"]["ingress"], policy["spec"]["egress"]) == ([], [])


# --- each kind of host ------------------------------------------------------------------------------------------------


def with_url(url: str, **values: Any) -> dict[str, Any]:
    models = {"m": {"task": "chat"}}
    backend = {"name": "b", "tier": "cloud", "region": "x", "protocol": "openai", "url": url, "models": models}
    fleet = {"apiVersion": "pointsman/v1", "kind": "Fleet", "backends": [backend]}
    return ci("laptop", config={"files": {"fleet.yaml": fleet}}, **values)


def reached(values: dict[str, Any]) -> Reached:
    return allowed(single(objects(values), "NetworkPolicy", "-router"))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://10.1.2.3:8000", ("10.1.2.3/32", 8000)),
        ("https://10.1.2.3", ("10.1.2.3/32", 443)),
        ("http://10.1.2.3/prefix", ("10.1.2.3/32", 80)),
        ("http://[2001:db8::7]:8000", ("2001:db8::7/128", 8000)),
        ("http://vllm:8000", (f"{NAMESPACE}/{{}}", 8000)),
        ("http://vllm.models.svc:8000/x", ("models/{}", 8000)),
        ("http://VLLM.models.svc.cluster.local:8000", ("models/{}", 8000)),
        ("https://vllm.models.svc.", ("models/{}", 443)),
    ],
)
def test_hosts_that_need_no_entry(url, place):
    assert reached(with_url(url)) == {place}


@pytest.mark.parametrize("url", ["http://127.0.0.1:8101", "http://localhost:8101", "http://[::1]:8101"])
def test_the_pod_itself_needs_no_rule(url):
    assert reached(with_url(url)) == set()


def test_a_host_outside_has_the_addresses_of_its_entry_and_the_urls_port():
    hosts = {"a.example.com": ["192.0.2.0/28", "2001:db8::/64"]}
    values = with_url("https://a.example.com:8443", networkPolicy={"hosts": hosts})
    assert reached(values) == {("192.0.2.0/28", 8443), ("2001:db8::/64", 8443)}


def test_a_service_may_mean_some_pods_and_another_port():
    services = {"vllm.models.svc": {"podLabels": {"app": "vllm"}, "port": 8000}}
    values = with_url("http://vllm.models.svc", networkPolicy={"services": services})
    assert reached(values) == {("models/{'app': 'vllm'}", 8000)}


def test_a_service_of_another_name_says_its_namespace():
    services = {"llm.internal": {"namespace": "models", "port": 8000}}
    assert reached(with_url("http://llm.internal", networkPolicy={"services": services})) == {("models/{}", 8000)}
    said = refused(with_url("http://llm.internal", networkPolicy={"services": {"llm.internal": {}}}))
    assert "networkPolicy.services.llm.internal: say its namespace" in said


def test_every_host_without_an_entry_is_named_at_once_with_what_to_do():
    values = ci("onprem-cloud")
    del values["networkPolicy"]["hosts"]
    said = refused(values)
    assert "- api.cloud.example.com (backend cloud)" in said
    assert "- login.example.com (jwt.jwks)" in said
    assert "networkPolicy: {hosts: {api.cloud.example.com: [203.0.113.0/24]}}" in said


def test_a_variable_is_taken_from_config_env_and_else_from_its_default():
    given = with_url("http://${LLM}:${PORT:-8000}")
    assert "the URL of backend b has ${LLM}, and config.env has no LLM" in refused(given)
    given["config"]["env"] = {"LLM": "10.9.9.9"}
    assert reached(given) == {("10.9.9.9/32", 8000)}
    given["config"]["env"]["PORT"] = "9000"
    assert reached(given) == {("10.9.9.9/32", 9000)}


def test_a_url_from_a_secret_is_refused_until_it_is_told_beside():
    given = with_url("${LLM_URL:-http://10.0.0.1}", secrets={"env": {"LLM_URL": {"secret": "s", "key": "k"}}})
    said = refused(given)
    assert "where it is in a Secret, give the URL in networkPolicy.urls.b" in said
    given["networkPolicy"] = {"urls": {"b": "https://10.7.7.7"}}
    assert reached(given) == {("10.7.7.7/32", 443)}


def test_a_url_that_cannot_be_understood_is_refused_without_what_may_be_a_password():
    said = refused(with_url("http://user:hunter2@10.0.0.1"))
    assert "backend b" in said
    assert "hunter2" not in said


def test_backends_of_an_included_file_are_refused():
    fleet = "apiVersion: pointsman/v1\nkind: Fleet\nbackends: {include: backends.yaml}\n"
    said = refused(ci("laptop", config={"files": {"fleet.yaml": fleet}}))
    assert "write the backends here" in said


def test_a_config_map_of_ones_own_needs_its_urls():
    values = ci("laptop")
    values["config"] = {"existingConfigMap": "mine"}
    assert "networkPolicy.urls: the fleet is in a ConfigMap that Helm does not read" in refused(values)
    values["networkPolicy"] = {"urls": {"a": "http://10.0.0.1:8000", "b": "http://10.0.0.2:8000"}}
    assert reached(values) == {("10.0.0.1/32", 8000), ("10.0.0.2/32", 8000)}
    assert template(objects(values)).spec["volumes"][1]["configMap"] == {"name": "mine"}
    values["networkPolicy"] = {"enabled": False}
    assert of(objects(values), "NetworkPolicy") == []


def test_several_documents_in_one_file_are_all_read():
    files = ci("onprem")["config"]["files"]
    joined = "\n--- # next\n".join(files.pop(name) for name in ("policy.yaml", "fleet.yaml", "tenants.yaml"))
    values = ci("onprem")
    values["config"]["files"] = {"all.yaml": joined, **files}
    assert reached(values) == reached(ci("onprem"))


def test_further_rules_are_added_as_they_are():
    rule = {"to": [{"ipBlock": {"cidr": "10.5.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 3128}]}
    assert ("10.5.0.0/16", 3128) in reached(ci("laptop", networkPolicy={"extraEgress": [rule]}))


def test_names_are_asked_of_the_clusters_dns_and_nobody_else():
    policy = single(objects(ci("locked-down")), "NetworkPolicy", "-router")
    dns, *others = policy["spec"]["egress"]
    assert [port["protocol"] for port in dns["ports"]] == ["UDP", "TCP"]
    pods, cache = dns["to"]
    assert pods["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
    assert pods["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    assert cache == {"ipBlock": {"cidr": "169.254.20.10/32"}}
    assert not [rule for rule in others if rule["ports"][0]["port"] == 53]
