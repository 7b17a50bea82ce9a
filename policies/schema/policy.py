"""The Policy document: how sensitive a request is, where it may go, where it should, and how much of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from policies.schema.base import Items, Model, Name, NonNegative, Positive, Sentence, Share
from policies.schema.conditions import AttributeCondition, Match, TextCondition

# --- sensitivity ----------------------------------------------------------------------------------------------


class Keywords(Model):
    """Words of the organisation's own, found after Unicode normalisation and without regard to case."""

    use: Literal["keywords"] = Field(description="which detector", examples=["keywords"])
    words: Items[Annotated[str, Field(min_length=1)]] = Field(
        description="words and phrases; a long list may stand in a file of its own: `{include: words.txt}`",
        examples=[["社外秘", "CONFIDENTIAL"]],
    )
    label: str = Field(description="level that a finding raises the request to", examples=["confidential"])


class Pii(Model):
    """Personal data: e-mail addresses, phone and card numbers, identity numbers and the like, by pattern and check
    digit. Names of people are not found by patterns; see the reference of detectors. Plain web addresses are found
    only where `entities` names URL: a public address is no personal data."""

    use: Literal["pii"] = Field(description="which detector", examples=["pii"])
    entities: Items[str] | None = Field(
        default=None,
        description="only these types; absent: all that patterns find, but URL",
        examples=[["EMAIL_ADDRESS", "CREDIT_CARD"]],
    )
    regions: Items[str] = Field(
        default=["JP", "US", "GB", "DE"],
        description="countries (ISO 3166) whose national phone numbers count; international ones always do",
        examples=[["JP", "FR", "IN"]],
    )
    label: str = Field(description="level that a finding raises the request to", examples=["confidential"])


class Secrets(Model):
    """Credentials: cloud keys, private keys, tokens, passwords in URLs."""

    use: Literal["secrets"] = Field(description="which detector", examples=["secrets"])
    label: str = Field(description="level that a finding raises the request to", examples=["restricted"])


class Patterns(Model):
    """Patterns of the organisation's own, such as numbers of parts or customers; found after Unicode normalisation."""

    use: Literal["patterns"] = Field(description="which detector", examples=["patterns"])
    patterns: Annotated[dict[str, Annotated[str, Field(min_length=1, max_length=2000)]], Field(min_length=1)] = Field(
        description="type of entity, in capitals: a regular expression (RE2 syntax); a finding spans at most 512 bytes",
        examples=[{"PART_NUMBER": "\\bPN-[0-9]{6}\\b"}],
    )
    label: str = Field(description="level that a finding raises the request to", examples=["confidential"])


def _detector(value: Any) -> str:
    use = value.get("use") if isinstance(value, dict) else getattr(value, "use", None)
    return f"§{use}"


DetectorSettings = Annotated[
    Annotated[Keywords, Tag("§keywords")]
    | Annotated[Pii, Tag("§pii")]
    | Annotated[Secrets, Tag("§secrets")]
    | Annotated[Patterns, Tag("§patterns")],
    Discriminator(_detector),
]


class Floor(Model):
    """A level that matching requests have at least, whatever the detectors find."""

    match: Match = Field(
        default=Match(),
        description="which requests; it cannot ask for label or entities",
        examples=[{"route": "/v2/*"}],
    )
    label: str = Field(description="the least level", examples=["restricted"])


class Sensitivity(Model):
    """Levels, and what raises a request to one. A request's label is the highest of all that is known of it."""

    levels: Items[Name] = Field(
        default=["public", "internal", "confidential", "restricted"],
        description="sensitivity levels, lowest first",
        examples=[["open", "secret"]],
    )
    default: str = Field(
        default="internal", description="the level of a request about which nothing is known", examples=["internal"]
    )
    detectors: list[DetectorSettings] = Field(
        default=[],
        description="what looks into requests",
        examples=[[{"use": "pii", "label": "confidential"}]],
    )
    scan_bytes: Annotated[int, Field(gt=0)] = Field(
        default=8 * 1024 * 1024,
        description="most text of one request that the detectors look into; a request with more has the top level",
        examples=[1048576],
    )
    floors: list[Floor] = Field(
        default=[],
        description="levels by tenant, route or other facts",
        examples=[[{"match": {"tenant": "hospital-*"}, "label": "confidential"}]],
    )


# --- where requests may go --------------------------------------------------------------------------------------


class Constraint(Model):
    """Where matching requests may go. Every constraint that matches applies; constraints only remove backends."""

    name: Name = Field(description="unique among constraints", examples=["eu-stays-in-eu"])
    match: Match = Field(default=Match(), description="which requests", examples=[{"tenant": "acme-*"}])
    require: Annotated[dict[str, AttributeCondition], Field(min_length=1)] = Field(
        description="attributes a backend must have, by dotted name; one that is not stated never passes",
        examples=[{"region": ["eu-*"], "licence.commercial_use": True}],
    )
    notice: Sentence | None = Field(
        default=None,
        description="a sentence for the caller where this removed a backend",
        examples=["Data of EU customers stays in the EU."],
    )


# --- where requests should go -----------------------------------------------------------------------------------


class LatencyTerm(Model):
    weight: NonNegative = Field(description="relative to the other terms", examples=[0.5])
    target_ms: Positive = Field(default=500, description="an estimate equal to it scores 0.5", examples=[200])


class CostTerm(Model):
    weight: NonNegative = Field(description="relative to the other terms", examples=[0.4])
    target_usd: Positive = Field(default=0.001, description="an estimate equal to it scores 0.5", examples=[0.001])


class CarbonTerm(Model):
    weight: NonNegative = Field(description="relative to the other terms", examples=[0.1])
    target_g: Positive = Field(default=1, description="an estimate equal to it scores 0.5", examples=[0.5])


class PlainTerm(Model):
    weight: NonNegative = Field(description="relative to the other terms", examples=[0.2])


class Objective(Model):
    """What to prefer. Weights are relative; each term scores a backend in [0, 1] without regard to the others."""

    latency: LatencyTerm | None = Field(
        default=None, description="target_ms / (target_ms + estimate)", examples=[{"weight": 0.5, "target_ms": 200}]
    )
    cost: CostTerm | None = Field(
        default=None, description="target_usd / (target_usd + estimate)", examples=[{"weight": 0.4}]
    )
    carbon: CarbonTerm | None = Field(
        default=None, description="target_g / (target_g + estimate)", examples=[{"weight": 0.1, "target_g": 0.5}]
    )
    quality: PlainTerm | None = Field(
        default=None, description="the model's quality, as the fleet states it", examples=[{"weight": 1}]
    )
    load: PlainTerm | None = Field(
        default=None, description="the share of the backend's concurrency that is free", examples=[{"weight": 0.2}]
    )


class Slo(Model):
    """A latency objective. Backends expected to meet it rank before those that are not."""

    latency_ms: Positive | None = Field(default=None, description="time to the whole answer", examples=[50])
    ttft_ms: Positive | None = Field(
        default=None, description="time to the first token of a streamed answer", examples=[300]
    )
    on_miss: Literal["best_effort", "reject"] = Field(
        default="best_effort",
        description="what to do with backends whose estimate misses the objective",
        examples=["reject"],
    )


class Fallback(Model):
    """Where a request may go when its backend fails. Never above clearance, whatever the scope."""

    scope: Literal["any", "same_tier", "same_region", "none"] = Field(
        default="any", description="which of the other allowed backends", examples=["same_region"]
    )
    attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=3, description="most backends to try, the first included", examples=[2]
    )


class Hedge(Model):
    """A second attempt, at the next backend policy allows, when the first is slow to answer."""

    after_quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95, description="how slow: this quantile of the backend's latency", examples=[0.95]
    )
    max_extra_load: Share = Field(
        default=0.05, description="most extra attempts, as a share of requests", examples=[0.05]
    )


class Cascade(Model):
    """Ask the first backend, judge its answer, and go on to the next where it is not confident enough."""

    escalate_below_confidence: Share = Field(description="confidence below which to go on", examples=[0.8])


class Strategy(Model):
    hedge: Hedge | None = Field(default=None, description="a second attempt when slow", examples=[{}])
    cascade: Cascade | None = Field(
        default=None, description="small model first", examples=[{"escalate_below_confidence": 0.8}]
    )


class Split(Model):
    """Traffic shared out by weight among the allowed backends named here; the others only serve as fallback."""

    weights: Annotated[dict[str, Positive], Field(min_length=1)] = Field(
        description="backend: weight. Weights are relative", examples=[{"onprem-llm": 90, "cloud-gpu": 10}]
    )
    sticky: Literal["request", "session", "tenant"] = Field(
        default="request",
        description="what keeps going to the same backend; a request without x-session-id counts as its own session",
        examples=["session"],
    )


class Shadow(Model):
    """A copy of a share of the requests, sent to another backend too; its answer is discarded. Never above
    clearance: the copy passes every filter that the request passes."""

    backend: str = Field(description="who gets the copies", examples=["candidate-llm"])
    share: Share = Field(default=1, description="share of the requests that are copied", examples=[0.05])


class Rule(Model):
    """Where matching requests should go. The first rule that matches speaks."""

    name: Name = Field(description="unique among rules", examples=["realtime-vision"])
    match: Match = Field(
        default=Match(), description="which requests", examples=[{"task": "chat", "label": "confidential"}]
    )
    objective: Objective = Field(
        default=Objective(latency=LatencyTerm(weight=0.5), cost=CostTerm(weight=0.5)),
        description="what to prefer",
        examples=[{"latency": {"weight": 0.7, "target_ms": 20}, "cost": {"weight": 0.3}}],
    )
    slo: Slo | None = Field(default=None, description="a latency objective", examples=[{"latency_ms": 50}])
    transform: Literal["pseudonymise"] | None = Field(
        default=None,
        description="replace the entities found by placeholders before sending, restore them in the answer",
        examples=["pseudonymise"],
    )
    strategy: Strategy | None = Field(
        default=None, description="how to attempt", examples=[{"hedge": {"after_quantile": 0.95}}]
    )
    split: Split | None = Field(
        default=None, description="share out by weight", examples=[{"weights": {"a": 90, "b": 10}}]
    )
    shadow: Shadow | None = Field(
        default=None, description="copy to another backend", examples=[{"backend": "candidate", "share": 0.05}]
    )
    fallback: Fallback = Field(
        default=Fallback(), description="where else to try", examples=[{"scope": "same_region", "attempts": 2}]
    )
    notice: Sentence | None = Field(
        default=None,
        description="a sentence for the caller, in the x-pointsman-notice header and in refusals",
        examples=["Confidential prompts are answered on our own machines."],
    )


# --- how much -----------------------------------------------------------------------------------------------------


class Budget(Model):
    """A cap on what matching requests spend in a period. Periods begin on the UTC clock and calendar."""

    name: Name | None = Field(default=None, description="absent: its place in the list", examples=["dev-daily"])
    match: Match = Field(default=Match(), description="which requests", examples=[{"tenant": "acme-dev"}])
    backend: TextCondition | None = Field(
        default=None, description="only what is spent at these backends", examples=["cloud-*"]
    )
    each: Literal["tenant", "model", "backend"] | None = Field(
        default=None, description="a cap for each one, rather than one for all together", examples=["tenant"]
    )
    usd: Positive | None = Field(default=None, description="most money; this or `tokens`", examples=[20])
    tokens: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="most tokens, in and out; this or `usd`", examples=[1000000]
    )
    per: Literal["minute", "hour", "day", "month"] = Field(description="the period", examples=["day"])
    on_exhausted: Literal["reject", "warn"] = Field(
        default="reject",
        description="reject: the backends it covers take no more of these requests in this period; warn: they do, "
        "and the excess is counted",
        examples=["reject"],
    )


class RateLimit(Model):
    """A cap on how fast matching requests come."""

    name: Name | None = Field(default=None, description="absent: its place in the list", examples=["dev-rpm"])
    match: Match = Field(default=Match(), description="which requests", examples=[{"tenant": "acme-dev"}])
    each: Literal["tenant", "model"] | None = Field(
        default=None, description="a cap for each one, rather than one for all together", examples=["tenant"]
    )
    requests: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="most requests in a period", examples=[600]
    )
    tokens: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="most tokens in a period, in and out", examples=[100000]
    )
    per: Literal["second", "minute", "hour"] = Field(default="minute", description="the period", examples=["minute"])


class Policy(Model):
    """Who goes where. Constraints say where a request may go; rules say where it should."""

    apiVersion: Literal["pointsman/v1"] = Field(description="version of the language", examples=["pointsman/v1"])
    kind: Literal["Policy"] = Field(description="which document this is", examples=["Policy"])
    sensitivity: Sensitivity = Field(
        default=Sensitivity(), description="how sensitive requests are", examples=[{"default": "internal"}]
    )
    headers: list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]] = Field(
        default=[], description="request headers that `match` may ask for, in lower case", examples=[["x-team"]]
    )
    constraints: list[Constraint] = Field(
        default=[],
        description="where requests may go; all that match apply",
        examples=[[{"name": "eu", "match": {"tenant": "acme-*"}, "require": {"region": "eu-*"}}]],
    )
    rules: list[Rule] = Field(
        default=[],
        description="where requests should go; the first that matches speaks",
        examples=[[{"name": "everything", "objective": {"latency": {"weight": 1}}}]],
    )
    budgets: list[Budget] = Field(
        default=[],
        description="caps on spending",
        examples=[[{"match": {"tenant": "acme-dev"}, "usd": 20, "per": "day"}]],
    )
    limits: list[RateLimit] = Field(
        default=[],
        description="caps on the rate of requests",
        examples=[[{"each": "tenant", "requests": 600, "per": "minute"}]],
    )
