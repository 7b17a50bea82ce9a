"""The chart's values.schema.json, made from helm/pointsman/values.yaml and its comments.

The comment above a value is its description; a line `@schema {…}` in it says what its default does not tell. A mapping
takes the keys that stand in values.yaml and no others, so that a misspelt value is refused and not ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "helm" / "pointsman"
OLDEST = "v1.30.0"
"""Of the Kubernetes versions that the chart is for: what the oldest does not know must not be in a value."""
MARK = "@schema "
NAME = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
VARIABLE = "^[A-Za-z_][A-Za-z0-9_]*$"
CIDR = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/[0-9]{1,3})$"
NO_SECRET_NAME = "(?i)(^|_)(api_?key|key|keys|token|tokens|secret|secrets|password|passwd|credential|credentials)$"
NO_SECRET_VALUE = r"(://[^/\s@]*@|^\s*(sk-|ghp_|github_pat_|xox[abp]-|AKIA|eyJ)|-----BEGIN|(?i)^\s*bearer\s)"
VOLUME_TYPES = (
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
)  # fmt: skip
"""What the restricted Pod Security Standard allows."""
_NO_PASSWORD = {"not": {"pattern": r"[@\s]"}}
"""Of a URL. As a `not`, for a refusal by `pattern` would repeat the value."""


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": list(required)} if required else {}),
    }


def _map(key: str, value: Any) -> dict[str, Any]:
    """Any names of this form, and what each holds."""
    return {"type": "object", "propertyNames": {"pattern": key}, "additionalProperties": value}


def _text(pattern: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "string", **({"pattern": pattern} if pattern else {}), **more}


def _k8s(name: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/io.k8s.api.core.v1.{name}"}


_SECRET_KEY = _object(("secret", "key"), secret=_text(NAME), key=_text(minLength=1))
_REFERENCE = {
    "description": "where the secret is, never the secret itself: {env: NAME} or {file: PATH}",
    "oneOf": [_object(("env",), env=_text(VARIABLE)), _object(("file",), file=_text(minLength=1))],
}
_BACKEND = {"type": "object", "properties": {"api_key": _REFERENCE}, "additionalProperties": True}

DEFINITIONS: dict[str, Any] = {
    "name": _text(NAME),
    "optionalName": _text(f"^$|{NAME}"),
    "size": _text("^[0-9]+(KiB|MiB|GiB|B)?$"),
    "quantity": _text(r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"),
    "promDuration": _text("^[0-9]+(ms|s|m|h)$"),
    "address": _text(r"^([^@/:\s]+:[0-9]{1,5})?$"),
    "intOrPercent": {"anyOf": [{"type": "integer", "minimum": 0}, _text("^[0-9]{1,3}%$")]},
    "labels": {"type": "object", "additionalProperties": _text("^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")},
    "annotations": {"type": "object", "additionalProperties": _text()},
    "cidr": _text(CIDR),
    "plainVariables": {
        "type": "object",
        "propertyNames": {
            "allOf": [{"pattern": VARIABLE}, {"not": {"pattern": NO_SECRET_NAME}}],
            "description": "a key, token or password does not belong here: it belongs in a Secret, under secrets.env",
        },
        "additionalProperties": {"type": "string", "not": {"pattern": NO_SECRET_VALUE}},
    },
    "secretVariables": _map(VARIABLE, _SECRET_KEY),
    "optionalSecretKey": {"oneOf": [_object(), _SECRET_KEY]},
    "secretFolders": {"type": "array", "items": _object(("name", "secret"), name=_text(NAME), secret=_text(NAME))},
    "csiFolders": {
        "type": "array",
        "items": _object(("name", "secretProviderClass"), name=_text(NAME), secretProviderClass=_text(NAME)),
    },
    "externalSecrets": {
        "type": "array",
        "items": _object(
            ("name", "store", "data"),
            name=_text(NAME),
            refreshInterval=_text("^[0-9]+(s|m|h)$"),
            store=_object(("name", "kind"), name=_text(NAME), kind={"enum": ["SecretStore", "ClusterSecretStore"]}),
            data=_map(r"^[-._a-zA-Z0-9]+$", _object(("key",), key=_text(minLength=1), property=_text(minLength=1))),
        ),
    },
    "configFiles": {
        "type": "object",
        "propertyNames": {"pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]*$"},
        "additionalProperties": {
            "anyOf": [
                _text(),
                {
                    "type": "object",
                    "required": ["apiVersion", "kind"],
                    "properties": {"backends": {"anyOf": [{"type": "array", "items": _BACKEND}, {"type": "object"}]}},
                    "additionalProperties": True,
                },
            ]
        },
    },
    "rayGroups": _map(
        "^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$",
        _object(
            ("backends", "resources"),
            backends={"type": "array", "items": _text(minLength=1)},
            replicas={"type": "integer", "minimum": 0},
            maxReplicas={"type": "integer", "minimum": 1},
            gpus={"type": "integer", "minimum": 0},
            resources=_k8s("ResourceRequirements"),
            nodeSelector={"$ref": "#/definitions/labels"},
            tolerations={"type": "array", "items": _k8s("Toleration")},
        ),
    ),
    "volume": {
        "allOf": [_k8s("Volume")],
        "propertyNames": {"enum": ["name", *VOLUME_TYPES]},
    },
    "hosts": _map("^[A-Za-z0-9.-]+$", {"type": "array", "minItems": 1, "items": {"$ref": "#/definitions/cidr"}}),
    "services": _map(
        "^[a-z0-9.-]+$",
        _object(
            (),
            namespace=_text(NAME),
            podLabels={"$ref": "#/definitions/labels"},
            port={"type": "integer", "minimum": 1, "maximum": 65535},
        ),
    ),
    "urls": {"type": "object", "additionalProperties": _text("^https?://", **_NO_PASSWORD)},
    "parentRefs": {
        "type": "array",
        "items": _object(
            ("name",), name=_text(NAME), namespace=_text(NAME), sectionName=_text(NAME), port={"type": "integer"}
        ),
    },
}
"""What several values are made of. Those that begin with io.k8s are Kubernetes's own."""


@dataclass(frozen=True, slots=True)
class Value:
    """One entry of values.yaml."""

    path: tuple[str, ...]
    description: str
    told: dict[str, Any]  # what @schema says
    default: Any
    parts: tuple[Value, ...]

    def leaves(self) -> Iterator[Value]:
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()


def values(text: str) -> tuple[Value, ...]:
    """Every value, in the order of the file."""
    return _entries(yaml.compose(text), text.splitlines(), ())


def _entries(node: yaml.Node, lines: list[str], path: tuple[str, ...]) -> tuple[Value, ...]:
    assert isinstance(node, yaml.MappingNode)
    found = []
    for key, value in node.value:
        where = (*path, key.value)
        description, told = _comment(lines, key.start_mark.line)
        default = yaml.safe_load(yaml.serialize(value))
        parts = () if told or default == {} or not isinstance(default, dict) else _entries(value, lines, where)
        found.append(Value(where, description, told, default, parts))
    return tuple(found)


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """What stands above a line: (prose, what @schema says)."""
    above: list[str] = []
    while line > 0 and lines[line - 1].strip().startswith("#"):
        line -= 1
        above.insert(0, lines[line].strip().removeprefix("#").strip())
    prose = [one for one in above if not one.startswith(MARK)]
    marks = [one.removeprefix(MARK) for one in above if one.startswith(MARK)]
    return " ".join(prose), yaml.safe_load(marks[0]) if marks else {}


def schema_of(value: Value) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(value.told).replace('"$ref": "', '"$ref": "#/definitions/'))
    if value.parts:
        schema = _object(**{part.path[-1]: schema_of(part) for part in value.parts})
    elif "$ref" in told:
        schema = {"allOf": [told]}
    else:
        schema = {"type": _type(value.default), **told}
        if schema["type"] == "array":
            assert "items" in schema, value.path
        assert schema["type"] != "object", f"{value.path}: say what it holds"
    return {"description": value.description, **schema} if value.description else schema


def _type(default: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds[type(default)]


def kubernetes(needed: set[str]) -> dict[str, Any]:
    """Kubernetes's own definitions, and those that they are made of, without their descriptions."""
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"{OLDEST}-local-strict"
    everything = json.loads((folder / "_definitions.json").read_text())["$defs"]
    found: dict[str, Any] = {}
    while needed:
        name = min(needed)
        found[name] = _bare(everything[name])
        needed = (needed | _references(found[name])) - set(found)
    return found


def _bare(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": "#/definitions/" + schema["$ref"].rpartition("/")[2]}
    dropped = {"x-kubernetes", "format"}
    kept = {key: _bare(value) for key, value in schema.items() if not any(key.startswith(one) for one in dropped)}
    if isinstance(kept.get("description"), str):
        del kept["description"]
    return kept


def _references(schema: Any) -> set[str]:
    found = json.dumps(schema).split('"#/definitions/')[1:]
    return {one.partition('"')[0] for one in found}


def text() -> str:
    """The whole of values.schema.json."""
    own = values((CHART / "values.yaml").read_text())
    schema = _object(**{value.path[0]: schema_of(value) for value in own}, **{"global": {"type": "object"}})
    needed = {name for name in _references([schema, DEFINITIONS]) if name.startswith("io.k8s.")}
    used = {name for name in _references([schema, DEFINITIONS]) if name in DEFINITIONS}
    definitions = {**{name: DEFINITIONS[name] for name in DEFINITIONS if name in used}, **kubernetes(needed)}
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "definitions": definitions}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
