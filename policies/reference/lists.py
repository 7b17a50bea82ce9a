"""Tables of what is not a field: attributes, entities, filters, refusals, lints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.checks import ATTRIBUTES
from policies.filters import FILTERS
from policies.lint.codes import CODES
from policies.reference.words import words
from policies.schema import Backend, BackendModel, Model
from policies.schema.fields import Field, fields, models_in
from policies.sensitivity.entities import ALIASES, ENTITIES
from policies.types import RefusalCode

REFUSALS: Mapping[RefusalCode, str] = {
    RefusalCode.MODEL_NOT_FOUND: "no backend serves this model for this task",
    RefusalCode.UNAUTHORIZED: "there is no such tenant",
    RefusalCode.MODEL_NOT_ALLOWED: "the tenant may not use this model",
    RefusalCode.USAGE_NOT_ALLOWED: "the tenant may not state this usage",
    RefusalCode.POLICY_NO_BACKEND: "the policy leaves no backend: each is removed by `clearance`, `constraint` or "
    "`capability`. Waiting does not help",
    RefusalCode.OVERLOADED: "a backend that the policy allows is full",
    RefusalCode.RATE_LIMITED: "a limit of the policy is reached",
    RefusalCode.BUDGET_EXHAUSTED: "a budget of the policy is used up in this period",
    RefusalCode.DEADLINE_EXCEEDED: "no backend is expected to answer within the deadline, or within the rule's `slo`",
    RefusalCode.BACKENDS_UNAVAILABLE: "health keeps out every backend that the policy allows",
}
"""When each code is given."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def attributes() -> str:
    rows = []
    for name in ATTRIBUTES:
        model, path = _stated(name)
        said = "; ".join(field.description for field in path)
        where = "the backend" if model is Backend else "the model at the backend"
        rows.append([f"`{name}`", words(path[-1].kind), where, said])
    rows.append(["`labels.<name>`", "text", "the backend", "an attribute of your own, as the fleet's `labels` name it"])
    return table(["attribute", "type", "of", "meaning"], rows)


def _stated(name: str) -> tuple[type[Model], list[Field]]:
    """The fields that lead to an attribute, in the backend or else in its model."""
    for root in (Backend, BackendModel):
        here: type[Model] | None = root
        path: list[Field] = []
        for step in name.split("."):
            found = [field for field in fields(here) if field.name == step] if here else []
            path += found
            here = next(models_in(found[0].kind), None) if found else None
        if len(path) == name.count(".") + 1:
            return root, path
    raise LookupError(f"no field of a backend states the attribute {name}")


def entities() -> str:
    short = {long: alias for alias, long in ALIASES.items()}
    rows = [[f"`{name}`", f"`{short[name]}`" if name in short else "", what] for name, what in ENTITIES.items()]
    return table(["type", "short", "what it is"], rows)


def filters() -> str:
    rows = [[f"`{name}`", " ".join((one.__doc__ or "").split()).removesuffix(".")] for name, one in FILTERS]
    return table(["filter", "rejects a backend when"], rows)


def refusals() -> str:
    return table(["code", "when"], [[f"`{code}`", REFUSALS.get(code, "")] for code in RefusalCode])


def lints() -> str:
    rows = []
    for code, text in CODES.items():
        title, _, rest = text.partition("\n")
        rows.append([f"`{code}`", title, " ".join(rest.split())])
    return table(["code", "title", "what it means and what to do"], rows)
