"""YAML as we read it: fewer surprises than YAML 1.1, positions, variables, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.source import parse


def data(text, **env):
    documents, problems = parse(text, "f.yaml", env)
    assert problems == []
    return documents[0].data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("22:00", "22:00"), ("022", "022"), ("0x1f", "0x1f"), ("1_000", "1_000"),
        ("true", True), ("False", False), ("~", None), ("", None), ("12", 12), ("-3", -3), ("1.5", 1.5),
        ("1e3", 1000.0),        (".nan", ".nan"), ("2026-11-24", "2026-11-24"),
        ("社外秘", "社外秘"), ("'12'", "12"), ('"true"', "true"),
    ],
)  # fmt: skip
def test_scalars_are_what_they_look_like(text, value):
    found = data(f"a: {text}\n")["a"]
    assert found == value
    assert type(found) is type(value)


def test_variables_are_filled_in_and_typed_only_where_plain():
    text = "a: ${N}\nb: '${N}'\nc: http://${H}:${P:-80}/\nd: $${N}\ne: ${EMPTY:-}x\n"
    assert data(text, N="5", H="host") == {"a": 5, "b": "5", "c": "http://host:80/", "d": "${N}", "e": "x"}


def test_a_value_from_the_environment_cannot_add_structure():
    assert data("a: ${X}\n", X="1}\nb: [evil]") == {"a": "1}\nb: [evil]"}
    assert data("a: ${X}\n", X="${Y}") == {"a": "${Y}"}


def test_positions_of_keys_and_values():
    (document,), _ = parse("a:\n  - b: 1\n    ccc: 2\n", "f.yaml", {})
    assert document.keys[("a", 0, "ccc")] == (3, 5, "f.yaml")
    assert document.values[("a", 0, "ccc")] == (3, 10, "f.yaml")
    assert document.locate(("a", 0, "nowhere", "deeper")) == (2, 5, "f.yaml")


def test_anchors_work_within_bounds():
    assert data("a: &x {k: 1}\nb: *x\n") == {"a": {"k": 1}, "b": {"k": 1}}
    _, problems = parse("a: &x [*x]\n", "f.yaml", {})
    assert "nested deeper" in problems[0].message


@given(st.text(max_size=200))
def test_no_text_makes_it_raise(text):
    _, problems = parse(text, "f.yaml", {})
    assert all(p.file == "f.yaml" for p in problems)


@given(st.text(alphabet="[]{}:,-&*!|>'\"%@`# \n\tab$", max_size=80))
def test_no_punctuation_makes_it_raise(text):
    parse(text, "f.yaml", {"A": "x"})


# --- includes -----------------------------------------------------------------------------------------------------

FILES = {
    "words.txt": "# the words\n社外秘\n\n  draft \n",
    "rules.yaml": "- {name: a}\n- {name: b, mach: {}}\n",
    "one.yaml": "name: c\nvalue: ${A}\n",
    "loop.yaml": "{include: loop.yaml}\n",
    "two.yaml": "a: 1\n---\nb: 2\n",
    "broken.yaml": "a: [1\n",
}


def including(text, env=()):
    def include(file, path):
        if path not in FILES:
            raise FileNotFoundError(2, "No such file or directory")
        return path, FILES[path]

    documents, problems = parse(text, "f.yaml", dict(env), include)
    return (documents[0] if documents else None), [str(problem).partition("\n")[0] for problem in problems]


def test_an_include_stands_for_what_the_file_holds():
    document, problems = including("words: {include: words.txt}\none: {include: one.yaml}\n", {"A": "7"})
    assert problems == []
    assert document.data == {"words": ["社外秘", "draft"], "one": {"name": "c", "value": 7}}
    assert document.locate(("words", 1)) == (4, 1, "words.txt")
    assert document.locate(("one", "value"), key=True) == (2, 1, "one.yaml")


def test_in_a_list_a_list_is_spliced_in_and_places_stay_right():
    document, problems = including("rules:\n  - {name: z}\n  - {include: rules.yaml}\n  - {name: y}\n")
    assert problems == []
    assert [rule["name"] for rule in document.data["rules"]] == ["z", "a", "b", "y"]
    assert document.locate(("rules", 2, "mach"), key=True) == (2, 13, "rules.yaml")
    assert document.locate(("rules", 3)) == (4, 5, "f.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: {include: nope.yaml}", "f.yaml:1:14: error: cannot include 'nope.yaml': No such file or directory"),
        ("a: {include: loop.yaml}", "loop.yaml:1:11: error: files include each other more than 8 deep"),
        ("a: {include: two.yaml}", "two.yaml: error: an included file holds one YAML document"),
        ("a: {include: broken.yaml}", "broken.yaml:2:1: error: not valid YAML: "),
    ],
)
def test_an_include_that_cannot_be(text, says):
    _, problems = including(text)
    assert problems[0].startswith(says)


def test_without_a_reader_of_files_nothing_is_included():
    _, problems = parse("a: {include: words.txt}", "f.yaml", {})
    assert "cannot be included here" in problems[0].message
