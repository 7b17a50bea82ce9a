"""The chart as Helm's own engine renders it, and what a kubelet would make of the result."""

from __future__ import annotations

import copy
import functools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import ROOT, SHARED
from helm_python import Chart, HelmError

CHART = ROOT / "helm" / "pointsman"
CI = {path.stem.removesuffix("-values"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
RELEASE, NAMESPACE = "rel", "inference"
VERSIONS = ("1.31.0", "1.34.0", "1.37.0")
"""Three minor versions: an old one, a usual one, and the newest that kubernetes-validate knows."""
Object = dict[str, Any]
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def chart() -> Chart:
    return Chart.load(CHART)


@functools.cache
def _ci(name: str) -> str:
    return json.dumps(yaml.safe_load(CI[name].read_text()))


def ci(name: str, **changed: Any) -> dict[str, Any]:
    """The values of one file in ci/; `changed` is laid over them as a second `-f` would be."""
    return merged(json.loads(_ci(name)), changed)


def merged(values: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(values)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(value, Mapping) and isinstance(below, dict)
        result[key] = merged(below, value) if both and below else value
    return result


def rendered(values: dict[str, Any]) -> dict[str, str]:
    """Every template's text. Raises HelmError as `helm install` would, the schema's refusal first."""
    chart().validate_schema(values)
    return chart().render(values, name=RELEASE, namespace=NAMESPACE)


def objects(values: dict[str, Any]) -> list[Object]:
    """What the release consists of; the caller's own, to be changed."""
    return copy.deepcopy(_objects(json.dumps(values)))


@functools.cache
def _objects(values: str) -> list[Object]:
    texts = (text for path, text in rendered(json.loads(values)).items() if not path.endswith(".txt"))
    return [found for text in texts for found in yaml.load_all(text, LOADER) if found]


def refused(values: dict[str, Any]) -> str:
    """What is said of values that are wrong."""
    with pytest.raises(HelmError) as error:
        rendered(values)
    return " ".join(error.value.detail.split())


def of(found: list[Object], kind: str, name: str = "") -> list[Object]:
    return [one for one in found if one["kind"] == kind and one["metadata"]["name"].endswith(name)]


def single(found: list[Object], kind: str, name: str = "") -> Object:
    (only,) = of(found, kind, name)
    return only


@dataclass(frozen=True)
class Template:
    """A pod that something in the release makes."""

    who: str  # Deployment, head, router, …
    metadata: Object
    spec: Object

    def container(self, name: str = "") -> Object:
        containers = [*self.spec["containers"], *self.spec.get("initContainers", ())]
        return next(one for one in containers if name in ("", one["name"]))

    @property
    def containers(self) -> list[Object]:
        return [*self.spec["containers"], *self.spec.get("initContainers", ())]


def templates(found: list[Object]) -> Iterator[Template]:
    for one in found:
        if one["kind"] in ("Deployment", "DaemonSet"):
            yield _template("router", one["spec"]["template"])
        if one["kind"] == "RayService":
            cluster = one["spec"]["rayClusterConfig"]
            yield _template("head", cluster["headGroupSpec"]["template"])
            for group in cluster["workerGroupSpecs"]:
                yield _template(group["groupName"], group["template"])
        if one["kind"] == "Job":
            yield _template("check", one["spec"]["template"])
        if one["kind"] == "Pod":
            yield _template("test", one)


def _template(who: str, template: Object) -> Template:
    return Template(who, template["metadata"], template["spec"])


def template(found: list[Object], who: str = "router") -> Template:
    return next(one for one in templates(found) if one.who == who)


# --- what a cluster would say -----------------------------------------------------------------------------------------

CRDS = {
    "RayService": "ray.io_rayservices.yaml",
    "PodMonitor": "crd-podmonitors.yaml",
    "ServiceMonitor": "crd-servicemonitors.yaml",
    "PrometheusRule": "crd-prometheusrules.yaml",
}
NO_CRD = {"HTTPRoute", "ExternalSecret"}
"""Their definitions are not among the shared schemas: tests of their own look at them."""


def check_object(found: Object, version: str) -> None:
    """Strictly, unknown fields refused, as Kubernetes `version` or the object's own CRD has it."""
    kind = found["kind"]
    if kind in CRDS:
        if not SHARED.exists():
            pytest.skip(f"no {SHARED.name}/schemas beside the repository")
        _crd(kind).validate(found)
    elif kind not in NO_CRD:
        kubernetes_validate.validate(found, version, strict=True)


@functools.cache
def _crd(kind: str) -> jsonschema.Draft202012Validator:
    crd = yaml.load((SHARED / "schemas" / CRDS[kind]).read_text(), LOADER)
    (version,) = [one for one in crd["spec"]["versions"] if one["name"] == "v1"]
    schema = _strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def _strict(schema: Any) -> Any:
    """A structural schema as JSON Schema that refuses what the API server would drop."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items() if key not in ("format", "default")}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        strict["properties"] = {name: _strict(value) for name, value in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            strict["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
        strict["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return strict


# --- what a kubelet would do ------------------------------------------------------------------------------------------


def lay_out(found: list[Object], of_pod: Template, folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
    """The pod's volumes as folders below `folder`, ConfigMaps as the kubelet writes them: links to links."""
    done: set[Path] = set()
    sources = {volume["name"]: volume for volume in of_pod.spec["volumes"]}
    for container in of_pod.containers:
        for mount in container["volumeMounts"]:
            where = folder / mount["mountPath"].lstrip("/")
            if where in done:
                continue
            done.add(where)
            where.mkdir(parents=True, exist_ok=True)
            source = sources[mount["name"]]
            if "configMap" in source:
                write_config_map(single(found, "ConfigMap", source["configMap"]["name"])["data"], where)
            elif "secret" in source:
                for key, text in secrets[source["secret"]["secretName"]].items():
                    (where / key).write_text(text)


def write_config_map(data: Mapping[str, str], where: Path) -> None:
    """Anew beside the old one, then the link is turned: nobody sees half of it."""
    number = len([path for path in where.iterdir() if path.name.startswith("..20")])
    real = where / f"..2026_01_01_00_00_{number:02}.1"
    real.mkdir()
    for name, text in data.items():
        (real / name).write_text(text)
    link = where / "..data_tmp"
    link.symlink_to(real.name)
    link.replace(where / "..data")
    for name in data:
        if not (where / name).is_symlink():
            (where / name).symlink_to(f"..data/{name}")


def command(container: Object, folder: Path) -> list[str]:
    """What the container runs, `pointsman` being this repository's, and its folders those below `folder`."""
    words = [*container["command"], *container["args"]]
    assert words[0] == "pointsman"
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    return [sys.executable, "-m", "router", *(_moved(word, mounts, folder) for word in words[1:])]


def _moved(word: str, mounts: list[str], folder: Path) -> str:
    """A path within a mount is one below `folder`; every other word stays."""
    flag, equals, path = word.rpartition("=")
    inside = any(path == mount or path.startswith(mount + "/") for mount in mounts)
    return f"{flag}{equals}{folder}{path}" if inside else word


def environment(container: Object, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The container's variables and nothing else but what Python needs to find this repository."""
    found = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    for variable in container["env"]:
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        elif "secretKeyRef" in variable["valueFrom"]:
            reference = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = secrets[reference["name"]][reference["key"]]
    return found


def lint(values: dict[str, Any], version: str) -> list[str]:
    """Errors and warnings of `helm lint --strict`."""
    report = helm_python.lint(CHART, values, strict=True, namespace=NAMESPACE, kube_version=f"v{version}")
    told = [f"{one['path']}: {one['error']}" for one in report["messages"] if one["severity"] >= 2]
    return told + report["errors"]
