"""The JSON Schema against the models it is made from: for what an editor reads, both say yes, or both say no.

Where they may differ: JSON Schema takes 4.0 for a whole number and knows no largest number. The examples of mutations
below leave these out. Variables and includes are put in before the models see a document; the schema takes them.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from policies import jsonschema
from policies.schema import (
    DOCUMENTS,
    AttributeTest,
    Backend,
    BackendModel,
    Budget,
    Case,
    Constraint,
    DetectorSettings,
    EntityCondition,
    Expect,
    Fleet,
    Floor,
    HttpRequest,
    Match,
    Model,
    Policy,
    PolicyTest,
    RateLimit,
    RequestFacts,
    Rule,
    ScriptStep,
    Sensitivity,
    Slo,
    Tenant,
    Tenants,
    TimeWindow,
    Tls,
)
from policies.schema.fields import fields, models_in
from policies.source import Document, parse
from policies.validate import validate
from router.cli import main

BAD = ROOT / "tests" / "testdata" / "bad"
SHIPPED = ROOT / "policies" / jsonschema.SHIPPED
SCHEMA = json.loads(SHIPPED.read_text(encoding="utf-8"))
ANY_KIND = Draft202012Validator(SCHEMA)
OF_KIND = {kind: Draft202012Validator(jsonschema.json_schema(kind)) for kind in DOCUMENTS}

BEYOND = {"patterns", "tenants-models",
    "attributes", "backends", "batching", "conditions", "duplicate-names", "level-names", "levels", "quotas", "ranges",
    "clearance-without-policy", "two-documents",
}  # fmt: skip
"""Files of tests/testdata/bad with faults that `check` finds beyond the schema."""
TEXT_ONLY = {
    "alias-bomb",
    "duplicate-keys",
    "empty",
    "missing-variable",
    "not-utf8",
    "not-yaml",
    "tabs",
    "tags",
    "too-deep",
}
"""Those with faults in the text, before there is anything to validate."""


def of_pointsman(path: Path) -> bool:
    return "apiVersion: pointsman/" in path.read_text(encoding="utf-8")


CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if of_pointsman(path)]


class _Everything(dict[str, str]):
    """An environment in which every variable is set."""

    def get(self, key: str, default: Any = None) -> Any:
        return "http://host"


def documents(path: Path) -> list[Document]:
    def include(_: str, written: str) -> tuple[str, str]:
        return written, (path.parent / written).read_text(encoding="utf-8")

    found, problems = parse(path.read_text(encoding="utf-8"), path.name, _Everything(), include)
    assert not problems
    return found


def faults(data: Any, validator: Draft202012Validator = ANY_KIND) -> list[str]:
    return [f"{list(error.absolute_path)}: {error.message[:300]}" for error in validator.iter_errors(data)]


# --- what is shipped ----------------------------------------------------------------------------------------------


def test_the_shipped_schema_is_current():
    assert SHIPPED.read_text(encoding="utf-8") == jsonschema.text(), "run `make docs`"


@pytest.mark.parametrize("kind", [None, *DOCUMENTS])
def test_it_is_a_schema_and_every_reference_in_it_leads_somewhere(kind):
    schema = jsonschema.json_schema(kind)
    Draft202012Validator.check_schema(schema)
    for name in re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema)):
        assert name in schema["$defs"]


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_command_prints_one_kind(kind, capsys):
    assert main(["schema", "--kind", kind]) == 0
    assert json.loads(capsys.readouterr().out)["$id"] == f"urn:pointsman:v1:{kind.lower()}"


def test_the_command_prints_what_is_shipped(capsys):
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == SHIPPED.read_text(encoding="utf-8")


def test_the_command_knows_every_kind(capsys):
    with pytest.raises(SystemExit):
        main(["schema", "--kind", "Nothing"])
    said = capsys.readouterr().err
    assert all(kind in said for kind in DOCUMENTS)


def test_everything_an_editor_shows_is_described():
    for name, model in SCHEMA["$defs"].items():
        if name in jsonschema.PUT_IN:  # an editor would show their words instead of the field's
            assert not {"title", "description"} & model.keys()
            continue
        assert model["description"], name
        for field in model.get("properties", {}).values():
            assert field["description"], field["title"]
            assert field["examples"], field["title"]


def test_a_wheel_contains_it():
    from setuptools.config.pyprojecttoml import read_configuration

    data = read_configuration(ROOT / "pyproject.toml")["tool"]["setuptools"]["package-data"]
    folder, _, _ = jsonschema.SHIPPED.rpartition("/")
    patterns = data[f"policies.{folder}"]
    assert any(SHIPPED in (ROOT / "policies" / folder).glob(pattern) for pattern in patterns)


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_is_valid_as_written_and_says_where_its_schema_is(path):
    text = path.read_text(encoding="utf-8")
    for data in yaml.safe_load_all(text):
        assert faults(data) == []
        assert faults(data, OF_KIND[data["kind"]]) == []
    for one in re.split(r"^---\n", text, flags=re.MULTILINE):  # editors read the line of each document
        said = re.match(r"# yaml-language-server: \$schema=(\S+)\n", one)
        assert said and (path.parent / said[1]).resolve() == SHIPPED


@pytest.mark.parametrize("path", sorted(BAD.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_schema_rejects_the_bad_files_that_the_models_reject(path):
    if path.stem in TEXT_ONLY:
        return
    found, problems = parse(path.read_text(encoding="utf-8"), path.name, {})
    assert not problems
    wrong = [not validate(document).whole for document in found]
    assert [bool(faults(document.data)) for document in found] == wrong
    assert any(wrong) or path.stem in BEYOND


def test_the_lists_above_name_files():
    assert {path.stem for path in BAD.glob("*.yaml")} >= BEYOND | TEXT_ONLY


# --- variables and includes ---------------------------------------------------------------------------------------


def policy(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "pointsman/v1", "kind": "Policy", **fields}


@pytest.mark.parametrize(
    "data",
    [
        policy(budgets=[{"usd": "${CAP:-20}", "per": "${PERIOD:-day}"}]),
        policy(rules=[{"name": "r-${SITE}", "match": {"stream": "${STREAM}", "tokens_in": "${N}"}}]),
        policy(rules=[{"name": "r", "match": {"tokens_in": {"gt": "${N}"}}}]),
        policy(rules={"include": "rules.yaml"}),
        policy(rules=[{"include": "rules.yaml"}, {"name": "last"}]),
        policy(rules=[{"name": "r", "match": {"include": "m.yaml"}, "fallback": {"attempts": {"include": "n"}}}]),
        policy(sensitivity={"detectors": [{"use": "keywords", "words": {"include": "w.yaml"}, "label": "internal"}]}),
        policy(sensitivity={"detectors": [{"use": "keywords", "words": [{"include": "w"}], "label": "internal"}]}),
        policy(sensitivity={"detectors": [{"use": "${DETECTOR}", "label": "internal"}, {"include": "d.yaml"}]}),
        policy(constraints=[{"name": "c", "require": {"include": "attributes.yaml"}}]),
        policy(constraints=[{"name": "c", "require": {"quality": {"include": "q.yaml"}}}]),
        {"include": "policy.yaml"},
    ],
    ids=str,
)
def test_variables_and_includes_stand_where_values_do(data):
    assert faults(data) == []


@pytest.mark.parametrize(
    "data",
    [
        policy(budgets=[{"usd": "$${CAP}", "per": "day"}]),
        policy(budgets=[{"usd": "${", "per": "day"}]),
        policy(budgets=[{"usd": "${1}", "per": "day"}]),
        policy(rules="${RULES}"),
        policy(rules=["${RULE}"]),
        policy(rules={"include": 7}),
        policy(rules={"include": "a.yaml", "more": 1}),
        policy(rules=[{"include": "a.yaml", "name": "r"}]),
        {"include": "policy.yaml", "kind": "Policy"},
    ],
    ids=str,
)
def test_what_only_looks_like_a_variable_or_an_include_is_rejected(data):
    assert faults(data)


# --- the models and the schema agree ------------------------------------------------------------------------------


def full(model: type[Model], **fields_of_it: Any) -> dict[str, Any]:
    """An instance with the first example of every field."""
    return {field.name: field.examples[0] for field in fields(model)} | fields_of_it


EXAMPLES = [
    *(document.data for path in CONFIGS for document in documents(path)),
    full(
        Policy,
        sensitivity=full(
            Sensitivity, detectors=[*map(full, models_in(DetectorSettings))], floors=[full(Floor), {"label": "public"}]
        ),
        constraints=[
            full(Constraint, match=full(Match), require={"quality": full(AttributeTest), "zone": ["a", 1, True]})
        ],
        rules=[full(Rule, match={"time": full(TimeWindow), "entities": full(EntityCondition)}, slo=full(Slo))],
        budgets=[full(Budget)],
        limits=[full(RateLimit)],
    ),
    full(
        Fleet, backends=[full(Backend, models={"chat": full(BackendModel)}, tls=full(Tls), script=[full(ScriptStep)])]
    ),
    full(Tenants, tenants=[full(Tenant)]),
    full(PolicyTest, tests=[full(Case, request=full(one), expect=full(Expect)) for one in (RequestFacts, HttpRequest)]),
]

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.sampled_from([0.5, 1.5, -0.25, 4096.75]),
    st.sampled_from(
        ["", "edge", "reject", "pii", "chat", "day", "a b", "22:00-06:00", "pointsman/v1", "Policy", "x" * 501]
    ),
    st.sampled_from(["gte", "not", "match", "name", "path"]).map(lambda key: {key: "x"}),
    st.just([]),
    st.just({}),
    st.lists(st.sampled_from(["mon", 1, None, True]), max_size=2),
)
KEYS = st.sampled_from(
    [
        "name",
        "not",
        "not_",
        "any",
        "match",
        "label",
        "usd",
        "tokens",
        "per",
        "use",
        "words",
        "slo",
        "split",
        "extra",
        "path",
    ]
)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """An example with one to three small changes: a value replaced, removed, doubled, or a field put in."""
    data = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from([path for path in places(data) if path] or [()])) or [None]
        if last is None:
            return data
        here = data
        for step in way:
            here = here[step]
        match draw(st.sampled_from(["replace", "remove", "insert"])):
            case "replace":
                here[last] = draw(VALUES)
            case "remove":
                del here[last]
            case "insert" if isinstance(here, dict):
                here[draw(KEYS)] = draw(VALUES)
            case _:
                here.append(copy.deepcopy(here[last]))
    return data


def accepted(data: Any) -> bool:
    """Whether the model of its kind takes a document."""
    return validate(Document("test.yaml", data, {}, {})).whole


@given(mutated())
@settings(max_examples=400, deadline=None)
def test_what_the_schema_takes_the_models_take_and_nothing_else(data):
    assert ANY_KIND.is_valid(data) == accepted(data)


@pytest.mark.parametrize("data", EXAMPLES[-3:], ids=lambda data: data["kind"])
def test_every_value_replaced_by_every_other(data):
    """The same, for each place of the examples by itself."""
    assert accepted(data)
    others: list[Any] = [None, True, 0, 0.5, "", [], {"not": "a"}]
    for path in list(places(data))[1:]:
        for other in others:
            changed = copy.deepcopy(data)
            here = changed
            for step in path[:-1]:
                here = here[step]
            here[path[-1]] = other
            assert ANY_KIND.is_valid(changed) == accepted(changed), (path, other)


@pytest.mark.parametrize("whole", [4.0, 4])
def test_a_whole_number_with_a_point_is_where_they_differ(whole):
    data = policy(rules=[{"name": "r", "fallback": {"attempts": whole}}])
    assert faults(data) == []
    assert accepted(data) == isinstance(whole, int)


def test_a_field_has_its_written_name_only():
    """`not`, and never the name that the code has for it."""
    data = policy(rules=[{"name": "r", "match": {"tenant": {"not_": "a"}}}])
    assert faults(data)
    assert not accepted(data)
