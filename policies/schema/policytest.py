"""The PolicyTest document: requests, the state of the fleet they meet, and what must come of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from policies.schema.base import Count, Items, Model, NonNegative, Positive
from policies.schema.requests import HttpRequest, RequestFacts


class GivenBackend(Model):
    """The state of one backend. Where a field is absent, the backend is up, idle and not measured."""

    down: bool = Field(default=False, description="whether health keeps it out", examples=[True])
    in_flight: Count = Field(default=0, description="how many requests it serves or has waiting", examples=[64])
    latency_ms: Positive | None = Field(
        default=None, description="measured time to the whole answer, for every model that it serves", examples=[800]
    )
    ttft_ms: Positive | None = Field(default=None, description="measured time to the first token", examples=[200])


class Given(Model):
    """The situation in which a request arrives."""

    backends: dict[str, GivenBackend] = Field(
        default={}, description="the state of backends, by name", examples=[{"cloud-gpu": {"down": True}}]
    )
    spent: dict[str, NonNegative] = Field(
        default={},
        description="what is used of a budget or limit in this period, by its name; `name/key` where it has "
        "`each`. Of a limit on requests and tokens, one number stands for both",
        examples=[{"dev-daily": 20, "per-tenant/acme-dev": 3.5}],
    )


class Expect(Model):
    """What must come of the request. Only what is written is compared."""

    rule: str | None = Field(default=None, description="the rule that speaks", examples=["realtime-vision"])
    label: str | None = Field(default=None, description="the label of the request", examples=["confidential"])
    backend: str | None = Field(default=None, description="the backend that gets it", examples=["plant1-edge"])
    tier: str | None = Field(default=None, description="that backend's tier", examples=["edge"])
    order: Items[str] | None = Field(
        default=None, description="every backend that is left, best first", examples=[["plant1-edge", "onprem"]]
    )
    attempts: Items[str] | None = Field(
        default=None, description="the backends that may be tried, in order", examples=[["plant1-edge"]]
    )
    constraints: list[str] | None = Field(
        default=None, description="the constraints that apply, no more and no fewer", examples=[["eu-stays-in-eu"]]
    )
    rejected: dict[str, str | Items[str]] | None = Field(
        default=None,
        description="backends that are rejected, each with a filter or filters that reject it",
        examples=[{"cloud-gpu": "clearance"}],
    )
    refusal: str | None = Field(
        default=None, description="the code with which it is refused", examples=["policy_no_backend"]
    )
    shadow: str | None = Field(default=None, description="the backend that gets a copy", examples=["candidate-llm"])
    transform: str | None = Field(
        default=None, description="what is done to the payload before it is sent", examples=["pseudonymise"]
    )
    notice: str | None = Field(
        default=None, description="a notice that the caller is given", examples=["Confidential prompts stay with us."]
    )


def _request(value: Any) -> str:
    return "§http" if isinstance(value, dict) and "path" in value else "§facts"


class Case(Model):
    """One request, the situation it meets, and what must come of it."""

    name: str = Field(
        description="what it shows. No other case in the file has this name", examples=["confidential chat stays home"]
    )
    now: str | None = Field(
        default=None,
        description="when the request arrives. Absent: the file's `now`",
        examples=["2026-04-01T23:30:00+09:00"],
    )
    given: Given = Field(
        default=Given(),
        description="the situation: backends and what is spent",
        examples=[{"backends": {"edge": {"down": True}}}],
    )
    request: Annotated[
        Annotated[RequestFacts, Tag("§facts")] | Annotated[HttpRequest, Tag("§http")], Discriminator(_request)
    ] = Field(
        description="the facts of the request; or its path, headers and body, as a client would send them",
        examples=[{"model": "chat", "label": "confidential"}],
    )
    expect: Expect = Field(description="what must come of it", examples=[{"backend": "onprem-llm"}])
    seed: int = Field(
        default=0, description="the seed of the draws that break ties and share requests out", examples=[7]
    )
    must_fail: bool = Field(
        default=False, description="the case passes only where the expectation does not hold", examples=[True]
    )


class PolicyTest(Model):
    """Cases for a policy, in a file named `*_test.yaml` beside it."""

    apiVersion: Literal["pointsman/v1"] = Field(description="the version of the language", examples=["pointsman/v1"])
    kind: Literal["PolicyTest"] = Field(description="the kind of this document", examples=["PolicyTest"])
    configuration: Items[str] | None = Field(
        default=None,
        description="the fleet and policy files, relative to this file. Absent: those of its folder",
        examples=[["fleet.yaml", "policy.yaml"]],
    )
    now: str = Field(
        default="2026-01-05T12:00:00Z",
        description="when the requests arrive, with the offset from UTC",
        examples=["2026-04-01T09:00:00+09:00"],
    )
    env: dict[str, str] = Field(
        default={},
        description="the variables of the configuration, instead of the environment's",
        examples=[{"CLOUD_URL": "http://127.0.0.1:1"}],
    )
    tests: Items[Case] = Field(
        description="the cases",
        examples=[[{"name": "goes home", "request": {"model": "chat"}, "expect": {"backend": "edge"}}]],
    )
