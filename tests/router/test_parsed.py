"""What is given to the detectors: everything in a call that can carry text, with what it is called."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from router.wire.parsed import strings

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
