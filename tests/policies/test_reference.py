"""The reference: complete, current, and every example in it is valid."""

from __future__ import annotations

import re
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from conftest import ROOT
from pydantic import TypeAdapter

from docs.generate import GENERATED
from policies import reference
from policies.checks import ATTRIBUTES
from policies.compile import compile_documents
from policies.filters import FILTERS
from policies.lint.codes import CODES
from policies.reference.flow import example, smallest
from policies.reference.lists import REFUSALS
from policies.reference.words import KNOWN, words
from policies.schema import DOCUMENTS, Budget, Constraint, Floor, Model, Policy, RateLimit, Rule, Sensitivity
from policies.schema.fields import Field, fields, reachable
from policies.sensitivity.entities import ALIASES, ENTITIES
from policies.source import Document, parse
from policies.types import RefusalCode
from policies.validate import validate_as

PAGE = ROOT / "docs" / "policy-reference.md"
TEXT = reference.text()
MODELS = reachable(list(DOCUMENTS.values()))
FIELDS = [(model, field) for model in MODELS for field in fields(model)]
EXAMPLES = [(model, field, one) for model, field in FIELDS for one in field.examples]

FLEET = """
apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: plant1-edge, tier: edge, region: jp-east, protocol: fake, models: {chat: {task: chat, quality: 0.3}}}
  - {name: onprem-llm, tier: onprem, region: jp-east, protocol: fake, models: {chat: {task: chat, quality: 0.6}}}
  - {name: cloud-gpu, tier: cloud, region: us-east-1, protocol: fake, models: {chat: {task: chat, quality: 0.9}}}
"""
"""The backends that the examples name."""


def ids(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else value.name if isinstance(value, Field) else ""


def read(text: str) -> Document:
    (document,), problems = parse(text, "example.yaml", {"CLOUD_URL": "http://cloud"})
    assert not problems
    return document


def cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


# --- complete and current -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_what_is_generated_is_current(path):
    assert path.read_text(encoding="utf-8") == GENERATED[path](), "run `make docs`"


@pytest.mark.parametrize(("model", "field"), FIELDS, ids=ids)
def test_every_field_is_described_and_has_an_example(model, field):
    assert field.description, "give it a description"
    assert field.examples, "give it an example"
    assert not field.description.endswith("."), "the reference writes these without a full stop"
    assert re.search(rf"^\| `{field.name}` \| .*{re.escape(field.description)}", section(model), re.MULTILINE)


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_every_model_is_described_in_a_section_of_its_own(model):
    assert model.__doc__ and model.__doc__ != Model.__doc__, "give it a docstring"
    assert TEXT.count(f"\n### {model.__name__}\n") == 1
    assert " ".join(model.__doc__.split()) in section(model)


def section(model: type[Model]) -> str:
    return TEXT.split(f"\n### {model.__name__}\n")[1].partition("\n#")[0]


def test_types_are_told_in_words():
    for model, field in FIELDS:
        said = words(field.kind)
        assert not re.search(r"\b(str|int|float|bool|None|Optional|Annotated|dict|Any)\b|§|\[\]", said), (model, field)


def test_every_link_within_the_page_leads_to_one_place():
    anchors = [
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", TEXT, re.M)
    ]
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= set(anchors)
    assert {link for _, said in KNOWN for link in re.findall(r"#([\w-]+)", said)} <= set(anchors)


def test_every_row_has_the_cells_of_its_table():
    for block in re.findall(r"(?:^\|.*\|$\n?)+", TEXT, re.MULTILINE):
        assert len({len(cells(line)) for line in block.splitlines()}) == 1, block[:80]


def test_every_name_that_is_not_a_field_is_listed_with_its_meaning():
    rows = {row[0].strip("`"): row[1:] for row in map(cells, re.findall(r"^\|.*\|$", TEXT, re.MULTILINE))}
    assert set(REFUSALS) == set(RefusalCode)
    for name in (*ENTITIES, *dict(FILTERS), *RefusalCode, *CODES, *ATTRIBUTES):
        assert name in rows and rows[name][-1], name
    assert set(ALIASES) <= {row[0].strip("`") for row in rows.values()}


# --- examples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "field", "one"), EXAMPLES, ids=ids)
def test_every_example_reads_back_and_is_valid_in_the_smallest_whole(model, field, one):
    shown = example(field.name, one)
    assert f"`{shown}`".replace("|", "\\|") in section(model)
    written = read(shown).data
    assert written.keys() == {field.name}
    if not (isinstance(one, str) and "${" in one):
        assert written == {field.name: one}
    whole, problems = validate_as(Document("example.yaml", smallest(model) | written, {}, {}), model)
    assert whole is not None, [problem.message for problem in problems]


def errors(policy: dict[str, Any]) -> list[str]:
    """What is wrong with a policy beside the fleet above, and with nothing else."""
    document = Document("example.yaml", {"apiVersion": "pointsman/v1", "kind": "Policy"} | policy, {}, {})
    _, problems = compile_documents([read(FLEET), document], ZoneInfo)
    return [p.message for p in problems if p.severity == "error" and not p.message.startswith("this version has no")]


INTO_A_POLICY = {
    Policy: lambda data: data,
    Sensitivity: lambda data: {"sensitivity": data},
    Floor: lambda data: {"sensitivity": {"floors": [data]}},
    Constraint: lambda data: {"constraints": [data]},
    Rule: lambda data: {"rules": [data]},
    Budget: lambda data: {"budgets": [{"tokens": 5} | data if "usd" not in data else data]},
    RateLimit: lambda data: {"limits": [{"requests": 5} | data]},
}
"""What stands directly in a policy compiles too."""


@pytest.mark.parametrize(("model", "field", "one"), [one for one in EXAMPLES if one[0] in INTO_A_POLICY], ids=ids)
def test_every_example_of_a_policy_compiles(model, field, one):
    assert errors(INTO_A_POLICY[model](smallest(model) | {field.name: one})) == []


def test_the_examples_of_a_fleet_compile():
    for one in next(field for field in fields(DOCUMENTS["Fleet"]) if field.name == "backends").examples:
        fleet = {"apiVersion": "pointsman/v1", "kind": "Fleet", "backends": one}
        assert compile_documents([Document("fleet.yaml", fleet, {}, {})])[1] == []


def test_the_introduction_compiles():
    blocks = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    documents, problems = parse(blocks[0], "reference.md", {})
    assert not problems
    compiled, problems = compile_documents(documents)
    assert compiled is not None
    assert problems == []


def test_the_conditions_that_are_explained_compile():
    chapter = TEXT.split("\n## Conditions\n")[1].partition("\n### Match\n")[0]
    shown = [cells(line)[0].strip("`") for line in chapter.splitlines() if line.startswith("| `")]
    assert len(shown) > 12
    for one in shown:
        wanted = chapter.index(f"`{one}`") > chapter.index("### Conditions on attributes")
        data = read(one).data
        constraint = (
            {"name": "c", "require": data} if wanted else {"name": "c", "match": data, "require": {"tier": "edge"}}
        )
        assert errors({"constraints": [constraint]}) == [], one


def test_a_new_field_shows_up_by_itself():
    from pydantic import Field as Declared

    class Extra(Model):
        """A model of tomorrow."""

        often: list[int] | None = Declared(default=None, description="how often", examples=[[1, 2]])

    (field,) = fields(Extra)
    assert (field.name, field.required, words(field.kind)) == ("often", False, "list: whole number")
    assert example(field.name, field.examples[0]) == "often: [1, 2]"


def test_known_kinds_of_values_are_types():
    for kind, _ in KNOWN:
        TypeAdapter(kind)
