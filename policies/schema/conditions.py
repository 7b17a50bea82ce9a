"""Conditions: what `match` asks of a request and `require` of a backend."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from policies.schema.base import Items, Model, map_or_scalar, shape


class NotText(Model):
    """Everything except the given text, list or pattern. A value that is absent counts as not the text."""

    not_: str | Items[str] = Field(alias="not", description="text, a pattern, or a list of them", examples=["acme-*"])


class Range(Model):
    """Bounds; a missing value is never inside."""

    gte: float | None = Field(default=None, description="at least", examples=[100])
    gt: float | None = Field(default=None, description="over", examples=[100])
    lte: float | None = Field(default=None, description="at most", examples=[4000])
    lt: float | None = Field(default=None, description="under", examples=[4000])


class LabelRange(Model):
    """Bounds on the order of `sensitivity.levels`, or everything except some levels."""

    gte: str | None = Field(default=None, description="this level or higher", examples=["confidential"])
    lte: str | None = Field(default=None, description="this level or lower", examples=["internal"])
    not_: str | Items[str] | None = Field(
        default=None, alias="not", description="none of these levels", examples=["public"]
    )


class AttributeTest(Model):
    """A bound on a number, or everything except the given values. An attribute that is not stated never passes."""

    gte: float | None = Field(default=None, description="at least", examples=[0.8])
    gt: float | None = Field(default=None, description="over", examples=[0])
    lte: float | None = Field(default=None, description="at most", examples=[0.5])
    lt: float | None = Field(default=None, description="under", examples=[1])
    not_: str | Items[str] | None = Field(
        default=None, alias="not", description="text, a pattern, or a list of them", examples=["us-*"]
    )


Scalar = str | bool | float
TextCondition = Annotated[
    Annotated[str, Tag("§scalar")] | Annotated[Items[str], Tag("§list")] | Annotated[NotText, Tag("§map")],
    Discriminator(shape),
]
"""Exact text, a pattern (`*`, `?`, `[a-z]`), a list of either, or `{not: …}`."""
NumberCondition = Annotated[
    Annotated[float, Tag("§scalar")] | Annotated[Range, Tag("§map")],
    Discriminator(map_or_scalar),
]
LabelCondition = Annotated[
    Annotated[str, Tag("§scalar")] | Annotated[Items[str], Tag("§list")] | Annotated[LabelRange, Tag("§map")],
    Discriminator(shape),
]
AttributeCondition = Annotated[
    Annotated[Scalar, Tag("§scalar")] | Annotated[Items[Scalar], Tag("§list")] | Annotated[AttributeTest, Tag("§map")],
    Discriminator(shape),
]


class EntityCondition(Model):
    """What the detectors found in the request, by type of entity. All fields given must hold."""

    any: Items[str] | None = Field(
        default=None, description="at least one of these was found", examples=[["CREDIT_CARD"]]
    )
    all: Items[str] | None = Field(
        default=None, description="every one of these was found", examples=[["PERSON", "DATE_OF_BIRTH"]]
    )
    only: Items[str] | None = Field(
        default=None,
        description="something was found, and nothing but these",
        examples=[["EMAIL_ADDRESS", "PHONE_NUMBER"]],
    )
    none: Items[str] | None = Field(default=None, description="none of these was found", examples=[["MEDICAL_RECORD"]])


class TimeWindow(Model):
    """A time of day, days of the week, or both, on the wall clocks of `zone`."""

    between: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)$")] | None = Field(
        default=None,
        description="from the first time until just before the second; a window over midnight belongs to the day it "
        "begins on",
        examples=["22:00-06:00"],
    )
    days: Items[str] | None = Field(
        default=None, description="mon, tue, … sun, or spans such as mon-fri", examples=[["mon-fri"]]
    )
    zone: str = Field(default="UTC", description="IANA name of the time zone", examples=["Asia/Tokyo"])


class Match(Model):
    """Which requests something applies to. All fields given must hold; none given matches every request."""

    model: TextCondition | None = Field(
        default=None, description="the model name the client asked for", examples=["chat"]
    )
    task: TextCondition | None = Field(
        default=None, description="chat, completion, embedding, or a model's own task", examples=[["chat", "embedding"]]
    )
    tenant: TextCondition | None = Field(default=None, description="who asks, as the API key says", examples=["acme-*"])
    route: TextCondition | None = Field(
        default=None, description="the path of the API that was called", examples=["/v1/chat/*"]
    )
    label: LabelCondition | None = Field(
        default=None, description="the request's sensitivity level", examples=[{"gte": "confidential"}]
    )
    entities: EntityCondition | None = Field(
        default=None, description="types of entities that the detectors found", examples=[{"only": ["EMAIL_ADDRESS"]}]
    )
    usage: TextCondition | None = Field(
        default=None, description="what for: the caller's x-usage header", examples=["commercial"]
    )
    tokens_in: NumberCondition | None = Field(
        default=None, description="estimated input tokens", examples=[{"gt": 4000}]
    )
    body_bytes: NumberCondition | None = Field(
        default=None, description="size of the request body", examples=[{"lte": 1000000}]
    )
    deadline_ms: NumberCondition | None = Field(
        default=None, description="time the caller gives; absent never matches", examples=[{"lte": 100}]
    )
    stream: bool | None = Field(
        default=None, description="whether the caller asked for a streamed answer", examples=[True]
    )
    caller_region: TextCondition | None = Field(
        default=None, description="where the caller is: its x-caller-region header", examples=["eu-*"]
    )
    headers: Annotated[dict[str, TextCondition], Field(min_length=1)] | None = Field(
        default=None,
        description="request headers by name; each name must stand in the policy's `headers`",
        examples=[{"x-team": "vision"}],
    )
    labels: Annotated[dict[str, TextCondition], Field(min_length=1)] | None = Field(
        default=None,
        description="labels the caller gives its request: x-request-labels (`team=vision, batch=true`), or `metadata` "
        "in an OpenAI body",
        examples=[{"batch": "true"}],
    )
    time: TimeWindow | None = Field(
        default=None, description="when the request arrives", examples=[{"between": "22:00-06:00", "zone": "UTC"}]
    )
    any: Items[Match] | None = Field(
        default=None, description="at least one of these holds", examples=[[{"tenant": "a"}, {"usage": "test"}]]
    )
    all: Items[Match] | None = Field(
        default=None, description="every one of these holds", examples=[[{"tenant": "a"}, {"usage": "test"}]]
    )
    not_: Match | None = Field(
        default=None, alias="not", description="this does not hold", examples=[{"tenant": "acme-*"}]
    )
