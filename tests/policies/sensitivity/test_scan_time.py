"""Time is linear in the text, also in text made to be almost an entity all the way through."""

from __future__ import annotations

import base64
import time
import timeit

import pytest
from test_scanner import PII, SECRETS, WORDS

from policies.sensitivity import pii
from policies.sensitivity.phones import REGIONS
from policies.sensitivity.rules import Entity, resolve
from policies.sensitivity.scanner import RuleSet, Scanner

SCANNER = Scanner((PII, SECRETS, WORDS, RuleSet("pii", 2, pii.rules_for(("URL",), REGIONS))))
SMALL, LARGE = 256 * 1024, 1024 * 1024

ALMOST = {
    "local parts": "a." * 40 + "@",
    "domains": "a@b.",
    "no top level": "x@y.1",
    "digits": "1234567890",
    "groups of digits": "1234 ",
    "groups of two": "12-34-",
    "cards that fail": "4111111111111112 ",
    "ibans that fail": "DE89 3704 0044 0532 0130 01 ",
    "iban groups": "AB12 ",
    "addresses": "1.2.3.4.5",
    "octets": "300.",
    "colons": "ab:cd:",
    "phones": "+81 ",
    "phone words": "phone 12 ",
    "parentheses": "(0) ",
    "prefecture": "東京都港区",
    "cities": "市区市区",
    "municipality": "東京都港区芝公園芝公園芝公園",
    "context": "マイナンバー",
    "context and digits": "マイナンバー 1234 5678 9012 ",
    "passport": "passport passport",
    "births": "born 1980-99-99 ",
    "jwt": "eyJhbGciOi.",
    "jwt dots": "eyJhbGciOiJub25lIn0.eyJ",
    "armour": "-----BEGIN PRIVATE KEY-----",
    "userinfo": "a://b:c",
    "assignment": "password=",
    "assignments": "token: abc ",
    "base64": "QUJD",
    "base64 text": base64.b64encode(b"some words to read, ").decode() + " ",
    "percent": "%41",
    "escapes": "\\n",
    "words": "社外 confidentia ",
    "full width": "１２３４ー",
    "invisible": "1\u200b",
    "combining": "か\u3099",
    "urls": "http://a.b/c?",
    "hits": "taro@example.com 090-1234-5678 ",
}


def cost(text: str) -> float:
    begin = time.thread_time()
    SCANNER.outcomes([text])
    return time.thread_time() - begin


@pytest.mark.parametrize("name", ALMOST)
def test_time_is_linear(name):
    piece = ALMOST[name]
    SCANNER.outcomes([piece * 100])
    small, large = (min(cost(piece * (size // len(piece.encode()))) for _ in range(2)) for size in (SMALL, LARGE))
    assert large < 10 * small + 0.1, f"{small:.3f} s for 256 KiB, {large:.3f} s for 1 MiB"
    assert large < 20


def test_places_are_found_in_linear_time():
    text = "電話０９０－１２３４－５６７８、"
    SCANNER.find(text)

    def find(times: int) -> float:
        begin = time.thread_time()
        assert len(SCANNER.find(text * times)) == times
        return time.thread_time() - begin

    assert min(find(4000), find(4000)) < 10 * min(find(1000), find(1000)) + 0.1


def test_time_grows_with_the_number_of_findings_and_not_with_its_square():
    def seconds(count):
        found = [Entity(20 * i, 20 * i + 15, "X", 0.5) for i in range(count)]
        return min(timeit.repeat(lambda: resolve(found), number=1, repeat=3))

    resolve([])
    assert seconds(80_000) < 40 * seconds(8_000)
