"""Requests as people write them in files: the facts a decision is made from, or what a client would send."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from policies.schema.base import Count, Model, Positive


class RequestFacts(Model):
    """A request as the facts that a decision is made from, without a payload."""

    id: str = Field(
        default="explain", description="its id, from which ties are broken and shares are drawn", examples=["r-1"]
    )
    model: str = Field(description="the model that the client asks for", examples=["chat"])
    task: str | None = Field(
        default=None, description="the task. Absent: the one that the fleet gives the model", examples=["chat"]
    )
    protocol: Literal["openai", "oip"] | None = Field(
        default=None,
        description="the API that is called. Absent: one over which the model is served",
        examples=["openai"],
    )
    tenant: str = Field(default="anonymous", description="who asks", examples=["acme-dev"])
    route: str | None = Field(
        default=None,
        description="the path that is called. Absent: the usual one of the task",
        examples=["/v1/embeddings"],
    )
    label: str | None = Field(
        default=None,
        description="the label. Absent: what the policy's default and floors give it",
        examples=["confidential"],
    )
    masked_label: str | None = Field(
        default=None,
        description="the label it would have once pseudonymised. Absent: it cannot be pseudonymised",
        examples=["internal"],
    )
    entities: list[str] = Field(
        default=[], description="the types of entities that are found in it", examples=[["EMAIL_ADDRESS"]]
    )
    usage: str = Field(default="", description="what the answer is for", examples=["commercial"])
    tokens_in: Count = Field(default=0, description="tokens of the input", examples=[200])
    tokens_out: Count = Field(default=256, description="most tokens of the answer", examples=[100])
    body_bytes: Count = Field(default=0, description="size of the body", examples=[4096])
    deadline_ms: Positive | None = Field(default=None, description="time that the caller gives", examples=[100])
    stream: bool = Field(default=False, description="whether the answer is to be streamed", examples=[True])
    no_fallback: bool = Field(default=False, description="whether the caller wants one attempt only", examples=[True])
    session: str = Field(default="", description="the session, as the caller says in `x-session-id`", examples=["s-1"])
    caller_region: str = Field(
        default="", description="where the caller is, as it says in `x-caller-region`", examples=["eu-west-1"]
    )
    headers: dict[str, str] = Field(
        default={}, description="those of its headers that the policy lists", examples=[{"x-team": "a"}]
    )
    labels: dict[str, str] = Field(
        default={}, description="the labels that the caller gives it", examples=[{"batch": "true"}]
    )


class HttpRequest(Model):
    """A request as a client would send it."""

    path: str = Field(description="the path that is called", examples=["/v1/chat/completions"])
    headers: dict[str, str] = Field(default={}, description="its headers", examples=[{"x-usage": "commercial"}])
    tenant: str = Field(default="anonymous", description="whose key it carries", examples=["acme-dev"])
    body: dict[str, Any] = Field(
        description="its JSON body", examples=[{"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}]
    )
