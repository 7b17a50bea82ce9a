"""Conditions: what `match` asks of a request and `require` of a backend."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from policies.schema.base import Items, Model, map_or_scalar, shape


class NotText(Model):
    """Everything but the given text, pattern or list. A value that is absent passes."""

    not_: str | Items[str] = Field(
        alias="not", description="what must not fit: text, a pattern, or a list of them", examples=["acme-*"]
    )


class Range(Model):
    """Bounds of a number. A number that is absent is never inside."""

    gte: float | None = Field(default=None, description="this or over", examples=[100])
    gt: float | None = Field(default=None, description="over this", examples=[100])
    lte: float | None = Field(default=None, description="this or under", examples=[4000])
    lt: float | None = Field(default=None, description="under this", examples=[4000])


class LabelRange(Model):
    """Bounds in the order of `sensitivity.levels`, or every level but some."""

    gte: str | None = Field(default=None, description="this level or higher", examples=["confidential"])
    lte: str | None = Field(default=None, description="this level or lower", examples=["internal"])
    not_: str | Items[str] | None = Field(
        default=None, alias="not", description="none of these levels", examples=["public"]
    )


class AttributeTest(Model):
    """Bounds of a number, or everything but the given text. An attribute that the fleet does not state never passes."""

    gte: float | None = Field(default=None, description="this or over", examples=[0.8])
    gt: float | None = Field(default=None, description="over this", examples=[0])
    lte: float | None = Field(default=None, description="this or under", examples=[0.5])
    lt: float | None = Field(default=None, description="under this", examples=[1])
    not_: str | Items[str] | None = Field(
        default=None,
        alias="not",
        description="what must not fit: text, a pattern, or a list of them",
        examples=["us-*"],
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
    """What the detectors found in the request, by type of entity. All fields that are written must hold."""

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

    between: (
        Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")] | None
    ) = Field(
        default=None,
        description="from the first time until just before the second. A window over midnight belongs to the day on "
        "which it begins",
        examples=["22:00-06:00"],
    )
    days: Items[str] | None = Field(
        default=None,
        description="days (mon, tue, wed, thu, fri, sat, sun) and spans of them (mon-fri)",
        examples=[["mon-fri", "sun"]],
    )
    zone: str = Field(default="UTC", description="the time zone, by its IANA name", examples=["Asia/Tokyo"])


class Match(Model):
    """Which requests are meant. All fields that are written must hold; where none is written, every request matches."""

    model: TextCondition | None = Field(
        default=None, description="the model that the client asks for", examples=["chat"]
    )
    task: TextCondition | None = Field(
        default=None,
        description="chat, completion or embedding, or another task that the fleet gives its models",
        examples=[["chat", "embedding"]],
    )
    tenant: TextCondition | None = Field(
        default=None, description="who asks, as the API key tells", examples=["acme-*"]
    )
    route: TextCondition | None = Field(default=None, description="the path that was called", examples=["/v1/chat/*"])
    label: LabelCondition | None = Field(
        default=None, description="its sensitivity level", examples=[{"gte": "confidential"}]
    )
    entities: EntityCondition | None = Field(
        default=None, description="what the detectors found in it", examples=[{"only": ["EMAIL_ADDRESS"]}]
    )
    usage: TextCondition | None = Field(
        default=None, description="what the answer is for, as the caller says in `x-usage`", examples=["commercial"]
    )
    tokens_in: NumberCondition | None = Field(
        default=None, description="tokens of the input, as estimated", examples=[{"gt": 4000}]
    )
    body_bytes: NumberCondition | None = Field(
        default=None, description="size of the request's body", examples=[{"lte": 1000000}]
    )
    deadline_ms: NumberCondition | None = Field(
        default=None,
        description="time that the caller gives. A request without a deadline never matches",
        examples=[{"lte": 100}],
    )
    stream: bool | None = Field(default=None, description="whether the answer is to be streamed", examples=[True])
    caller_region: TextCondition | None = Field(
        default=None, description="where the caller is, as it says in `x-caller-region`", examples=["eu-*"]
    )
    headers: Annotated[dict[str, TextCondition], Field(min_length=1)] | None = Field(
        default=None,
        description="headers of the request, by name. The policy's `headers` must list each of them",
        examples=[{"x-team": "vision"}],
    )
    labels: Annotated[dict[str, TextCondition], Field(min_length=1)] | None = Field(
        default=None,
        description="labels that the caller gives the request: in `x-request-labels` (`team=vision, batch=true`), or "
        "in `metadata` of an OpenAI body",
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
