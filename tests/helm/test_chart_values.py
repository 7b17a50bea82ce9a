"""Values: what the schema refuses, what does not go together, and that no key can be among them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from charts import CHART, CI, chart, ci, merged, objects, refused, single
from conftest import ROOT

from docs import chart_reference
from docs.chart_schema import text as schema_text
from docs.chart_schema import values as values_of


def wrong(path: str, value: Any) -> dict[str, Any]:
    """The laptop's values with one more."""
    over: Any = value
    for key in reversed(path.split("/")):
        over = {key: over}
    return merged(ci("laptop"), over)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("engin", "local", "additional properties 'engin' not allowed"),
        ("engine", "kubernetes", "at '/engine': value must be one of 'local', 'ray'"),
        ("replicas", 0, "at '/replicas': minimum: got 0, want 1"),
        ("replicas", "two", "at '/replicas': got string, want integer"),
        ("serve/drain", -1, "at '/serve/drain': minimum: got -1, want 0"),
        ("serve/logLevel", "trace", "at '/serve/logLevel': value must be one of"),
        ("serve/maxBody", "32 megabytes", "at '/serve/maxBody'"),
        ("service/prot", 80, "additional properties 'prot' not allowed"),
        ("image/digest", "sha256:abc", "at '/image/digest'"),
        ("resources", {"requests": {"cpu": "1"}, "limit": {}}, "additional properties 'limit' not allowed"),
        ("tolerations", [{"key": "x", "efect": "NoSchedule"}], "additional properties 'efect' not allowed"),
        ("affinity", {"podAntiAfinity": {}}, "additional properties 'podAntiAfinity' not allowed"),
        ("networkPolicy/hosts", {"a.example.com": ["10.0.0.1"]}, "at '/networkPolicy/hosts/a.example.com/0'"),
        ("networkPolicy/hosts", {"a.example.com": []}, "minItems: got 0, want 1"),
        ("networkPolicy/clients", [{"podSelectors": {}}], "additional properties 'podSelectors' not allowed"),
        ("ledger/type", "sqlite", "at '/ledger/type': value must be one of 'memory', 'file', 'redis'"),
        ("telemetry/otlp/share", 2, "at '/telemetry/otlp/share': maximum: got 2, want 1"),
        ("ray/groups", {"gpu": {"backends": []}}, "missing property 'resources'"),
        ("ray/groups", {"GPU": {"backends": [], "resources": {}}}, "at '/ray/groups'"),
        ("secrets/env", {"KEY": {"secret": "s"}}, "missing property 'key'"),
        ("secrets/external", [{"name": "x", "data": {}}], "missing property 'store'"),
        ("extraVolumes", [{"name": "x", "hostPath": {"path": "/"}}], "invalid propertyName 'hostPath'"),
        ("config/files", {"../fleet.yaml": ""}, "at '/config/files'"),
        ("monitoring/podMonitor/interval", "often", "at '/monitoring/podMonitor/interval'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_and_the_message_names_it(path, value, told):
    assert told in refused(wrong(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("config/env/CLOUD_API_KEY", "x"),
        ("config/env/TOKEN", "x"),
        ("config/env/db_password", "x"),
        ("config/env/CLIENT_SECRET", "x"),
        ("config/env/LLM", "sk-proj-0123456789"),
        ("config/env/LLM", "https://user:hunter2@example.com"),
        ("config/env/LLM", "Bearer abcdef"),
        ("config/env/LLM", "-----BEGIN PRIVATE KEY-----"),
        ("ray/env/RAY_AUTH_TOKEN", "x"),
        ("secrets/env/CLOUD_API_KEY", "sk-proj-0123456789"),
        ("secrets/env/CLOUD_API_KEY", {"value": "sk-proj-0123456789"}),
        ("adminToken/token", "a-token-that-is-long-enough"),
        ("adminToken/value", "a-token-that-is-long-enough"),
        ("ledger/redis/url", "redis://:hunter2@redis:6379/0"),
        ("ledger/redis/password", "hunter2"),
        ("ray/gcsFaultTolerance/password", {"value": "hunter2"}),
        ("ray/auth/token", "hunter2hunter2"),
        ("telemetry/otlp/endpoint", "http://user:hunter2@collector:4318"),
        ("telemetry/otlp/headers", {"authorization": "Bearer hunter2"}),
        ("networkPolicy/urls/x", "http://user:hunter2@llm"),
        ("monitoring/tokenSecret/token", "hunter2"),
    ],
)  # fmt: skip
def test_no_value_can_be_a_key(path, value):
    said = refused(wrong(path, value))
    secret = value if isinstance(value, str) else next(iter(value.values()))
    assert secret == "x" or secret not in said.replace("got string, want object", ""), said


@pytest.mark.parametrize("form", [str, dict])
def test_a_fleet_cannot_hold_a_key(form):
    values = ci("onprem-cloud")
    fleet = yaml.safe_load(values["config"]["files"]["fleet.yaml"])
    fleet["backends"][1]["api_key"] = "sk-proj-0123456789"
    values["config"]["files"]["fleet.yaml"] = yaml.safe_dump(fleet) if form is str else fleet
    said = refused(values)
    assert "api_key" in said
    assert "0123456789" not in said


def test_a_variable_that_the_fleet_takes_a_key_from_must_come_from_a_secret():
    values = ci("onprem-cloud")
    files = values["config"]["files"]
    files["fleet.yaml"] = files["fleet.yaml"].replace("CLOUD_API_KEY", "CLOUD_ACCESS")
    assert "secrets.env.CLOUD_ACCESS: the files take a key from this variable. Name the Secret" in refused(values)
    values["config"]["env"]["CLOUD_ACCESS"] = "abc"
    said = refused(values)
    assert "config.env.CLOUD_ACCESS: the files take a key from this variable, so it belongs in a Secret" in said
    del values["config"]["env"]["CLOUD_ACCESS"]
    values["secrets"]["env"]["CLOUD_ACCESS"] = {"secret": "s", "key": "k"}
    assert objects(values)


@pytest.mark.parametrize(
    ("name", "over", "told"),
    [
        ("laptop", {"image": {"repository": ""}}, "image.repository: no image is published"),
        ("laptop", {"adminToken": {"existingSecret": ""}}, "adminToken.existingSecret: the admin port listens beyond"),
        ("laptop", {"engine": "ray", "role": "edge"}, "role: edge needs engine: local"),
        ("laptop", {"config": {"existingConfigMap": "mine"}}, "config: give either files or existingConfigMap"),
        ("laptop", {"serve": {"allowAnonymous": False}}, "config.files: no document of kind Tenants"),
        ("laptop", {"serve": {"candidate": "next.yaml.candidate"}}, "no next.yaml.candidate in config.files"),
        ("laptop", {"config": {"files": {"words.txt": {"apiVersion": "a", "kind": "b"}}}}, "must end in .yaml"),
        ("laptop", {"config": {"files": {"fleet.yaml": "kind: Fleet\nbackends: ["}}}, "Helm cannot read this YAML"),
        ("laptop", {"config": {"files": {"fleet.yaml": "kind: Policy"}}}, "no document of kind Fleet"),
        ("laptop", {"replicas": 2, "ledger": {"type": "file"}}, "ledger.type: a file has one owner"),
        ("laptop", {"ledger": {"type": "redis"}}, "ledger.redis: give its url"),
        ("onprem-cloud", {"ledger": {"redis": {"existingSecret": "s"}}}, "give either url or existingSecret"),
        ("ha-redis", {"ledger": {"redis": {"address": ""}}}, "ledger.redis.address: the network policy cannot see"),
        ("ha-redis", {"data": {"accessMode": "ReadWriteOnce"}}, "data.accessMode: several pods share the claim"),
        ("edge", {"autoscaling": {"enabled": True}}, "autoscaling.enabled: only for engine local and role site"),
        ("onprem-cloud", {"autoscaling": {"maxReplicas": 1}}, "autoscaling.maxReplicas: less than minReplicas"),
        ("onprem-cloud", {"ingress": {"hosts": []}}, "ingress.hosts: for which names?"),
        ("onprem-cloud", {"ingress": {"tlsSecret": ""}}, "without TLS the callers' keys travel in clear"),
        ("ha-redis", {"httpRoute": {"parentRefs": []}}, "httpRoute.parentRefs: at which Gateway?"),
        ("gpu-cloud", {"ledger": {"type": "file"}}, "ledger.type: on Ray a file would be one node's"),
        ("gpu-cloud", {"ray": {"groups": {"torch-gpu": {"backends": ["llm"]}}}}, "no backend llm with protocol torch"),
        ("gpu-cloud", {"ray": {"groups": {"torch-gpu": {"backends": []}}}}, "none has the backend gpu-classifier"),
        ("gpu-cloud", {"ray": {"autoscaler": True}}, "networkPolicy.apiServer: with ray.autoscaler"),
        ("gpu-cloud", {"ray": {"gcsFaultTolerance": {"redisAddress": ""}}}, "redisAddress: which Redis?"),
        ("gpu-cloud", {"ray": {"upgrade": {"strategy": "NewClusterWithIncrementalUpgrade"}}}, "Take NewCluster"),
        ("gpu-cloud", {"secrets": {"files": [{"name": "admin", "secret": "s"}]}}, "name admin is the admin token's"),
        ("onprem", {"config": {"files": {"policy_test.yaml": None}}}, "config.files: no *_test.yaml"),
    ],
)  # fmt: skip
def test_values_that_do_not_go_together_are_refused_with_what_to_do(name, over, told):
    values = ci(name, **over)
    values["config"]["files"] = {k: v for k, v in values["config"].get("files", {}).items() if v is not None}
    assert told in refused(values)


def test_all_that_is_wrong_is_told_at_once():
    said = refused({})
    for problem in ("image.repository", "adminToken.existingSecret", "config.files: no fleet and no policy"):
        assert problem in said


# --- the files around the values --------------------------------------------------------------------------------------


def test_every_mapping_of_the_schema_is_closed():
    """A misspelt value is refused wherever it stands. `config.files` holds files of any
    name."""
    schema = json.loads((CHART / "values.schema.json").read_text())

    def open_ones(part: Any, path: str) -> list[str]:
        if isinstance(part, list):
            return [found for one in part for found in open_ones(one, path)]
        if not isinstance(part, dict):
            return []
        found = [open_ones(value, f"{path}/{key}") for key, value in part.items()]
        own = part.get("type") == "object" and "properties" in part and part.get("additionalProperties") is not False
        return [one for some in found for one in some] + ([path] if own else [])

    assert [path for path in open_ones(schema, "") if "configFiles" not in path] == []


def test_every_value_is_described():
    for value in values_of((CHART / "values.yaml").read_text()):
        for leaf in value.leaves():
            assert leaf.description.endswith((".", "…")), leaf.path
            assert (
                leaf.description[0].isupper() or leaf.description[0] == "`" or leaf.description.split(":")[0].islower()
            )


def test_the_defaults_are_what_values_yaml_says_and_pass_the_schema():
    chart().validate_schema({})
    assert schema_text() == (CHART / "values.schema.json").read_text(), "run `make docs`"


def test_the_chart_carries_the_dashboards_and_rules_of_the_repository_and_no_others():
    copies = chart_reference.copies()
    if not copies:
        pytest.skip("no configs/grafana and configs/prometheus here: `make docs` copies them once they are")
    there = {path for path in (CHART / "files").rglob("*") if path.is_file()}
    assert there == set(copies), "run `make docs`, and remove what configs/ no longer has"
    for path, source in copies.items():
        assert path.read_text() == source.read_text(), "run `make docs`"


def test_the_version_of_the_app_is_that_of_the_package():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart().metadata["appVersion"] == project["version"]


def test_files_may_be_texts_or_mappings_and_say_the_same():
    texts = ci("onprem")
    mappings = ci("onprem")
    files = mappings["config"]["files"]
    mappings["config"]["files"] = {name: yaml.safe_load(text) for name, text in files.items()}
    for name, text in single(objects(texts), "ConfigMap", "-config")["data"].items():
        assert text == texts["config"]["files"][name], "to the letter"
        again = single(objects(mappings), "ConfigMap", "-config")["data"][name]
        assert yaml.safe_load(again) == yaml.safe_load(text)


@pytest.mark.parametrize("name", CI)
def test_the_chart_can_be_packaged_and_is_the_same_from_its_archive(name, tmp_path):
    import helm_python

    archive = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(archive) as packed:
        assert packed.render(ci(name), name="rel", namespace="inference") == chart().render(
            ci(name), name="rel", namespace="inference"
        )
        assert not [one["name"] for one in packed.files if one["name"].startswith("ci/")]
