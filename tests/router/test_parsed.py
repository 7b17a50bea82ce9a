"""What is given to the detectors: everything in a call that can carry text, with what it is called."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.wire.parsed import Parsed, strings

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(min_size=1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=20,
)


def texts_in(value):
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, one in value.items() for text in (key, *texts_in(one))]
    return [text for one in value for text in texts_in(one)] if isinstance(value, list) else []


@given(VALUES)
def test_no_text_is_left_out(value):
    found = "\n".join(strings(value))
    assert all(text in found for text in texts_in(value))


def test_in_order_and_with_keys():
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}], "password": "x", "n": 7}
    assert [text for text in strings(body) if ":" in text] == [
        "role: user", "type: text", "text: a", "content: b", "password: x", "n: 7"
    ]  # fmt: skip


def test_tokens_are_no_text():
    assert list(strings(json.loads('{"input": [1, 2, 3], "flag": true}'))) == ["input", "flag"]


def test_numbers_are_given_wherever_they_stand():
    body = json.loads('{"x": {"": 4111111111111111}, "enum": [4111111111111111], "f": 4111111111111111e0, "g": 0.5}')
    found = list(strings(body))
    assert {"4111111111111111", "enum: 4111111111111111", "f: 4111111111111111", "g: 0.5"} <= set(found)


def test_pieces_are_given_as_a_model_puts_them_together():
    parts = [{"type": "text", "text": "card 4111 1111 "}, {"type": "text", "text": "1111 1111"}]
    body = {"messages": [{"role": "user", "content": parts}, {"role": "user", "content": "my password is"},
                         {"role": "user", "content": "hunter2"}]}  # fmt: skip
    texts = Parsed("openai", "m", "chat", content=body).texts()
    assert "card 4111 1111 1111 1111" in texts
    assert any("my password is\nhunter2" in text for text in texts)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [15339, 1917]},
        {"input": [[1, 2], [3]]},
        {"prompt_embeds": "AAAA", "prompt": "x"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "image_url": "b"}]}]},
        {"messages": [{"role": "user", "content": "a", "images": ["b"]}]},
        {"messages": [{"role": "user", "content": "a", "audio": {"data": "b"}}]},
    ],
)
def test_what_is_not_only_text_is_unscannable(body):
    assert Parsed("openai", "m", "chat", content=body).unscannable()


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ["a", "b"]},
        {"input": "a"},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": None},
            ]
        },
    ],
)
def test_text_is_not(body):
    assert not Parsed("openai", "m", "chat", content=body).unscannable()
