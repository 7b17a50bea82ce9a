"""The models, looked at from outside: which there are, and what stands in their fields. For what is made from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

from policies.schema.base import Model


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a model, as people write it."""

    name: str
    kind: Any  # the annotation, with its Annotated parts
    required: bool
    default: Any  # plain data; None where nothing is written for it
    description: str
    examples: tuple[Any, ...]


def fields(model: type[Model]) -> list[Field]:
    """The fields of a model, in the order they were written."""
    hints = get_type_hints(model, include_extras=True)
    return [
        Field(
            info.alias or name,
            hints[name],
            info.is_required(),
            None if info.is_required() else plain(info.default),
            info.description or "",
            tuple(info.examples or ()),
        )
        for name, info in model.model_fields.items()
    ]


def models_in(kind: Any) -> Iterator[type[Model]]:
    """Every model that an annotation names."""
    if isinstance(kind, type) and issubclass(kind, Model):
        yield kind
    for part in get_args(kind):
        yield from models_in(part)


def reachable(roots: Sequence[type[Model]], without: Collection[type[Model]] = ()) -> list[type[Model]]:
    """The roots and all models that can stand in them, each before what stands in it; `without` is not entered."""
    found: list[type[Model]] = []

    def visit(model: type[Model]) -> None:
        if model in found or model in without:
            return
        found.append(model)
        for field in fields(model):
            for inner in models_in(field.kind):
                visit(inner)

    for root in roots:
        visit(root)
    return found


def plain(value: Any) -> Any:
    """A default as the data somebody would write to get it."""
    return value.model_dump(by_alias=True, exclude_defaults=True) if isinstance(value, BaseModel) else value
