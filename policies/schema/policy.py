"""The Policy document: how sensitive a request is, where it may go, where it should, and how much of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from policies.schema.base import Model, Name, NonNegative, Positive, Sentence, Share
from policies.schema.conditions import AttributeCondition, Match, TextCondition
from policies.schema.sensitivity import Sensitivity

# --- where requests may go --------------------------------------------------------------------------------------


class Constraint(Model):
    """Where matching requests may go. Every constraint that matches applies, and it can only remove backends."""

    name: Name = Field(description="its name, which no other constraint has", examples=["eu-stays-in-eu"])
    match: Match = Field(default=Match(), description="which requests", examples=[{"tenant": "acme-*"}])
    require: Annotated[dict[str, AttributeCondition], Field(min_length=1)] = Field(
        description="what the attributes of a backend must be. One that the fleet does not state never passes",
        examples=[{"region": ["eu-*"], "licence.commercial_use": True}],
    )
    notice: Sentence | None = Field(
        default=None,
        description="what the caller is told where this removed a backend",
        examples=["Data of EU customers stays in the EU."],
    )


# --- where requests should go -----------------------------------------------------------------------------------


class LatencyTerm(Model):
    """Prefer quick backends. The score is target_ms / (target_ms + estimate)."""

    weight: NonNegative = Field(description="how much it counts, relative to the other terms", examples=[0.5])
    target_ms: Positive = Field(default=500, description="the latency that scores 0.5", examples=[200])


class CostTerm(Model):
    """Prefer cheap backends. The score is target_usd / (target_usd + estimate)."""

    weight: NonNegative = Field(description="how much it counts, relative to the other terms", examples=[0.4])
    target_usd: Positive = Field(default=0.001, description="the cost of a request that scores 0.5", examples=[0.001])


class CarbonTerm(Model):
    """Prefer backends that emit little. The score is target_g / (target_g + estimate)."""

    weight: NonNegative = Field(description="how much it counts, relative to the other terms", examples=[0.1])
    target_g: Positive = Field(
        default=1,
        description="the grams of CO2 equivalent of a request that score 0.5: a usual answer's, to tell places apart",
        examples=[0.5],
    )


class PlainTerm(Model):
    """Prefer what is already a number from 0 to 1; the score is that number."""

    weight: NonNegative = Field(description="how much it counts, relative to the other terms", examples=[0.2])


class Objective(Model):
    """What to prefer. Each term scores a backend from 0 to 1, without regard to the other backends; the highest
    weighted sum is the best. At least one weight must be over 0."""

    latency: LatencyTerm | None = Field(
        default=None, description="answers soon", examples=[{"weight": 0.5, "target_ms": 200}]
    )
    cost: CostTerm | None = Field(default=None, description="costs little", examples=[{"weight": 0.4}])
    carbon: CarbonTerm | None = Field(
        default=None, description="emits little", examples=[{"weight": 0.1, "target_g": 0.5}]
    )
    quality: PlainTerm | None = Field(
        default=None, description="answers well: the model's `quality` in the fleet", examples=[{"weight": 1}]
    )
    load: PlainTerm | None = Field(
        default=None,
        description="has free places: the share of `max_in_flight` that is free",
        examples=[{"weight": 0.2}],
    )


class Slo(Model):
    """How soon requests should be answered. Backends that are expected to meet it come before those that are not."""

    latency_ms: Positive | None = Field(default=None, description="time to the whole answer", examples=[50])
    ttft_ms: Positive | None = Field(
        default=None, description="time to the first token of a streamed answer", examples=[300]
    )
    on_miss: Literal["best_effort", "reject"] = Field(
        default="best_effort",
        description="what becomes of backends that are expected to miss it: they come last, or are rejected",
        examples=["reject"],
    )


class Fallback(Model):
    """Where a request may go when its backend fails. Never above clearance, whatever the scope."""

    scope: Literal["any", "same_tier", "same_region", "none"] = Field(
        default="any", description="which of the other backends that the policy allows", examples=["same_region"]
    )
    attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=3, description="how many backends may be tried, the first one included", examples=[2]
    )
    resume: bool = Field(
        default=False,
        description="a streamed chat that breaks after it has begun is gone on with at the next backend, which gets "
        "what was said so far as the assistant's beginning. The joint may show",
        examples=[True],
    )
    retry_share: Share = Field(
        default=0.1,
        description="most further attempts at backends that have failed already, as a share of requests. Only what "
        "could not be sent, or may be sent twice, is sent again",
        examples=[0.05],
    )


class Hedge(Model):
    """A second attempt, at the next backend that the policy allows, when the first is slow to answer."""

    after_quantile: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95,
        description="when: at this quantile of the backend's latency, or of the next one's where that is sooner",
        examples=[0.95],
    )
    max_extra_load: Share = Field(
        default=0.05, description="most second attempts, as a share of requests", examples=[0.05]
    )


class Cascade(Model):
    """Ask the first backend, judge its answer, and go on to the next of higher `quality` where it is not confident
    enough. A stream is held back until it has been judged."""

    escalate_below_confidence: Share = Field(
        description="go on where the confidence is below this, or cannot be read. Of generated text it is the "
        "geometric mean of its tokens' probabilities",
        examples=[0.8],
    )
    measure: Literal["probability", "margin", "entropy"] = Field(
        default="probability",
        description="of a classifier: the probability of the best class, its distance from the second, or how far the "
        "entropy is from its highest",
        examples=["margin"],
    )
    validator: Literal["json"] | None = Field(
        default=None,
        description="what generated text must be: an answer that is not has no confidence, and one that is has 1 where "
        "its tokens' probabilities are not told",
        examples=["json"],
    )


class Strategy(Model):
    """How a request is attempted, where one backend after another is not enough."""

    hedge: Hedge | None = Field(
        default=None, description="a second attempt when the first is slow", examples=[{"after_quantile": 0.95}]
    )
    cascade: Cascade | None = Field(
        default=None,
        description="the small model first, the next where its answer is not good enough",
        examples=[{"escalate_below_confidence": 0.8}],
    )


class Split(Model):
    """Requests shared out by weight among the backends named here, as far as policy allows them. The other backends
    only serve as fallback."""

    weights: Annotated[dict[str, Positive], Field(min_length=1)] = Field(
        description="the weight of each backend, relative to the others. A single one is preferred to all others",
        examples=[{"onprem-llm": 90, "cloud-gpu": 10}],
    )
    sticky: Literal["request", "session", "tenant"] = Field(
        default="request",
        description="what stays with one backend: nothing (each request by itself), a session (its `x-session-id`), "
        "or a tenant",
        examples=["session"],
    )


class Shadow(Model):
    """Copies of some requests, sent to another backend as well; its answers are thrown away. A copy is never sent above
    clearance: it passes every filter that a request passes."""

    backend: str = Field(description="who gets the copies", examples=["onprem-llm"])
    share: Share = Field(default=1, description="the share of requests that are copied", examples=[0.05])


class Rule(Model):
    """Where matching requests should go. The first rule that matches speaks."""

    name: Name = Field(description="its name, which no other rule has", examples=["realtime-vision"])
    match: Match = Field(
        default=Match(), description="which requests", examples=[{"task": "chat", "label": "confidential"}]
    )
    objective: Objective = Field(
        default=Objective(latency=LatencyTerm(weight=0.5), cost=CostTerm(weight=0.5)),
        description="what to prefer. Absent: latency and cost, half each",
        examples=[{"latency": {"weight": 0.7, "target_ms": 20}, "cost": {"weight": 0.3}}],
    )
    slo: Slo | None = Field(default=None, description="how soon to answer", examples=[{"latency_ms": 50}])
    spill: Literal["when_full", "never"] = Field(
        default="when_full",
        description="what becomes of a backend all of whose places are taken: others that have room come before it "
        "until a quarter (at least two) of its places are free again, or requests queue for it. A split is kept",
        examples=["never"],
    )
    priority: Literal["interactive", "batch"] = Field(
        default="interactive",
        description="who is served first where requests wait for a backend. A batch takes at most half the queue",
        examples=["batch"],
    )
    transform: Literal["pseudonymise"] | None = Field(
        default=None,
        description="put placeholders for the entities that were found before sending, and put them back in the answer",
        examples=["pseudonymise"],
    )
    strategy: Strategy | None = Field(
        default=None, description="hedge or cascade", examples=[{"hedge": {"after_quantile": 0.95}}]
    )
    split: Split | None = Field(
        default=None,
        description="share requests out by weight, instead of by objective",
        examples=[{"weights": {"onprem-llm": 90, "cloud-gpu": 10}}],
    )
    shadow: Shadow | None = Field(
        default=None,
        description="copy requests to another backend",
        examples=[{"backend": "onprem-llm", "share": 0.05}],
    )
    fallback: Fallback = Field(
        default=Fallback(),
        description="where else to try when a backend fails",
        examples=[{"scope": "same_region", "attempts": 2}],
    )
    notice: Sentence | None = Field(
        default=None,
        description="what the caller is told, in `x-pointsman-notice` and in refusals",
        examples=["Confidential prompts are answered on our own machines."],
    )


# --- how much -----------------------------------------------------------------------------------------------------


OnLedgerLoss = Literal["reject", "local"]
_ON_LEDGER_LOSS: Any = Field(
    default="reject",
    description="when the ledger that router processes share does not answer: reject: each goes on until its lease is "
    "used up; local: each goes on by its own count, up to the whole cap",
    examples=["local"],
)


class Budget(Model):
    """A cap on what matching requests use in a period: money or tokens, one of the two."""

    name: Name | None = Field(
        default=None,
        description="its name, which no other budget or limit has. Absent: its place in the list",
        examples=["dev-daily"],
    )
    match: Match = Field(default=Match(), description="which requests", examples=[{"tenant": "acme-dev"}])
    backend: TextCondition | None = Field(
        default=None, description="count only what is used at these backends", examples=["cloud-*"]
    )
    each: Literal["tenant", "model", "backend"] | None = Field(
        default=None, description="a cap for each of them. Absent: one cap for all together", examples=["tenant"]
    )
    usd: Positive | None = Field(default=None, description="most money in a period", examples=[20])
    tokens: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="most tokens in a period, of input and answers together", examples=[1000000]
    )
    per: Literal["minute", "hour", "day", "month"] = Field(description="the period", examples=["day"])
    on_exhausted: Literal["reject", "warn"] = Field(
        default="reject",
        description="reject: no more of these requests in this period; warn: they go on, and the excess is counted",
        examples=["reject"],
    )
    on_ledger_loss: OnLedgerLoss = _ON_LEDGER_LOSS


class RateLimit(Model):
    """A cap on how many matching requests come in a period, or on their tokens, or both."""

    name: Name | None = Field(
        default=None,
        description="its name, which no other budget or limit has. Absent: its place in the list",
        examples=["dev-rpm"],
    )
    match: Match = Field(default=Match(), description="which requests", examples=[{"tenant": "acme-dev"}])
    each: Literal["tenant", "model"] | None = Field(
        default=None, description="a cap for each of them. Absent: one cap for all together", examples=["tenant"]
    )
    requests: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="most requests in a period", examples=[600]
    )
    tokens: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="most tokens in a period, of input and answers together", examples=[100000]
    )
    per: Literal["second", "minute", "hour"] = Field(default="minute", description="the period", examples=["minute"])
    on_ledger_loss: OnLedgerLoss = _ON_LEDGER_LOSS


class Policy(Model):
    """Which request goes where. Constraints say where it may go, rules say where it should."""

    apiVersion: Literal["pointsman/v1"] = Field(description="the version of the language", examples=["pointsman/v1"])
    kind: Literal["Policy"] = Field(description="the kind of this document", examples=["Policy"])
    sensitivity: Sensitivity = Field(
        default=Sensitivity(), description="how sensitive requests are", examples=[{"default": "internal"}]
    )
    headers: list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]] = Field(
        default=[], description="the request headers that a `match` may ask for, in lower case", examples=[["x-team"]]
    )
    constraints: list[Constraint] = Field(
        default=[],
        description="where requests may go. All that match apply",
        examples=[[{"name": "eu", "match": {"tenant": "acme-*"}, "require": {"region": "eu-*"}}]],
    )
    rules: list[Rule] = Field(
        default=[],
        description="where requests should go. The first that matches speaks",
        examples=[[{"name": "everything", "objective": {"latency": {"weight": 1}}}]],
    )
    budgets: list[Budget] = Field(
        default=[],
        description="caps on money or tokens",
        examples=[[{"match": {"tenant": "acme-dev"}, "usd": 20, "per": "day"}]],
    )
    limits: list[RateLimit] = Field(
        default=[],
        description="caps on how many requests come",
        examples=[[{"each": "tenant", "requests": 600, "per": "minute"}]],
    )
