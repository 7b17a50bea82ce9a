"""What match and require mean."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from conftest import request
from msgspec.structs import replace

from policies.calendar import moment
from policies.match import MatchCompiler, attribute_test
from policies.schema import AttributeTest, Match

RANKS = {"public": 0, "internal": 1, "confidential": 2, "restricted": 3}
BASE = replace(
    request(tenant="acme-dev", usage="audit"),
    label=1,
    tokens_in=100,
    body_bytes=10,
    deadline_ms=50.0,
    stream=True,
    route="/v1/chat/completions",
    caller_region="eu-west-1",
    entities=frozenset({"EMAIL_ADDRESS", "PHONE_NUMBER"}),
    headers={"x-team": "vision"},
    labels={"batch": "true"},
)
NOON = moment("2026-04-03T12:00:00Z")  # a Friday


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
        ({"label": {"not": "internal"}}, False),
        ({"label": {"not": ["public", "restricted"]}}, True),
        ({"route": "/v1/chat/*"}, True),
        ({"route": "/v2/*"}, False),
        ({"caller_region": ["jp-*", "eu-*"]}, True),
        ({"caller_region": {"not": "eu-*"}}, False),
        ({"entities": {"any": ["EMAIL", "US_SSN"]}}, True),
        ({"entities": {"any": ["US_SSN"]}}, False),
        ({"entities": {"all": ["EMAIL", "PHONE"]}}, True),
        ({"entities": {"all": ["EMAIL", "US_SSN"]}}, False),
        ({"entities": {"only": ["EMAIL", "PHONE", "PERSON"]}}, True),
        ({"entities": {"only": ["EMAIL"]}}, False),
        ({"entities": {"none": ["US_SSN"]}}, True),
        ({"entities": {"none": ["US_SSN", "PHONE"]}}, False),
        ({"entities": {"only": ["EMAIL", "PHONE"], "none": ["PHONE"]}}, False),
        ({"headers": {"x-team": ["speech", "vis*"]}}, True),
        ({"headers": {"x-team": "vision", "x-app": "a"}}, False),
        ({"headers": {"x-app": {"not": "a"}}}, True),
        ({"labels": {"batch": "true"}}, True),
        ({"labels": {"batch": {"not": "true"}}}, False),
        ({"time": {"days": ["mon-fri"]}}, True),
        ({"time": {"days": ["sat", "sun"]}}, False),
        ({"time": {"between": "09:00-12:01"}}, True),
        ({"time": {"between": "09:00-12:00"}}, False),
        ({"time": {"between": "20:00-22:00", "zone": "Asia/Tokyo"}}, True),
        ({"all": [{"time": {"between": "12:00-24:00"}}, {"stream": True}, {"usage": "audit"}]}, True),
    ],
)
def test_match(match, matches):
    compiled = MatchCompiler(RANKS, ZoneInfo).match(Match.model_validate(match))
    assert compiled(BASE, NOON) is matches


@pytest.mark.parametrize(
    ("when", "open_"),
    [
        ("2026-04-03T22:00:00+09:00", True),  # Friday, when it begins
        ("2026-04-04T05:59:59+09:00", True),  # Saturday morning still belongs to Friday's window
        ("2026-04-04T06:00:00+09:00", False),
        ("2026-04-04T22:30:00+09:00", False),  # Saturday's own night
        ("2026-04-03T05:00:00+09:00", False),  # Thursday's
        ("2026-04-03T13:00:00Z", True),  # the same moment as 22:00 in Tokyo
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_begins_on(when, open_):
    match = {"time": {"between": "22:00-06:00", "days": ["fri"], "zone": "Asia/Tokyo"}}
    assert MatchCompiler(RANKS, ZoneInfo).match(Match.model_validate(match))(BASE, moment(when)) is open_


def test_a_window_follows_the_wall_clock_over_summer_time():
    match = {"time": {"between": "09:00-10:00", "zone": "Europe/Berlin"}}
    compiled = MatchCompiler(RANKS, ZoneInfo).match(Match.model_validate(match))
    assert compiled(BASE, moment("2026-01-05T08:30:00Z"))
    assert not compiled(BASE, moment("2026-07-06T08:30:00Z"))
    assert compiled(BASE, moment("2026-07-06T07:30:00Z"))


def test_nothing_found_is_not_only_these():
    compiled = MatchCompiler(RANKS).match(Match.model_validate({"entities": {"only": ["EMAIL"]}}))
    assert not compiled(replace(BASE, entities=frozenset()), NOON)


@pytest.mark.parametrize("bounds", [{"lte": 1e9}, {"gte": 0}, {"gt": -1, "lt": 1e9}])
def test_a_deadline_that_is_not_given_is_inside_no_bounds(bounds):
    compiled = MatchCompiler(RANKS, ZoneInfo).match(Match.model_validate({"deadline_ms": bounds}))
    assert not compiled(replace(BASE, deadline_ms=None), NOON)


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
