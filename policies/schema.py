"""The YAML that people write, version `pointsman/v1`: a Fleet (the backends) and a Policy (who goes where).

These models are the single source: validation, the JSON Schema and the reference are derived from them.
They are frozen; the router and the backends read their settings from them directly. Units stand in the names:
`_ms`, `_s`, `_usd`, `_w`, `_g`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

API_VERSION = "pointsman/v1"

T = TypeVar("T")
Items = Annotated[list[T], Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


# --- conditions -----------------------------------------------------------------------------------------------


def _shape(value: Any) -> str:
    return "map" if isinstance(value, Mapping) else "list" if isinstance(value, list) else "scalar"


class NotText(Model):
    """Everything except the given text, list or pattern."""

    not_: str | Items[str] = Field(alias="not")


class Range(Model):
    """Bounds; a missing value is never inside."""

    gte: float | None = None
    gt: float | None = None
    lte: float | None = None
    lt: float | None = None


class LabelRange(Model):
    """Bounds on the order of `sensitivity.levels`."""

    gte: str | None = None
    lte: str | None = None


class AttributeTest(Model):
    """A bound on a number, or everything except the given values."""

    gte: float | None = None
    gt: float | None = None
    lte: float | None = None
    lt: float | None = None
    not_: str | Items[str] | None = Field(default=None, alias="not")


Scalar = str | bool | float
TextCondition = Annotated[
    Annotated[str, Tag("§scalar")] | Annotated[Items[str], Tag("§list")] | Annotated[NotText, Tag("§map")],
    Discriminator(lambda v: "§" + _shape(v)),
]
"""Exact text, a pattern (`*`, `?`, `[a-z]`), a list of either, or `{not: …}`."""
NumberCondition = Annotated[
    Annotated[float, Tag("§scalar")] | Annotated[Range, Tag("§map")],
    Discriminator(lambda v: "§map" if isinstance(v, Mapping) else "§scalar"),
]
LabelCondition = Annotated[
    Annotated[str, Tag("§scalar")] | Annotated[Items[str], Tag("§list")] | Annotated[LabelRange, Tag("§map")],
    Discriminator(lambda v: "§" + _shape(v)),
]
AttributeCondition = Annotated[
    Annotated[Scalar, Tag("§scalar")] | Annotated[Items[Scalar], Tag("§list")] | Annotated[AttributeTest, Tag("§map")],
    Discriminator(lambda v: "§" + _shape(v)),
]


class Match(Model):
    """Which requests something applies to. All fields given must hold; none given matches every request."""

    model: TextCondition | None = Field(default=None, description="the model name the client asked for")
    task: TextCondition | None = Field(default=None, description="chat, completion, embedding, or a model's own task")
    tenant: TextCondition | None = Field(default=None, description="who asks, as the API key says")
    usage: TextCondition | None = Field(default=None, description="what for: the caller's x-usage header")
    label: LabelCondition | None = Field(default=None, description="the request's sensitivity level")
    tokens_in: NumberCondition | None = Field(default=None, description="estimated input tokens")
    body_bytes: NumberCondition | None = Field(default=None, description="size of the request body")
    deadline_ms: NumberCondition | None = Field(default=None, description="time the caller gives; absent never matches")
    stream: bool | None = Field(default=None, description="whether the caller asked for a stream")
    any: Items[Match] | None = Field(default=None, description="at least one of these holds")
    all: Items[Match] | None = Field(default=None, description="every one of these holds")
    not_: Match | None = Field(default=None, alias="not", description="this does not hold")


# --- policy ---------------------------------------------------------------------------------------------------


class Keywords(Model):
    """Words of the organisation's own, found after Unicode normalisation and without regard to case."""

    use: Literal["keywords"]
    words: Items[Annotated[str, Field(min_length=1)]]
    label: str


class Sensitivity(Model):
    levels: Items[Name] = Field(
        default=["public", "internal", "confidential", "restricted"],
        description="sensitivity levels, lowest first",
    )
    default: str = Field(default="internal", description="the level of a request about which nothing is known")
    detectors: list[Keywords] = []


class Constraint(Model):
    """Where matching requests may go. Every constraint that matches applies; constraints only remove backends."""

    name: Name
    match: Match = Match()
    require: Annotated[dict[str, AttributeCondition], Field(min_length=1)]


class LatencyTerm(Model):
    weight: NonNegative
    target_ms: Positive = Field(default=500, description="an estimate equal to the target scores 0.5")


class CostTerm(Model):
    weight: NonNegative
    target_usd: Positive = Field(default=0.001, description="an estimate equal to the target scores 0.5")


class CarbonTerm(Model):
    weight: NonNegative
    target_g: Positive = Field(default=1, description="an estimate equal to the target scores 0.5")


class PlainTerm(Model):
    weight: NonNegative


class Objective(Model):
    """What to prefer. Weights are relative; each term scores a backend in [0, 1] without regard to the others."""

    latency: LatencyTerm | None = None
    cost: CostTerm | None = None
    carbon: CarbonTerm | None = None
    quality: PlainTerm | None = None
    load: PlainTerm | None = None


class Slo(Model):
    latency_ms: Positive
    on_miss: Literal["best_effort", "reject"] = Field(
        default="best_effort", description="what to do with backends whose estimate misses the objective"
    )


class Fallback(Model):
    """Where a request may go when its backend fails. Never above clearance, whatever the scope."""

    scope: Literal["any", "same_tier", "same_region", "none"] = "any"
    attempts: Annotated[int, Field(ge=1, le=10)] = 3


class Rule(Model):
    """Where matching requests should go. The first rule that matches speaks."""

    name: Name
    match: Match = Match()
    objective: Objective = Objective(latency=LatencyTerm(weight=0.5), cost=CostTerm(weight=0.5))
    slo: Slo | None = None
    fallback: Fallback = Fallback()


class Policy(Model):
    apiVersion: Literal["pointsman/v1"]
    kind: Literal["Policy"]
    sensitivity: Sensitivity = Sensitivity()
    constraints: list[Constraint] = []
    rules: list[Rule] = []


# --- fleet ----------------------------------------------------------------------------------------------------


class Licence(Model):
    spdx: str | None = None
    commercial_use: bool | None = None


class BackendModel(Model):
    """A model as one backend serves it. The key it stands under is the name clients use."""

    task: Annotated[
        Annotated[str, Tag("§scalar")] | Annotated[Items[str], Tag("§list")],
        Discriminator(lambda v: "§list" if isinstance(v, list) else "§scalar"),
    ]
    upstream: str | None = Field(default=None, description="the model's name at the backend, when it differs")
    artifact: str | None = Field(default=None, description="file of an in-process model, relative to this file")
    quality: Share | None = Field(default=None, description="measured quality in [0, 1], for the quality scorer")
    context_tokens: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="most tokens of input and answer together"
    )
    licence: Licence = Licence()

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task,) if isinstance(self.task, str) else tuple(self.task)


class SecretReference(Model):
    """Where a secret is to be found; never the secret. Exactly one of the two."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    file: str | None = None


class Tls(Model):
    ca_file: str | None = Field(default=None, description="trust this CA instead of the system's")
    client_cert: str | None = None
    client_key: str | None = None


class Price(Model):
    per_request: NonNegative = Field(default=0, description="USD per request")
    input_per_mtok: NonNegative = Field(default=0, description="USD per million input tokens")
    output_per_mtok: NonNegative = Field(default=0, description="USD per million output tokens")
    reserved_per_hour: NonNegative = Field(default=0, description="USD per hour whether used or not: own hardware")
    capacity_rps: Positive | None = Field(default=None, description="requests per second the reserved hardware can do")


class Energy(Model):
    active_w: NonNegative = 0
    idle_w: NonNegative = 0


class Carbon(Model):
    zone: str | None = None
    g_per_kwh: NonNegative = Field(default=0, description="grams of CO2 equivalent per kWh where it runs")


class Limits(Model):
    max_in_flight: Annotated[int, Field(ge=1)] = 64
    max_queued: Count = 256


class Latency(Model):
    prior_ms: Positive = Field(default=500, description="expected latency until there are measurements")


class Timeouts(Model):
    connect_s: Positive = 5
    first_byte_s: Positive = 60
    idle_s: Positive = 60


class ScriptStep(Model):
    """What the fake backend does to one request."""

    latency_ms: NonNegative = 0
    fail: Literal["connect", "timeout", "rubbish", "overloaded", "status_500", "status_400"] | None = None
    text: str = "This is a scripted answer."
    chunks: Annotated[int, Field(ge=1)] = Field(default=4, description="pieces a streamed answer comes in")
    chunk_delay_ms: NonNegative = 0
    break_after_chunks: Count | None = Field(default=None, description="fail after so many pieces of a stream")


class Backend(Model):
    """A named place where models can be called."""

    name: Name
    tier: Literal["edge", "onprem", "cloud"]
    region: str = Field(description="where it runs, such as jp-east")
    zone: str | None = None
    clearance: str | None = Field(
        default=None, description="highest sensitivity level it may receive; absent means the lowest"
    )
    protocol: Literal["onnx", "torch", "openai", "oip", "fake"]
    url: str | None = Field(default=None, description="base URL of an openai or oip backend, without /v1 or /v2")
    api_key: SecretReference | None = None
    tls: Tls | None = None
    models: Annotated[dict[str, BackendModel], Field(min_length=1)]
    labels: dict[str, str] = Field(default={}, description="attributes of your own, for constraints")
    price: Price = Price()
    energy: Energy = Energy()
    carbon: Carbon = Carbon()
    limits: Limits = Limits()
    latency: Latency = Latency()
    timeouts: Timeouts = Timeouts()
    script: list[ScriptStep] | None = Field(default=None, description="what a fake backend does, step by step")


class Fleet(Model):
    apiVersion: Literal["pointsman/v1"]
    kind: Literal["Fleet"]
    backends: Items[Backend]


# --- requests -----------------------------------------------------------------------------------------------------


class RequestFacts(Model):
    """A request as `explain` takes it: the facts a decision is made from, without a payload."""

    id: str = "explain"
    model: str
    task: str | None = Field(default=None, description="absent: the model's own, as the fleet says")
    protocol: Literal["openai", "oip"] | None = Field(default=None, description="absent: one that serves the model")
    tenant: str = "anonymous"
    label: str | None = Field(default=None, description="absent: the policy's default")
    usage: str = ""
    tokens_in: Count = 0
    tokens_out: Count = 256
    body_bytes: Count = 0
    deadline_ms: Positive | None = None
    stream: bool = False
    no_fallback: bool = False


class HttpRequest(Model):
    """A request as a client would send it."""

    path: str
    headers: dict[str, str] = {}
    body: dict[str, Any]


DOCUMENTS: dict[str, type[Model]] = {"Fleet": Fleet, "Policy": Policy}
"""Every kind of document, by the value of its `kind`."""
