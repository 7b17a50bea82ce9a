"""The scan as a whole: one pass, every detector by itself, places in the original, and doubt that means the top."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import pickle
import time
from dataclasses import dataclass

import pytest
from conftest import THREE_TIERS, compile_text
from hypothesis import given, settings
from hypothesis import strategies as st
from test_credentials import FOUND as SECRETS_FOUND
from test_credentials import RULES as SECRETS_RULES
from test_pii import FOUND as PII_FOUND
from test_pii import places

from policies.sensitivity import pii, views
from policies.sensitivity.keywords import Pattern, Words
from policies.sensitivity.labels import label
from policies.sensitivity.phones import REGIONS
from policies.sensitivity.prefilter import Blind, Prefilter
from policies.sensitivity.rules import Entity, resolve
from policies.sensitivity.scanner import RuleSet, Scanner

TOP = 3
PII = RuleSet("pii", 2, pii.rules_for(pii.DEFAULT, REGIONS))
SECRETS = RuleSet("secrets", 3, SECRETS_RULES)
WORDS = RuleSet("keywords", 1, (Words(("社外秘", "confidential")),))
SCANNER = Scanner((PII, SECRETS, WORDS))

EXAMPLES = [
    (name, marked)
    for table in (PII_FOUND, SECRETS_FOUND)
    for name, texts in table.items()
    if name != "URL"  # not looked for unless a policy asks
    for marked in texts
]
ENTITIES = {
    "EMAIL_ADDRESS": "taro@example.com",
    "PHONE_NUMBER": "090-1234-5678",
    "CREDIT_CARD": "4111111111111111",
    "IBAN_CODE": "GB82WEST12345698765432",
    "IP_ADDRESS": "203.0.113.7",
    "US_SSN": "536-22-1234",
    "KEYWORD": "社外秘",
}


# --- what the label says ------------------------------------------------------------------------------------------


def test_each_detector_says_what_it_found():
    found = label(0, TOP, SCANNER, ["メール taro@example.com 社外秘", "password: Zt8Wv3Bn6Yc1", "bob@example.com"])
    assert found.rank == TOP
    assert set(found.raised_by) == {
        ("floor", 0),
        ("pii:EMAIL_ADDRESS", 2),
        ("secrets:TOKEN", 3),
        ("keywords:KEYWORD", 1),
    }
    assert found.entities == {"EMAIL_ADDRESS": 2, "TOKEN": 1, "KEYWORD": 1}


def test_nothing_found_leaves_the_floor():
    found = label(1, TOP, SCANNER, ["今日は天気がいい", "nothing here", ""])
    assert (found.rank, found.raised_by, dict(found.entities)) == (1, (("floor", 1),), {})


def test_a_secret_in_a_longer_finding_still_counts():
    """A URL is longer than the key in it, but what it hides must not lower the label."""
    scanner = Scanner((RuleSet("pii", 1, pii.rules_for(("URL",), REGIONS)), SECRETS))
    text = "see https://example.com/?key=AKIA" + "IOSFODNN7QWERTYU"
    assert label(0, TOP, scanner, [text]).rank == TOP
    assert [e.type for e in scanner.find(text)] == ["URL"]


def test_the_same_detector_twice_with_different_labels():
    low = RuleSet("pii", 1, pii.rules_for(("EMAIL_ADDRESS",), REGIONS))
    high = RuleSet("pii", 2, pii.rules_for(("CREDIT_CARD",), REGIONS))
    assert label(0, TOP, Scanner((low, high)), ["taro@example.com"]).rank == 1
    assert label(0, TOP, Scanner((low, high)), ["4111111111111111"]).rank == 2


@given(st.lists(st.sampled_from([*ENTITIES.values(), "hello", "こんにちは", "", "％"]), max_size=5))
def test_texts_count_as_they_do_one_by_one(texts):
    together = SCANNER.outcomes(texts)
    apart = [SCANNER.outcomes([text]) for text in texts]
    for i, outcome in enumerate(together):
        total: dict[str, int] = {}
        for one in apart:
            for name, count in one[i].found.items():
                total[name] = total.get(name, 0) + count
        assert outcome.found == total


def test_parts_of_a_scanner_are_detectors():
    assert len(SCANNER) == 3
    assert [detector.name for detector in SCANNER] == ["pii", "secrets", "keywords"]
    assert SCANNER[2].scan(["社外秘"]) == {"KEYWORD": 1}
    assert not Scanner()


# --- doubt means the top ------------------------------------------------------------------------------------------


def test_a_prefilter_out_of_memory_means_the_top():
    """RE2 says "no match" then; only the canary tells."""
    blind = Scanner((PII,))
    object.__setattr__(blind, "plain", Prefilter(blind.plain.patterns[3:5], max_memory=1 << 20))
    blind.plain._set = _OutOfMemory()
    with pytest.raises(Blind):
        blind.find("taro@example.com")
    found = label(0, TOP, blind, ["nothing here"])
    assert found.rank == TOP
    assert ("pii:failed", TOP) in found.raised_by


class _OutOfMemory:
    def Match(self, data):
        return None


def test_too_little_memory_is_told_when_the_patterns_are_compiled():
    with pytest.raises(Exception, match="compile"):
        Prefilter([r"\pL{100}"], max_memory=1 << 16)


def test_more_text_than_the_limit_means_the_top():
    scanner = Scanner((PII, WORDS), limit=1000)
    assert label(0, TOP, scanner, ["a" * 1000]).rank == 0
    found = label(0, TOP, scanner, ["a" * 600, "a" * 600])
    assert set(found.raised_by) == {("floor", 0), ("pii:failed", TOP), ("keywords:failed", TOP)}
    assert label(0, TOP, scanner, ["あ" * 400]).rank == TOP  # bytes count, not characters
    assert label(0, TOP, scanner, ["\ufdfa" * 200]).rank == TOP  # what it is normalised to counts, too
    with pytest.raises(views.TooMuch):
        scanner.find("a" * 2000)


def test_more_hidden_text_than_may_be_decoded_means_the_top():
    hidden = base64.b64encode(b"plain words " * (views.MAX_DECODED // 12 + 100)).decode()
    assert label(0, TOP, SCANNER, [hidden]).rank == TOP
    picture = base64.b64encode(bytes(range(256)) * 16384).decode()
    assert label(0, TOP, SCANNER, [picture]).rank == 0


@dataclass(frozen=True)
class Crashes:
    entity: str = "EMAIL_ADDRESS"
    probes: tuple[str, ...] = ("@",)

    def find(self, data):
        raise RuntimeError(f"the text was {data!r}")
        yield


def test_a_detector_that_crashes_means_the_top_and_the_others_still_look():
    scanner = Scanner((RuleSet("broken", 0, (Crashes(),)), PII))
    found = label(0, TOP, scanner, ["taro@example.com"])
    assert ("broken:failed", TOP) in found.raised_by
    assert ("pii:EMAIL_ADDRESS", 2) in found.raised_by
    assert label(0, TOP, scanner, ["no at sign"]).rank == 0
    with pytest.raises(Blind) as error:
        scanner.find("taro@example.com")
    assert "taro" not in str(error.value)


@given(st.text(st.characters(), max_size=200))
@settings(max_examples=300)
def test_no_text_makes_it_fail(text):
    assert all(outcome.found is not None for outcome in SCANNER.outcomes([text, text[::-1]]))


@pytest.mark.parametrize("text", ["\ud800", "a\udfff@b.com", "\x00", "\ud83d taro@example.com", "あ\ud800社外秘"])
def test_lone_surrogates_are_scanned(text):
    assert all(outcome.found is not None for outcome in SCANNER.outcomes([text]))
    SCANNER.find(text)


# --- places -------------------------------------------------------------------------------------------------------


@given(
    st.text(st.characters(exclude_categories=["Cs", "N", "L", "M"]), max_size=20),
    st.sampled_from(sorted(ENTITIES)),
    st.text(st.characters(exclude_categories=["Cs", "N", "L", "M"]), max_size=20),
)
def test_an_entity_in_any_text_is_found_where_it_is(before, name, after):
    """Symbols may change what a thing is (a - before a number), so some stay out of the frame."""
    text = f"{before} 、{ENTITIES[name]}、 {after}"
    start = len(before) + 2
    expected = Entity(start, start + len(ENTITIES[name]), name, 0)
    found = [e for e in SCANNER.find(text) if e.type == name and e.start <= expected.start < e.end]
    assert [(e.start, e.end) for e in found] == [(expected.start, expected.end)]


@given(
    st.text(st.sampled_from("ぁん漢字。、 ａｂ２\u200b\u3099ﾞが\n😀"), max_size=30), st.sampled_from(sorted(ENTITIES))
)
def test_places_count_characters_of_the_original(before, name):
    text = f"{before}\n「{ENTITIES[name]}」"
    assert [text[e.start : e.end] for e in SCANNER.find(text) if e.type == name] == [ENTITIES[name]]


@pytest.mark.parametrize(
    ("name", "marked"), [(n, m) for n, m in EXAMPLES if not any(e in m for e in ("%40", "%2B", "\\u00", "&#"))]
)
def test_every_example_stands_in_base64_too(name, marked):
    hidden = base64.b64encode(f"text: {places(marked)[0]} -- end of it".encode()).decode()
    outer = f"data {hidden} end"
    assert any(name in outcome.found for outcome in SCANNER.outcomes([outer]))
    assert [(e.start, e.end) for e in SCANNER.find(outer)] == [(5, 5 + len(hidden))]


def test_each_thing_in_base64_counts():
    hidden = base64.b64encode(b"taro@example.com, hanako@example.com, 090-1234-5678").decode()
    assert SCANNER.outcomes([hidden])[0].found == {"EMAIL_ADDRESS": 2, "PHONE_NUMBER": 1}


def test_what_two_readings_show_counts_once():
    assert SCANNER.outcomes(["%41 taro@example.com"])[0].found == {"EMAIL_ADDRESS": 1}


@pytest.mark.parametrize(
    "hide", [json.dumps, lambda text: json.dumps(json.dumps(text)), lambda t: t.replace("@", "%40")]
)
def test_what_escapes_hide_is_found(hide):
    text = hide("連絡先\n090-1234-5678\ttaro@example.com")
    assert {e.type for e in SCANNER.find(text)} >= {"PHONE_NUMBER", "EMAIL_ADDRESS"}


def test_escapes_far_apart_are_read_with_their_surroundings():
    far = " filler" * 500
    text = f"a%20b{far} x taro%40example.com{far} 090%2D1234%2D5678 {far}%41"
    found = [(e.type, text[e.start : e.end]) for e in SCANNER.find(text)]
    assert found == [("EMAIL_ADDRESS", "taro%40example.com"), ("PHONE_NUMBER", "090%2D1234%2D5678")]


def test_base64_in_lines_and_behind_a_path():
    hidden = base64.b64encode(b"please write to taro@example.com, he waits for it; thank you very much").decode()
    lines = "\n".join(hidden[i : i + 40] for i in range(0, len(hidden), 40))
    for text in (lines, lines.replace("\n", "\\n"), f"api/v1/{hidden}", f"data:text/plain;base64,{hidden}"):
        assert [e.type for e in SCANNER.find(text)] == ["EMAIL_ADDRESS"]


@given(st.lists(st.builds(Entity, st.integers(0, 40), st.integers(41, 80), st.sampled_from("AB"), st.floats(0, 1))))
def test_overlaps_are_resolved_to_the_longest(entities):
    kept = resolve(entities)
    assert all(one.end <= other.start for one, other in itertools.pairwise(kept))
    for one in entities:
        assert any(k.start < one.end and one.start < k.end and k.end - k.start >= one.end - one.start for k in kept)


# --- the prefilter covers the rules -------------------------------------------------------------------------------

RULES = [rule for one in (PII, SECRETS) for rule in one.rules]


def covered(data: bytes) -> None:
    for rule in RULES:
        if list(rule.find(data)):
            assert SCANNER.plain.hits(data).issuperset(rule.probes), rule


@pytest.mark.parametrize(("name", "marked"), EXAMPLES)
def test_what_a_rule_finds_its_probes_let_through(name, marked):
    from policies.sensitivity.normalise import normalise

    covered(normalise(places(marked)[0]).encode())


MIXTURE = [*(places(marked)[0] for _, marked in EXAMPLES), *"0123456789 -.@:/()+〒年県"]


@given(st.lists(st.sampled_from(MIXTURE), max_size=6))
@settings(max_examples=150, deadline=None)
def test_what_a_rule_finds_its_probes_let_through_in_any_mixture(parts):
    covered("".join(parts).encode())


@given(st.text("0123456789 -.()+/", min_size=7, max_size=40))
@settings(max_examples=300)
def test_numbers_of_every_grouping_are_let_through(text):
    covered(text.encode())


def test_scanning_opens_nothing_and_asks_no_clock(monkeypatch):
    """What the libraries of check digits and numbering plans read, they have read when the policy is compiled."""
    import builtins
    import socket

    def forbidden(*args, **kwargs):
        raise AssertionError("the scan reached outside")

    monkeypatch.setattr(builtins, "open", forbidden)
    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(time, "time", forbidden)
    for _, marked in EXAMPLES:
        assert all(outcome.found is not None for outcome in SCANNER.outcomes([places(marked)[0]]))


# --- nothing leaks ------------------------------------------------------------------------------------------------


def test_no_object_shows_the_text(caplog):
    secret = "taro.yamada@example.com"
    policy = compile_text(
        THREE_TIERS
        + """
---
kind: Policy
sensitivity:
  detectors: [{use: pii, label: confidential}, {use: patterns, patterns: {OWN: yamada}, label: restricted}]
"""
    )
    caplog.set_level(logging.DEBUG)
    scanner = policy.detectors
    found = scanner.find(f"mail {secret}")
    outcomes = scanner.outcomes([secret])
    view = views.View(secret.encode(), (0,), ((0, 1, 0, 1),))
    shown = "".join(map(repr, (found, outcomes, view, scanner, label(0, TOP, scanner, [secret]), *scanner)))
    shown += "".join(map(str, (found, outcomes, scanner))) + caplog.text
    small = Scanner((PII,), limit=3)
    for broken in (lambda: small.find(secret), lambda: small[0].scan([secret])):
        with pytest.raises((views.TooMuch, Blind)) as error:
            broken()
        shown += repr(error.value) + str(error.value)
    assert "taro" not in shown and "yamada" not in shown.replace("OWN", "")
    assert b"taro" not in pickle.dumps(found)


def test_patterns_find_nothing_of_one_another():
    own = Scanner((RuleSet("patterns", 1, (Pattern("A", "aa+"), Pattern("B", "aaa"))),))
    assert [(e.type, e.start, e.end) for e in own.find("xaaaa")] == [("A", 1, 5)]
