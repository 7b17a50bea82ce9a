"""One spelling for the same text, and the way back to the original."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.sensitivity.normalise import compose, fold, normalise, original_spans

STRANGE = st.text(
    st.sampled_from(
        [
            *"aA1 \n０Ａーｱﾞﾟがかば㈱①…ﬁß",
            *"\u3099\u0301\u200b\u00ad\ufe0f\u1100\u1161\u11a8\ufdfa\u212b",
            *"\U0001f469\u200d\u09c7\u09be\u1112\uffa0\u3164\u0f73",
        ]
    )
    | st.characters(exclude_categories=["Cs"]),
    max_size=30,
)


@given(STRANGE)
def test_it_is_nfkc_without_what_nobody_sees(text):
    assert compose(text) == unicodedata.normalize("NFKC", text)
    assert unicodedata.is_normalized("NFKC", normalise(text))
    assert not any(char in normalise(text) for char in "\u200b\u00ad\ufeff\u2060\ufe0f\u202e")


@given(STRANGE)
def test_every_place_has_an_origin(text):
    """The pieces that characters come from, put in order, are the whole of the original."""
    normal = normalise(text)
    spans = [(i, i + 1) for i in range(len(normal))]
    origins = original_spans(text, spans)
    for (start, end), (begin, stop) in zip(spans, origins, strict=True):
        assert 0 <= begin < stop <= len(text)
        assert normal[start:end] in normalise(text[begin:stop])
    assert origins == sorted(origins)


@given(STRANGE, st.integers(0, 40), st.integers(1, 40))
def test_a_span_comes_from_text_that_spells_it(text, start, length):
    normal = normalise(text)
    start = min(start, len(normal))
    end = min(start + length, len(normal))
    if start == end:
        return
    ((begin, stop),) = original_spans(text, [(start, end)])
    assert normal[start:end] in normalise(text[begin:stop])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("０９０－１２３４", "090-1234"),
        ("ｶﾞｷﾞ", "ガギ"),
        ("ta\u200bro\u00ad", "taro"),
        ("㈱", "(株)"),
        ("\u202e123", "123"),
        ("1\ufe0f\u20e3", "1\u20e3"),
    ],
)
def test_examples(text, normal):
    assert normalise(text) == normal


def test_folding_forgets_case():
    assert fold("ＳＴＲＡẞＥ") == fold("strasse")


def test_a_span_outside_the_text_is_an_error():
    with pytest.raises(ValueError, match="outside"):
        original_spans("あ", [(0, 5)])
