"""The label only rises, and doubt means the top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from conftest import THREE_TIERS, compile_text
from hypothesis import given
from hypothesis import strategies as st

from policies.sensitivity.labels import label

TOP = 3


@dataclass(frozen=True)
class Finds:
    """A detector that finds so many entities."""

    name: str
    label: int
    count: int

    def scan(self, texts: Iterable[str], /) -> Mapping[str, int]:
        return {"THING": self.count} if self.count else {}


@dataclass(frozen=True)
class Breaks:
    name: str = "broken"
    label: int = 0

    def scan(self, texts: Iterable[str], /) -> Mapping[str, int]:
        raise RuntimeError("the text was: my secret")


finders = st.builds(Finds, st.just("finder"), st.integers(0, TOP), st.integers(0, 2))


@given(st.integers(0, TOP), st.none() | st.integers(0, TOP), st.lists(finders, max_size=4))
def test_it_is_the_highest_of_everything_known(default, header, detectors):
    found = label(default, TOP, detectors, ["text"], header=header)
    floor = max(default, header or 0)
    assert found.rank == max([floor, *(d.label for d in detectors if d.count)])
    assert found.rank == max(rank for _, rank in found.raised_by)


@given(st.lists(finders, max_size=3), st.integers(0, 3))
def test_a_detector_that_fails_means_the_top(detectors, place):
    detectors.insert(min(place, len(detectors)), Breaks())
    found = label(0, TOP, detectors, ["text"])
    assert found.rank == TOP
    assert ("broken:failed", TOP) in found.raised_by
    assert "secret" not in repr(found)


def test_text_that_cannot_be_read_means_the_top():
    assert label(0, TOP, [Finds("f", 1, 0)], None).rank == TOP
    assert label(0, TOP, [], None).rank == 0  # nobody would have looked


def test_keywords_see_through_width_case_and_composition():
    policy = compile_text(
        THREE_TIERS
        + """
---
kind: Policy
sensitivity:
  detectors: [{use: keywords, words: [社外秘, ﾏﾙﾋ, Confidential], label: confidential}]
"""
    )
    (detector,) = policy.detectors
    assert detector.scan(["この文書は社外秘です", "ＣＯＮＦＩＤＥＮＴＩＡＬ", "マルヒ"]) == {"KEYWORD": 3}
    assert detector.scan(["nothing here", "社外"]) == {}


def test_what_raised_it_is_told_in_words_and_types():
    found = label(1, 3, (Finds("pii", 2, 2),), ["x"], header=2)
    assert found.why == ("the header x-data-sensitivity", "pii:THING")
    assert label(1, 3, (), ["x"], unscannable=2).why == ("content that no detector can read",)
