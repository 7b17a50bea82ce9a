"""Types in words: what a reader may write in a field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import annotated_types as at
from pydantic.fields import FieldInfo

from policies.reference.flow import flow
from policies.schema.base import Model, Name
from policies.schema.conditions import AttributeCondition, LabelCondition, NumberCondition, TextCondition

KNOWN: Sequence[tuple[Any, str]] = (
    (TextCondition, "[text condition](#conditions-on-text)"),
    (NumberCondition, "[number condition](#conditions-on-numbers)"),
    (LabelCondition, "[label condition](#conditions-on-levels)"),
    (AttributeCondition, "[attribute condition](#conditions-on-attributes)"),
    (Name, "[name](#names)"),
)
"""Kinds of values that are explained once, and where."""

_PLAIN: dict[Any, str] = {str: "text", bool: "true or false", int: "whole number", float: "number", Any: "anything"}


def anchor(model: type[Model]) -> str:
    return f"[{model.__name__}](#{model.__name__.lower()})"


def words(kind: Any) -> str:
    """The annotation in words, with links into the reference."""
    for known, said in KNOWN:
        if kind == known:
            return said
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, Model):
        return anchor(kind)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _bounded(args[0], list(_constraints(args[1:])))
    if origin is Literal:
        return _or([f"`{flow(value)}`" for value in args])
    if origin is list:
        return "list of anything" if isinstance(args[0], TypeVar) else f"list: {words(args[0])}"
    if origin is dict:
        return f"mapping: name → {words(args[1])}"
    if args:
        return _or(list(dict.fromkeys(words(arm) for arm in args if arm is not type(None))))
    raise TypeError(f"no words for {kind}")


def _or(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def _constraints(extras: Sequence[Any]) -> Iterator[Any]:
    for extra in extras:
        yield from extra.metadata if isinstance(extra, FieldInfo) else (extra,)


def _bounded(kind: Any, constraints: list[Any]) -> str:
    """The kind with its bounds: `number from 0 to 1`, `list, not empty: text`."""
    said = words(kind)
    low = high = ""
    for one in constraints:
        match one:
            case at.Ge(bound):
                low = f"{bound:g} or more"
            case at.Gt(bound):
                low = f"over {bound:g}"
            case at.Le(bound):
                high = f"at most {bound:g}"
            case at.Lt(bound):
                high = f"under {bound:g}"
            case at.MinLen(1):
                what, colon, rest = said.partition(":")
                said = f"{what}, not empty{colon}{rest}"
            case at.MaxLen(most):
                high = f"at most {most} characters"
    if low.endswith(" or more") and high.startswith("at most "):
        return f"{said} from {low.removesuffix(' or more')} to {high.removeprefix('at most ')}"
    return ", ".join(part for part in (said, low, high) if part).replace("number, over", "number over")
