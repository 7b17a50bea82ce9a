"""The PolicyTest document: requests, the state of the fleet they meet, and what must come of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from policies.schema.base import Count, Items, Model, NonNegative, Positive
from policies.schema.requests import HttpRequest, RequestFacts


class GivenBackend(Model):
    """The state of one backend; what is absent is at rest and unmeasured."""

    down: bool = Field(default=False, description="health keeps it out", examples=[True])
    in_flight: Count = Field(default=0, description="requests it is serving or queueing", examples=[64])
    latency_ms: Positive | None = Field(default=None, description="measured, of every model it serves", examples=[800])
    ttft_ms: Positive | None = Field(default=None, description="measured time to the first token", examples=[200])


class Given(Model):
    """The state of the fleet."""

    backends: dict[str, GivenBackend] = Field(
        default={}, description="by name", examples=[{"cloud-gpu": {"down": True}}]
    )
    spent: dict[str, NonNegative] = Field(
        default={},
        description="used of a budget or limit in this period, by its name; `name/key` where it has `each`",
        examples=[{"dev-daily": 20, "per-tenant/acme-dev": 3.5}],
    )


class Expect(Model):
    """What must come of the request. Only what is given is compared."""

    rule: str | None = Field(default=None, description="the rule that speaks", examples=["realtime-vision"])
    label: str | None = Field(default=None, description="the request's level", examples=["confidential"])
    backend: str | None = Field(default=None, description="who gets it", examples=["plant1-edge"])
    tier: str | None = Field(default=None, description="that backend's tier", examples=["edge"])
    order: Items[str] | None = Field(
        default=None, description="every allowed backend, best first", examples=[["plant1-edge", "onprem"]]
    )
    attempts: Items[str] | None = Field(
        default=None, description="the backends that may be tried, in order", examples=[["plant1-edge"]]
    )
    constraints: list[str] | None = Field(
        default=None, description="exactly these constraints apply", examples=[["eu-stays-in-eu"]]
    )
    rejected: dict[str, str | Items[str]] | None = Field(
        default=None,
        description="these backends are rejected by these filters, each by at least those named",
        examples=[{"cloud-gpu": "clearance"}],
    )
    refusal: str | None = Field(
        default=None, description="the request is refused with this code", examples=["policy_no_backend"]
    )
    shadow: str | None = Field(default=None, description="who gets a copy", examples=["candidate-llm"])
    transform: str | None = Field(default=None, description="what is done to the payload", examples=["pseudonymise"])
    notice: str | None = Field(
        default=None, description="a sentence the caller is told", examples=["Confidential prompts stay with us."]
    )


def _request(value: Any) -> str:
    return "§http" if isinstance(value, dict) and "path" in value else "§facts"


class Case(Model):
    name: str = Field(description="what it shows; unique in the file", examples=["confidential chat stays home"])
    now: str | None = Field(
        default=None, description="when, instead of the file's `now`", examples=["2026-04-01T23:30:00+09:00"]
    )
    given: Given = Field(
        default=Given(), description="the state of the fleet", examples=[{"backends": {"edge": {"down": True}}}]
    )
    request: Annotated[
        Annotated[RequestFacts, Tag("§facts")] | Annotated[HttpRequest, Tag("§http")], Discriminator(_request)
    ] = Field(
        description="facts, or path, headers and body as a client would send them",
        examples=[{"model": "chat", "label": "confidential"}],
    )
    expect: Expect = Field(description="what must come of it", examples=[{"backend": "onprem-llm"}])
    seed: int = Field(default=0, description="of the draws that break ties and share out", examples=[7])
    must_fail: bool = Field(
        default=False, description="the case passes only where the expectation does not hold", examples=[True]
    )


class PolicyTest(Model):
    """Tests of a policy, in a file named `*_test.yaml` beside it."""

    apiVersion: Literal["pointsman/v1"] = Field(description="version of the language", examples=["pointsman/v1"])
    kind: Literal["PolicyTest"] = Field(description="which document this is", examples=["PolicyTest"])
    configuration: Items[str] | None = Field(
        default=None,
        description="fleet and policy files, relative to this file; absent: the folder's",
        examples=[["fleet.yaml", "policy.yaml"]],
    )
    now: str = Field(
        default="2026-01-05T12:00:00Z", description="when the requests arrive", examples=["2026-04-01T09:00:00+09:00"]
    )
    env: dict[str, str] = Field(
        default={},
        description="variables that the configuration uses, instead of the environment's",
        examples=[{"CLOUD_URL": "http://127.0.0.1:1"}],
    )
    tests: Items[Case] = Field(
        description="the cases",
        examples=[[{"name": "goes home", "request": {"model": "chat"}, "expect": {"backend": "edge"}}]],
    )
