"""What becomes of the names that a model finds."""

from __future__ import annotations

import pytest
from conftest import compile_text

from policies.errors import ConfigurationError
from policies.sensitivity.labels import label
from policies.sensitivity.ner import LABELS, TYPES, Named, Ner, none_here
from policies.sensitivity.scanner import Scanner

NAMES = {
    "田中太郎": "Person",
    "Alice": "PERSON",
    "大阪市": "City",
    "Acme": "ORG",
    "Monday": "DATE",
    "PERSON_1": "PERSON",
}


def finds(texts, seconds):
    return [
        [Named(text.index(name), text.index(name) + len(name), kind) for name, kind in NAMES.items() if name in text]
        for text in texts
    ]


def scanner(recognise=finds, entities=TYPES):
    return Scanner(others=(Ner(2, frozenset(entities), 1.0, recognise),))


def found(text, **options):
    return [(entity.type, text[entity.start : entity.end]) for entity in scanner(**options).find(text)]


def test_names_get_our_types():
    assert found("Alice met 田中太郎 of Acme on Monday in 大阪市") == [
        ("PERSON", "Alice"), ("PERSON", "田中太郎"), ("ORGANIZATION", "Acme"), ("LOCATION", "大阪市"),
    ]  # fmt: skip
    assert found("Alice of Acme", entities=("PERSON",)) == [("PERSON", "Alice")]


def test_a_model_reads_normalised_text_and_places_are_those_of_the_original():
    assert found("Ｈｅｌｌｏ, Ａｌｉ\u200bｃｅ!") == [("PERSON", "Ａｌｉ\u200bｃｅ")]


def test_they_raise_the_label():
    result = label(0, 3, scanner(), ["Alice and Alice", "田中太郎"])
    assert (result.rank, dict(result.entities)) == (2, {"PERSON": 2})


def wrong(texts, seconds):
    return []


def outside(texts, seconds):
    return [[Named(0, 4000, "PERSON")] for _ in texts]


@pytest.mark.parametrize("recognise", [none_here("x"), wrong, outside])
def test_no_answer_and_a_wrong_one_mean_the_top(recognise):
    result = label(0, 3, scanner(recognise), ["some text"])
    assert (result.rank, result.failed) == (3, ("ner",))
    with pytest.raises(Exception):  # noqa: B017  (whatever it is, nothing is masked)
        scanner(recognise).cover(["some text"])


def test_text_without_letters_is_not_asked_about():
    asked = []
    scanner(lambda texts, seconds: asked.append(texts) or [[] for _ in texts]).find("12 34")
    assert asked == []


def test_placeholders_are_no_names_once_text_is_masked_and_only_then():
    assert label(0, 3, scanner(), ["to [PERSON_1]"], masked=True).rank == 0
    assert label(0, 3, scanner(), ["to [PERSON_1]"]).rank == 2
    assert label(0, 3, scanner(), ["to [PERSON_1] and Alice"], masked=True).rank == 2


def test_every_label_is_translated_to_a_type_that_policies_may_name():
    assert set(LABELS.values()) == set(TYPES)


POLICY = """
kind: Fleet
backends: [{name: b, tier: edge, region: jp, protocol: fake, models: {m: {task: chat}}}]
---
kind: Policy
sensitivity: {detectors: [{use: ner, model: some_model, label: confidential, SETTINGS}]}
"""


def test_without_a_model_at_hand_a_policy_compiles_and_every_text_has_the_top_label():
    policy = compile_text(POLICY.replace("SETTINGS", "entities: [PERSON]"))
    assert label(0, 3, policy.detectors, ["anything"]).rank == 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("entities: [EMAIL_ADDRESS]", "the detector ner does not find entities of type 'EMAIL_ADDRESS'"),
        ("labels: {PATIENT: PERSOM}", "no entities have the type 'PERSOM'"),
        ("timeout_ms: 0", "timeout_ms"),
    ],
)
def test_what_is_wrong_with_its_settings_is_said(settings, told):
    with pytest.raises(ConfigurationError, match=told):
        compile_text(POLICY.replace("SETTINGS", settings))
