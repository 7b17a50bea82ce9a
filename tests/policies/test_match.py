"""What match and require mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import request

from policies.match import attribute_test, compile_match
from policies.schema import AttributeTest, Match

RANKS = {"public": 0, "internal": 1, "confidential": 2, "restricted": 3}
BASE = replace(
    request(tenant="acme-dev", usage="audit"), label=1, tokens_in=100, body_bytes=10, deadline_ms=50.0, stream=True
)


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ({}, True),
        ({"model": "chat"}, True),
        ({"model": "Chat"}, False),
        ({"tenant": "acme-*"}, True),
        ({"tenant": "acme-?"}, False),
        ({"tenant": "acme-[a-e]ev"}, True),
        ({"tenant": ["zeta", "acme-d*"]}, True),
        ({"tenant": {"not": "acme-*"}}, False),
        ({"tenant": {"not": ["zeta", "eta"]}}, True),
        ({"task": ["chat", "embedding"]}, True),
        ({"usage": "audit", "task": "embedding"}, False),
        ({"label": "internal"}, True),
        ({"label": ["public", "restricted"]}, False),
        ({"label": {"gte": "internal"}}, True),
        ({"label": {"gte": "confidential"}}, False),
        ({"label": {"lte": "public"}}, False),
        ({"label": {"gte": "public", "lte": "internal"}}, True),
        ({"tokens_in": {"gte": 100, "lt": 101}}, True),
        ({"tokens_in": {"gt": 100}}, False),
        ({"tokens_in": 100}, True),
        ({"deadline_ms": {"lte": 50}}, True),
        ({"body_bytes": {"lt": 10}}, False),
        ({"stream": True}, True),
        ({"stream": False}, False),
        ({"any": [{"task": "embedding"}, {"usage": "audit"}]}, True),
        ({"any": [{"task": "embedding"}, {"usage": "sales"}]}, False),
        ({"all": [{"task": "chat"}, {"not": {"usage": "sales"}}]}, True),
        ({"not": {"any": [{"task": "chat"}]}}, False),
    ],
)
def test_match(match, matches):
    compiled = compile_match(Match.model_validate(match), RANKS)
    assert compiled(BASE) is matches


@pytest.mark.parametrize("bounds", [{"lte": 1e9}, {"gte": 0}, {"gt": -1, "lt": 1e9}])
def test_a_deadline_that_is_not_given_is_inside_no_bounds(bounds):
    compiled = compile_match(Match.model_validate({"deadline_ms": bounds}), RANKS)
    assert not compiled(replace(BASE, deadline_ms=None))


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("eu-*", "eu-west-1", True),
        ("eu-*", "us-east-1", False),
        (["jp-east", "eu-*"], "jp-east", True),
        (True, True, True),
        (True, 1, False),
        (1.0, True, False),
        (0.5, 0.5, True),
        (AttributeTest(gte=0.5), 0.5, True),
        (AttributeTest(gte=0.5, lt=0.6), 0.6, False),
        (AttributeTest(gte=0.5), "high", False),
        (AttributeTest(gte=0), True, False),
        (AttributeTest(not_="cloud"), "edge", True),
        (AttributeTest(not_=["cloud", "edge"]), "edge", False),
        (AttributeTest(not_="cloud"), None, False),
        (AttributeTest(lte=5), None, False),
    ],
)
def test_require(condition, value, holds):
    assert attribute_test(condition)(value) is holds
