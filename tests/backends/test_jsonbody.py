"""JSON from outside: what is scanned here must be what a backend will read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.jsonbody import NotJson, decode_unambiguous

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_whatever_json_can_hold_comes_through(value, ascii_only, indent):
    assert decode_unambiguous(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b'{"role": "user", "content": "top secret", "content": "ho"}',
        b'{"a": [{"b": 1, "b" : 2}]}',
        b'{"content": "x", "cont\\u0065nt": "y"}',
        b'{"": 1, "": 1}',
        b'{"a\\"": 1, "a\\"": 2}',
    ],
)
def test_a_key_that_stands_twice_is_refused(body):
    with pytest.raises(NotJson, match="stands twice"):
        decode_unambiguous(body)


@pytest.mark.parametrize("body", [b'{"a": "b\\": c", "d": "{\\"a\\": 1}"}', b'["a", "b\\\\", "c:"]', b'{"a\\\\": ":"}'])
def test_colons_and_quotes_inside_text_are_no_keys(body):
    assert decode_unambiguous(body) == json.loads(body)


TEXTS = st.text(alphabet='a":\\ {}\n\u00e9', max_size=3)
PAIRS = st.recursive(
    TEXTS | st.integers(0, 9),
    lambda inner: st.lists(st.tuples(TEXTS, inner), max_size=4) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=12,
)


def spelt(value, spaces):
    """JSON of nested pairs, in which a key may stand twice."""
    if isinstance(value, list):
        return "{" + ",".join(f"{json.dumps(k)}{spaces}:{spaces}{spelt(v, spaces)}" for k, v in value) + "}"
    if isinstance(value, tuple):
        return "[" + ",".join(spelt(one, spaces) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def twice(value):
    if isinstance(value, list):
        return len({k for k, _ in value}) < len(value) or any(twice(v) for _, v in value)
    return isinstance(value, tuple) and any(twice(one) for one in value)


@given(PAIRS, st.sampled_from(["", " ", "\n\t"]))
def test_exactly_those_with_a_key_twice_are_refused(value, spaces):
    raw = spelt(value, spaces).encode()
    if twice(value):
        with pytest.raises(NotJson, match="stands twice"):
            decode_unambiguous(raw)
    else:
        assert decode_unambiguous(raw) == json.loads(raw)
