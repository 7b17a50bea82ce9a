"""A parsed YAML document against its schema: the typed model, or every problem with its place and a hint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from policies.errors import Problem, did_you_mean
from policies.schema import API_VERSION, DOCUMENTS, Model
from policies.source import Document, Path

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_PATTERNS = {
    "name": (
        "a valid name",
        "use letters, digits, '.', '_' and '-' (at most 63, beginning with a letter or digit)",
    ),
    "default": ("a usage", "write 1 to 64 letters, digits and ._:/-"),
    "between": ("a window of time", "write two times of day, such as 22:00-06:00"),
    "headers": ("a header's name in lower case", "use a-z, 0-9 and '-'"),
    "env": ("the name of an environment variable", "use letters, digits and '_'"),
}
"""What a text with a pattern should have been, by its field (of a list, the list's)."""
_KEYS = {
    "keys": "must be a list of mappings",
    "sha256": "must be 64 hex digits in lower case, the SHA-256 of a key",
}
_KEYS_HINT = "a key never stands in the file: {sha256: …}, {env: NAME} or {file: PATH}; see `pointsman key new`"
_PLURAL_SCALAR = ("str", "bool", "float")  # pydantic's names for the members of schema.Scalar


@dataclass(frozen=True, slots=True)
class Validated:
    """A document as its model. With errors in some items of its lists, the model of the rest, so that one look
    finds the errors in those too; `document` then has the rest's positions. None where nothing can be made of it."""

    model: Model | None
    document: Document
    problems: tuple[Problem, ...]

    @property
    def whole(self) -> bool:
        return self.model is not None and not self.problems


def validate(document: Document) -> Validated:
    """The document against the schema of its kind."""
    data = document.data
    wrong: Problem | None = None
    if not isinstance(data, dict):
        wrong = document.problem((), f"a document must be a mapping, not {_describe(data)}", _begin_hint())
    elif "kind" not in data:
        wrong = document.problem((), "'kind' is missing", _begin_hint())
    elif document.kind not in DOCUMENTS:
        kind = _describe(data["kind"])
        wrong = document.problem(("kind",), f"unknown kind {kind}", did_you_mean(str(data["kind"]), DOCUMENTS))
    if wrong is not None:
        return Validated(None, document, (wrong,))
    root = DOCUMENTS[document.kind or ""]
    model, problems, locations = _against(document, root)
    if model is None:
        rest = _without(document, locations)
        if rest is not None:
            return Validated(_against(rest, root)[0], rest, tuple(problems))
    return Validated(model, document, tuple(problems))


M = TypeVar("M", bound=Model)


def validate_as(document: Document, root: type[M]) -> tuple[M | None, list[Problem]]:
    """The document as the given model, or None and everything that is wrong with it."""
    if not isinstance(document.data, dict):
        return None, [document.problem((), f"must be a mapping, not {_describe(document.data)}")]
    model, problems, _ = _against(document, root)
    return model, problems


def _against(document: Document, root: type[M]) -> tuple[M | None, list[Problem], list[Path]]:
    try:
        return root.model_validate(document.data, by_alias=True, by_name=False), [], []  # `not`, never `not_`
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=True)
        problems = [_problem(document, root, one) for one in found]
        told = [p for p in problems if p.position not in document.faults]
        return None, told, [_in_document(document, one["loc"]) or one["loc"] for one in found]


def _without(document: Document, locations: Sequence[Path]) -> Document | None:
    """The document without the list items and unknown top-level fields that hold the given locations; None where
    something else is wrong as well."""
    dropped: set[Path] = set()
    for path in locations:
        place = next((path[: i + 1] for i, part in enumerate(path) if isinstance(part, int)), path)
        if not isinstance(place[-1], int) and (len(place) != 1 or place[0] in ("kind", "sensitivity", "backends")):
            return None
        dropped.add(place)
    moved: dict[Path, Path] = {(): ()}

    def copy(value: Any, old: Path, new: Path) -> Any:
        moved[old] = new
        if isinstance(value, dict):
            kept = [key for key in value if (*old, key) not in dropped]
            return {key: copy(value[key], (*old, key), (*new, key)) for key in kept}
        if isinstance(value, list):
            left = [i for i in range(len(value)) if (*old, i) not in dropped]
            return [copy(value[i], (*old, i), (*new, at)) for at, i in enumerate(left)]
        return value

    data = copy(document.data, (), ())
    if "apiVersion" not in data:  # told already
        data["apiVersion"] = API_VERSION
    return replace(
        document,
        data=data,
        keys={moved[path]: position for path, position in document.keys.items() if path in moved},
        values={moved[path]: position for path, position in document.values.items() if path in moved},
    )


def _begin_hint() -> str:
    return f"begin with `apiVersion: {API_VERSION}` and `kind: {' | '.join(DOCUMENTS)}`"


def _problem(document: Document, root: type[Model], error: Any) -> Problem:
    loc: tuple[str | int, ...] = error["loc"]
    path = _in_document(document, loc)
    kind, ctx, value = error["type"], error.get("ctx", {}), error["input"]
    name = str(loc[-1])
    if kind == "missing":
        return document.problem(path, f"'{name}' is missing{_inside(path)}", f"add `{name}: …`")
    if kind == "extra_forbidden":
        hint = did_you_mean(name, _fields_at(root, loc[:-1]))
        return document.problem(path, f"unknown field '{name}'{_inside(path[:-1])}", hint, key=True)
    field = str(next((part for part in reversed(path) if isinstance(part, str)), "the document"))
    if document.kind == "Tenants" and "keys" in path:  # likewise below: it may be the key itself
        what = _KEYS.get(field, "must be a name or path, not the key itself")
        return document.problem(path, f"'{field}' {what}", _KEYS_HINT)
    if "api_key" in path:  # somebody may have written the secret itself: it must not be shown again
        what = "must be a mapping" if field == "api_key" else "must be a name or path, not the secret itself"
        return document.problem(
            path, f"'{field}' {what}", "a secret is always a reference: {env: NAME} or {file: PATH}"
        )
    if loc[-1] in _PLURAL_SCALAR and kind in _TYPES:
        return document.problem(path, f"'{field}' must be text, a number or true/false, not {_describe(value)}")
    if kind in _TYPES:
        hint = f'put quotes around it: "{_describe(value)}"' if kind == "string_type" and _is_number(value) else ""
        if kind == "float_type" and isinstance(value, str):
            hint = "write the number without quotes or unit"
        return document.problem(path, f"'{field}' must be {_TYPES[kind]}, not {_describe(value)}", hint)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        known = [tag.strip("'§ ") for tag in ctx.get("expected_tags", "").split(",")]
        return document.problem(
            (*path, "use"), f"'use' names no detector{_inside(path)}", did_you_mean(_use(value), known)
        )
    if kind == "literal_error":
        choices = [word.strip("' ") for word in ctx["expected"].replace(" or ", ", ").split(", ")]
        return document.problem(path, f"'{field}' can't be {_describe(value)}", did_you_mean(str(value), choices))
    if kind == "string_pattern_mismatch":
        what, hint = _PATTERNS.get(field, _PATTERNS["name"])
        return document.problem(path, f"{_describe(value)} is not {what}", hint)
    if kind in ("too_short", "string_too_short"):
        return document.problem(path, f"'{field}' must not be empty")
    bounds = {
        "greater_than": "gt",
        "greater_than_equal": "ge",
        "less_than": "lt",
        "less_than_equal": "le",
    }
    if kind in bounds:
        words = {"gt": "over", "ge": "at least", "lt": "under", "le": "at most"}[bounds[kind]]
        bound = ctx[bounds[kind]]
        return document.problem(path, f"'{field}' must be {words} {bound:g}, not {_describe(value)}")
    return document.problem(path, f"'{field}': {error['msg']}")


def _use(value: Any) -> str:
    return str(value.get("use", "")) if isinstance(value, dict) else ""


def _inside(path: Path) -> str:
    match path:
        case (*_, str(name), int(i)):
            return f" in {name}[{i}]"
        case (*_, str(name)):
            return f" in '{name}'"
        case _:
            return ""


def _describe(value: Any) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return "true" if value else "false"
        case str():
            return f"'{value[:60]}'"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _in_document(document: Document, loc: tuple[str | int, ...]) -> Path:
    """pydantic's location without the parts that only it knows (the branch taken in a union)."""
    path: Path = ()
    for part in loc:
        if (*path, part) in document.values:
            path = (*path, part)
    return path


def _fields_at(root: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The names of the fields of the model at `loc`."""
    here: Any = root
    for part in loc:
        here = _step(here, part)
    here = _plain(here)
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return []
    return [field.alias or name for name, field in here.model_fields.items()]


def _plain(kind: Any) -> Any:
    """The type without Annotated and without `| None`."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is not None and type(None) in get_args(kind):
        rest = [arm for arm in get_args(kind) if arm is not type(None)]
        return _plain(rest[0]) if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007
    return kind


def _step(kind: Any, part: str | int) -> Any:
    kind = _plain(kind)
    if isinstance(part, str) and part.startswith("§"):
        for arm in get_args(kind):
            if any(isinstance(extra, Tag) and extra.tag == part for extra in get_args(arm)[1:]):
                return arm
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                return field.annotation
    origin, args = get_origin(kind), get_args(kind)
    if origin is list and isinstance(part, int):
        return args[0]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return args[1]
    return None
