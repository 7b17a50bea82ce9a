"""The page: chapters of prose, and a section for every model that can stand in a document."""

from __future__ import annotations

from dataclasses import dataclass

from policies.reference import lists, prose
from policies.reference.flow import example, flow
from policies.reference.words import words
from policies.schema import (
    AttributeTest,
    Budget,
    Fleet,
    Match,
    Model,
    Policy,
    PolicyTest,
    RateLimit,
    Tenants,
)
from policies.schema.fields import Field, fields, reachable


@dataclass(frozen=True, slots=True)
class Chapter:
    """Prose, then the sections of the roots and of every model in them that no chapter before or root after has."""

    title: str
    prose: str
    roots: tuple[type[Model], ...] = ()


CHAPTERS = (
    Chapter("Policy", prose.POLICY, (Policy,)),
    Chapter("Conditions", prose.CONDITIONS, (Match, AttributeTest)),
    Chapter("Budgets and limits", prose.QUOTAS, (Budget, RateLimit)),
    Chapter("Fleet", prose.FLEET, (Fleet,)),
    Chapter("Tenants", prose.TENANTS, (Tenants,)),
    Chapter("Tests", prose.TESTS, (PolicyTest,)),
    Chapter("Variables", prose.VARIABLES),
    Chapter("Includes", prose.INCLUDES),
    Chapter("Names", prose.NAMES),
    Chapter("Attributes", prose.ATTRIBUTES + lists.attributes()),
    Chapter("Entity types", prose.ENTITIES + lists.entities()),
    Chapter("Filters", prose.FILTERS + lists.filters()),
    Chapter("Refusals", prose.REFUSALS + lists.refusals()),
    Chapter("Warnings", prose.WARNINGS + lists.lints()),
    Chapter("Editors", prose.EDITORS),
)
"""In reading order."""


def text() -> str:
    """The whole reference."""
    parts = [prose.INTRODUCTION, _contents()]
    told: list[type[Model]] = []
    for at, chapter in enumerate(CHAPTERS):
        later = {root for after in CHAPTERS[at + 1 :] for root in after.roots}
        parts += [f"## {_title(chapter)}", chapter.prose]
        for model in reachable(chapter.roots, without={*told, *later}):
            told.append(model)
            parts += _section(model)
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _title(chapter: Chapter) -> str:
    """A root's own section has its name, so the chapter takes another."""
    return f"The {chapter.title.lower()}" if chapter.title in {r.__name__ for r in chapter.roots} else chapter.title


def _contents() -> str:
    lines = [f"- [{_title(one)}](#{_title(one).lower().replace(' ', '-')})" for one in CHAPTERS]
    return "\n".join(lines)


def _section(model: type[Model]) -> list[str]:
    said = " ".join((model.__doc__ or "").split())
    rows = [
        [f"`{field.name}`", words(field.kind), _default(field), field.description, _examples(field)]
        for field in fields(model)
    ]
    head = ["field", "type", "default", "meaning", "example"]
    return [f"### {model.__name__}", said, lists.table(head, rows)]


def _default(field: Field) -> str:
    if field.required:
        return "**required**"
    return "" if field.default in (None, "", [], {}) else f"`{flow(field.default)}`"


def _examples(field: Field) -> str:
    return "<br>".join(f"`{example(field.name, one)}`" for one in field.examples)
