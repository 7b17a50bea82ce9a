"""Data as YAML on one line, and the smallest valid document around a value."""

from __future__ import annotations

from typing import Any

import yaml

from policies.schema.base import Model
from policies.schema.fields import fields


def flow(value: Any) -> str:
    """The value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def example(field: str, value: Any) -> str:
    return f"{field}: {flow(value)}"


def block(value: Any) -> str:
    """The value as YAML on as many lines as it takes."""
    return str(yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=100))


def smallest(model: type[Model]) -> dict[str, Any]:
    """The first examples of the fields that a model requires: the least that is valid."""
    return {field.name: field.examples[0] for field in fields(model) if field.required}
