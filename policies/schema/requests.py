"""Requests as people write them in files: the facts a decision is made from, or what a client would send."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from policies.schema.base import Count, Model, Positive


class RequestFacts(Model):
    """The facts that a decision is made from, without a payload."""

    id: str = Field(default="explain", description="decides ties and shares", examples=["r-1"])
    model: str = Field(description="the model name the client asks for", examples=["chat"])
    task: str | None = Field(default=None, description="absent: the model's own, as the fleet says", examples=["chat"])
    protocol: Literal["openai", "oip"] | None = Field(
        default=None, description="absent: one that serves the model", examples=["openai"]
    )
    tenant: str = Field(
        default="anonymous",
        description="who asks; where there is a Tenants document, one of its tenants",
        examples=["acme-dev"],
    )
    route: str | None = Field(
        default=None, description="the path called; absent: the usual one of the task", examples=["/v1/embeddings"]
    )
    label: str | None = Field(
        default=None, description="absent: the policy's default and floors", examples=["confidential"]
    )
    masked_label: str | None = Field(
        default=None,
        description="the label it would have once pseudonymised; absent: it cannot be",
        examples=["internal"],
    )
    entities: list[str] = Field(default=[], description="types of entities found in it", examples=[["EMAIL_ADDRESS"]])
    usage: str = Field(default="", description="what for", examples=["commercial"])
    tokens_in: Count = Field(default=0, description="input tokens", examples=[200])
    tokens_out: Count = Field(default=256, description="most tokens of the answer", examples=[100])
    body_bytes: Count = Field(default=0, description="size of the body", examples=[4096])
    deadline_ms: Positive | None = Field(default=None, description="time the caller gives", examples=[100])
    stream: bool = Field(default=False, description="whether the answer is to be streamed", examples=[True])
    no_fallback: bool = Field(default=False, description="one attempt only", examples=[True])
    session: str = Field(default="", description="the caller's x-session-id", examples=["s-1"])
    caller_region: str = Field(default="", description="the caller's x-caller-region", examples=["eu-west-1"])
    headers: dict[str, str] = Field(
        default={}, description="headers that the policy allows", examples=[{"x-team": "a"}]
    )
    labels: dict[str, str] = Field(default={}, description="labels of the request", examples=[{"batch": "true"}])


class HttpRequest(Model):
    """A request as a client would send it."""

    path: str = Field(description="the path", examples=["/v1/chat/completions"])
    headers: dict[str, str] = Field(default={}, description="its headers", examples=[{"x-usage": "commercial"}])
    tenant: str = Field(
        default="anonymous", description="who sends it: stands for that tenant's key", examples=["acme-dev"]
    )
    body: dict[str, Any] = Field(
        description="its JSON body", examples=[{"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}]
    )
