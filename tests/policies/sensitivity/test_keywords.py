"""The organisation's own words and patterns."""

from __future__ import annotations

import time

import pytest
import re2
from conftest import THREE_TIERS, compile_text

from policies.errors import ConfigurationError
from policies.sensitivity.keywords import MAX_MATCH, Pattern, Words
from policies.sensitivity.normalise import LONGER_PATTERN
from policies.sensitivity.scanner import RuleSet, Scanner


def words(*listed: str) -> Scanner:
    return Scanner((RuleSet("keywords", 1, (Words(listed),)),))


@pytest.mark.parametrize(
    ("word", "text", "found"),
    [
        ("NDA", "under NDA.", ["NDA"]),
        ("NDA", "Linda, agenda, NDAs, nda_x", []),
        ("nda", "ＮＤＡ契約", ["ＮＤＡ"]),
        ("社外秘", "この文書は社外秘です", ["社外秘"]),
        ("社外秘", "社\u200b外秘", ["社\u200b外秘"]),
        ("ﾏﾙﾋ", "マルヒ資料", ["マルヒ"]),
        ("マルヒ", "ﾏﾙﾋ資料", ["ﾏﾙﾋ"]),
        ("Straße", "Die STRASSE und die straße", ["STRASSE", "straße"]),
        ("project blue", "Project   Blue, project\nBLUE, projectblue", ["Project   Blue", "project\nBLUE"]),
        ("İstanbul", "İSTANBUL ofisi", ["İSTANBUL"]),
        ("C++", "in C++ and c++11", ["C++", "c++"]),
        ("部外秘A", "部外秘AB と 部外秘A", ["部外秘A"]),
        ("株式会社", "㈱ではなく株式会社", ["株式会社"]),
        (".*", "anything", []),
        ("がぎ", "か\u3099き\u3099", ["か\u3099き\u3099"]),
    ],
)
def test_words(word, text, found):
    assert [text[e.start : e.end] for e in words(word).find(text)] == found


def test_the_longer_of_two_words_counts():
    text = "社外秘情報と社外秘"
    found = words("社外秘", "社外秘情報").find(text)
    assert [text[e.start : e.end] for e in found] == ["社外秘情報", "社外秘"]


def test_ten_thousand_words_cost_what_ten_do():
    few, many = words(*(f"needle{i}" for i in range(10))), words(*(f"needle{i}社外秘{i}" for i in range(10_000)))
    text = "The quick brown fox needles the lazy dog 社外 and so on. " * 2000

    def cost(scanner: Scanner) -> float:
        scanner.outcomes([text])
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            scanner.outcomes([text])
            times.append(time.perf_counter() - begin)
        return min(times)

    assert cost(many) < 5 * cost(few)
    assert [e.type for e in many.find("a needle77社外秘77 b")] == ["KEYWORD"]


# --- patterns -----------------------------------------------------------------------------------------------------


def patterns(**named: str) -> Scanner:
    return Scanner((RuleSet("patterns", 1, tuple(Pattern(name, pattern) for name, pattern in named.items())),))


def test_patterns_have_their_own_types():
    text = "部品ＰＮ-123456と顧客C-00017"
    found = patterns(PART=r"\bPN-[0-9]{6}\b", CUSTOMER=r"\bC-[0-9]{5}\b").find(text)
    assert [(e.type, text[e.start : e.end]) for e in found] == [("PART", "ＰＮ-123456"), ("CUSTOMER", "C-00017")]


@pytest.mark.parametrize("pattern", ["a.*b|a", "(?s)a.*", "[a-z]+@", "(a+)+$", "a|aa|aaa"])
def test_no_pattern_takes_more_than_linear_time(pattern):
    scanner = patterns(X=pattern)

    def cost(size: int) -> float:
        begin = time.perf_counter()
        scanner.find("a" * size)
        return time.perf_counter() - begin

    cost(1000)
    assert cost(256 * 1024) < 12 * cost(64 * 1024) + 0.05


def test_a_match_longer_than_the_window_is_a_finding_still():
    text = "x" * 100 + "begin" + "y" * (5 * MAX_MATCH) + "end"
    assert [e.type for e in patterns(X="begin.*end").find(text)] == ["X"]
    assert [(e.start, e.end) for e in patterns(X="begin").find(text)] == [(100, 105)]


def test_matches_at_the_edges_of_windows_are_all_found():
    for pad in range(MAX_MATCH - 8, MAX_MATCH + 8):
        text = "z" * pad + "PN-123456" + "z" * MAX_MATCH + "PN-123456"
        assert len(patterns(X="PN-[0-9]{6}").find(text)) == 2


# --- in a policy --------------------------------------------------------------------------------------------------

POLICY = """
---
kind: Policy
sensitivity:
  detectors:
    - {use: patterns, patterns: {PART_NUMBER: 'PN-[0-9]{6}'}, label: restricted}
rules:
  - {name: parts, match: {entities: {any: [PART_NUMBER]}}}
"""


def test_match_may_ask_for_types_that_patterns_declare():
    policy = compile_text(THREE_TIERS + POLICY)
    (outcome,) = policy.detectors.outcomes(["PN-123456", "PN-000001"])
    assert (outcome.name, outcome.label, outcome.found) == ("patterns", 3, {"PART_NUMBER": 2})


def test_types_nobody_declares_are_still_refused():
    with pytest.raises(ConfigurationError, match="no detector finds entities of type 'OTHER'"):
        compile_text(THREE_TIERS + POLICY.replace("[PART_NUMBER]", "[OTHER]"))


def test_every_character_that_folds_is_seen_without_folding():
    """The prefilter looks for words without folding the text, so it must see every character that folding changes."""
    several = re2.compile(LONGER_PATTERN)
    for code in range(0x110000):
        char = chr(code)
        folded = char.casefold()
        if folded != char and not 0xD800 <= code < 0xE000 and not several.fullmatch(char):
            assert re2.fullmatch(f"(?i:{re2.escape(folded)})", char), hex(code)


@pytest.mark.parametrize(
    "text", ["GROẞE MAßNAHME", "große maßnahme", "GROSSE MASSNAHME", "ﬁnal report", "FINAL REPORT"]
)
def test_words_that_fold_to_more_characters_are_found(text):
    scanner = Scanner((RuleSet("keywords", 2, (Words(("Große Maßnahme", "Final Report")),)),))
    assert scanner.outcomes([text])[0].found == {"KEYWORD": 1}
