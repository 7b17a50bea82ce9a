"""The YAML as JSON Schema (draft 2020-12), for editors. Derived from the models, so it agrees with `pointsman check`.

It takes what the models take, and what is put in before they see it: a variable where a number, a choice or true/false
belongs, and `{include: file}` in place of any value. What looks at several fields at once (names, levels, either-or)
stays with `check`; so does what JSON Schema cannot say: 4.0 is a whole number to it, and a number has no largest
value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.json_schema import models_json_schema

from policies.schema import API_VERSION, DOCUMENTS, Model
from policies.schema.fields import fields, reachable

DRAFT = "https://json-schema.org/draft/2020-12/schema"
SHIPPED = "schemas/pointsman-v1.schema.json"
"""Where the schema of all kinds lies in this package."""

Schema = dict[str, Any]

PUT_IN: Schema = {
    "Include": {
        "$comment": "The content of another file, put in this place. In a list, an included list is put in item by "
        "item.",
        "type": "object",
        "properties": {
            "include": {
                "type": "string",
                "minLength": 1,
            }
        },
        "required": ["include"],
        "additionalProperties": False,
    },
    "Variable": {
        "$comment": "Text with an environment variable in it: ${NAME}, or ${NAME:-default}.",
        "type": "string",
        "pattern": r"(^|[^$])\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
    },
    "VariableOrInclude": {"anyOf": [{"$ref": "#/$defs/Variable"}, {"$ref": "#/$defs/Include"}]},
}
"""What may stand in the place of a value. Without titles and descriptions: editors would show them for every value."""


def json_schema(kind: str | None = None) -> Schema:
    """The schema of one kind of document, or the one that chooses by `kind`. KeyError where there is no such kind."""
    kinds = list(DOCUMENTS) if kind is None else [kind]
    roots = [DOCUMENTS[one] for one in kinds]
    writer = _Writer.of(roots)
    body: Schema = {"required": ["apiVersion", "kind"]}
    if kind is None:
        body["allOf"] = [_where("kind", one, writer.references[model]) for one, model in DOCUMENTS.items()]
    else:
        body |= writer.references[roots[0]]
    said = {field.name: field.description for field in fields(roots[0])}
    return {
        "$schema": DRAFT,
        "$id": ":".join(["urn", *API_VERSION.split("/"), *([kind.lower()] if kind else [])]),
        "title": f"Pointsman {kind or 'document'}",
        "description": _text(roots[0].__doc__) if kind else "A fleet, a policy or its tests, as `kind` says.",
        "type": "object",
        "properties": {
            "apiVersion": writer.value({"const": API_VERSION}, title="apiVersion", description=said["apiVersion"]),
            "kind": writer.value({"enum": kinds}, title="kind", description=said["kind"]),
        },
        "if": {"required": ["include"]},
        "then": {"$ref": "#/$defs/Include"},
        "else": body,
        "$defs": writer.definitions() | PUT_IN,
    }


def text(kind: str | None = None) -> str:
    """The schema as it is shipped and printed."""
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class _Writer:
    """Turns what pydantic generates into what editors show well."""

    references: Mapping[type[Model], Schema]  # {"$ref": …}
    generated: Mapping[str, Schema]  # by the reference's text

    @classmethod
    def of(cls, roots: Sequence[type[Model]]) -> _Writer:
        models = reachable(roots)
        references, whole = models_json_schema([(model, "validation") for model in models], by_alias=True)
        return cls(
            {model: references[model, "validation"] for model in models},
            {f"#/$defs/{name}": schema for name, schema in whole["$defs"].items()},
        )

    def definitions(self) -> Schema:
        return {reference["$ref"].rpartition("/")[2]: self.model(model) for model, reference in self.references.items()}

    def model(self, model: type[Model]) -> Schema:
        generated = self.generated[self.references[model]["$ref"]]
        properties = {}
        for field in fields(model):
            words: Schema = {"title": f"{model.__name__}.{field.name}", "description": field.description}
            if field.default not in (None, [], {}, ""):
                words["default"] = field.default
            if field.examples:
                words["examples"] = list(field.examples)
            properties[field.name] = self.value(generated["properties"][field.name], **words)
        return {
            "title": model.__name__,
            "description": _text(model.__doc__),
            "type": "object",
            "properties": properties,
            "required": generated.get("required", []),
            "additionalProperties": False,
        }

    def value(self, generated: Schema, **words: Any) -> Schema:
        """What the model takes, or what may stand in its place."""
        core = self.core({key: value for key, value in generated.items() if key not in _WORDS})
        if not core:  # anything goes
            return words
        place = "VariableOrInclude" if any(_is_scalar(arm) for arm in _arms(core)) else "Include"
        return words | {"if": {"$ref": f"#/$defs/{place}"}, "else": core}

    def core(self, schema: Schema) -> Schema:
        field = self.chosen_by(schema)
        if field is not None:
            return self.choice(field, schema["oneOf"])
        cleaned = dict(schema)
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                cleaned[key] = self.value(schema[key])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                cleaned[key] = [self.core(arm) for arm in schema[key]]
        return cleaned

    def constants(self, arm: Schema) -> dict[str, str]:
        """The fields of a model that can have one value only, with that value."""
        properties = self.generated.get(arm.get("$ref", ""), {}).get("properties", {})
        return {name: field["const"] for name, field in properties.items() if "const" in field}

    def chosen_by(self, schema: Schema) -> str | None:
        """The field by whose constant the arms of a union of models differ."""
        arms = [self.constants(arm) for arm in schema.get("oneOf", ())]
        shared = set.intersection(*map(set, arms)) if arms else set()
        return min((name for name in shared if len({arm[name] for arm in arms}) == len(arms)), default=None)

    def choice(self, field: str, arms: Sequence[Schema]) -> Schema:
        """Choose by the field, so that an editor speaks of the one model that is meant and not of all."""
        values = [self.constants(arm)[field] for arm in arms]
        return {
            "type": "object",
            "properties": {field: self.value({"enum": values})},
            "required": [field],
            "allOf": [_where(field, value, arm) for value, arm in zip(values, arms, strict=True)],
        }


_WORDS = frozenset({"title", "description", "default", "examples"})


def _text(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


def _arms(schema: Schema) -> Iterator[Schema]:
    inner = [arm for key in ("anyOf", "oneOf") for arm in schema.get(key, ())]
    for arm in inner:
        yield from _arms(arm)
    if not inner:
        yield schema


def _is_scalar(schema: Schema) -> bool:
    return schema.get("type") in ("string", "number", "integer", "boolean") or "enum" in schema or "const" in schema


def _where(field: str, value: str, then: Schema) -> Schema:
    return {"if": {"properties": {field: {"const": value}}, "required": [field]}, "then": then}
