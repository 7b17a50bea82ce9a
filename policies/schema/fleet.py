"""The Fleet document: the backends, what they serve, and what they cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from policies.schema.base import Count, Items, Model, Name, NonNegative, Positive, Share


class Licence(Model):
    spdx: str | None = Field(default=None, description="SPDX identifier", examples=["Apache-2.0"])
    commercial_use: bool | None = Field(default=None, description="whether it permits commercial use", examples=[True])


def _text_or_list(value: Any) -> str:
    return "§list" if isinstance(value, list) else "§scalar"


class BackendModel(Model):
    """A model as one backend serves it. The key it stands under is the name clients use."""

    task: Annotated[
        Annotated[str, Tag("§scalar")] | Annotated[Items[str], Tag("§list")], Discriminator(_text_or_list)
    ] = Field(description="what it does; one or several", examples=["chat", ["chat", "completion"]])
    upstream: str | None = Field(
        default=None, description="the model's name at the backend, when it differs", examples=["llama-3.1-8b"]
    )
    artifact: str | None = Field(
        default=None, description="file of an in-process model, relative to this file", examples=["models/defect.onnx"]
    )
    quality: Share | None = Field(
        default=None, description="measured quality in [0, 1], for the quality scorer", examples=[0.93]
    )
    context_tokens: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="most tokens of input and answer together", examples=[8192]
    )
    licence: Licence = Field(
        default=Licence(), description="of the model's weights", examples=[{"spdx": "MIT", "commercial_use": True}]
    )

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task,) if isinstance(self.task, str) else tuple(self.task)


class SecretReference(Model):
    """Where a secret is to be found; never the secret. Exactly one of the two."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        default=None, description="an environment variable", examples=["CLOUD_API_KEY"]
    )
    file: str | None = Field(default=None, description="a file, relative to this file", examples=["/run/secrets/key"])


class Tls(Model):
    ca_file: str | None = Field(
        default=None, description="trust this CA instead of the system's", examples=["tls/ca.pem"]
    )
    client_cert: str | None = Field(
        default=None, description="the router's own certificate", examples=["tls/client.pem"]
    )
    client_key: str | None = Field(default=None, description="its private key", examples=["tls/client.key"])


class Price(Model):
    """What a request costs. Own hardware is not free: give its price by the hour and what it can do."""

    per_request: NonNegative = Field(default=0, description="USD per request", examples=[0.0005])
    input_per_mtok: NonNegative = Field(default=0, description="USD per million input tokens", examples=[0.15])
    output_per_mtok: NonNegative = Field(default=0, description="USD per million output tokens", examples=[0.6])
    reserved_per_hour: NonNegative = Field(
        default=0, description="USD per hour whether used or not: own hardware", examples=[1.1]
    )
    capacity_rps: Positive | None = Field(
        default=None, description="requests per second the reserved hardware can do", examples=[20]
    )


class Energy(Model):
    active_w: NonNegative = Field(default=0, description="watts while it computes", examples=[300])
    idle_w: NonNegative = Field(default=0, description="watts while it waits", examples=[60])


class Carbon(Model):
    zone: str | None = Field(default=None, description="of the power grid", examples=["JP"])
    g_per_kwh: NonNegative = Field(
        default=0, description="grams of CO2 equivalent per kWh where it runs", examples=[485]
    )


class Retention(Model):
    """What the operator of a backend does with the data it is sent, as the contract says."""

    days: NonNegative | None = Field(default=None, description="how long it keeps prompts and answers", examples=[0])
    training: bool | None = Field(default=None, description="whether it trains models on them", examples=[False])


class Limits(Model):
    max_in_flight: Annotated[int, Field(ge=1)] = Field(default=64, description="most requests at once", examples=[8])
    max_queued: Count = Field(default=256, description="most requests waiting for a place", examples=[64])


class Latency(Model):
    """Expected latencies, until there are measurements."""

    prior_ms: Positive = Field(default=500, description="to the whole answer", examples=[45])
    prior_ttft_ms: Positive | None = Field(
        default=None, description="to the first token of a stream; absent: as long as the whole answer", examples=[120]
    )


class Timeouts(Model):
    connect_s: Positive = Field(default=5, description="to connect", examples=[2])
    first_byte_s: Positive = Field(default=60, description="until the answer begins", examples=[30])
    idle_s: Positive = Field(default=60, description="between two pieces of an answer", examples=[30])


class ScriptStep(Model):
    """What the fake backend does to one request."""

    latency_ms: NonNegative = Field(default=0, description="wait so long before answering", examples=[20])
    fail: Literal["connect", "timeout", "rubbish", "overloaded", "status_500", "status_400"] | None = Field(
        default=None, description="fail in this way", examples=["status_500"]
    )
    text: str = Field(default="This is a scripted answer.", description="the answer", examples=["Hello!"])
    chunks: Annotated[int, Field(ge=1)] = Field(
        default=4, description="pieces a streamed answer comes in", examples=[4]
    )
    chunk_delay_ms: NonNegative = Field(default=0, description="wait between pieces", examples=[5])
    break_after_chunks: Count | None = Field(
        default=None, description="fail after so many pieces of a stream", examples=[2]
    )


class Backend(Model):
    """A named place where models can be called."""

    name: Name = Field(description="unique in the fleet", examples=["plant1-edge"])
    tier: Literal["edge", "onprem", "cloud"] = Field(description="whose machine, and how near", examples=["edge"])
    region: str = Field(description="where it runs", examples=["jp-east"])
    zone: str | None = Field(default=None, description="where in the region", examples=["jp-east-1a"])
    clearance: str | None = Field(
        default=None,
        description="highest sensitivity level it may receive; absent means the lowest",
        examples=["confidential"],
    )
    protocol: Literal["onnx", "torch", "openai", "oip", "fake"] = Field(
        description="how it is called: in the router's process (onnx, torch), over HTTP (openai, oip), or scripted "
        "for tests (fake)",
        examples=["openai"],
    )
    url: str | None = Field(
        default=None,
        description="base URL of an openai or oip backend, without /v1 or /v2",
        examples=["http://llm.internal:8000", "${CLOUD_URL}"],
    )
    api_key: SecretReference | None = Field(
        default=None, description="sent as a bearer token", examples=[{"env": "CLOUD_API_KEY"}]
    )
    tls: Tls | None = Field(default=None, description="for https", examples=[{"ca_file": "tls/ca.pem"}])
    models: Annotated[dict[str, BackendModel], Field(min_length=1)] = Field(
        description="what it serves, by the name clients use", examples=[{"chat": {"task": "chat", "quality": 0.8}}]
    )
    labels: dict[str, str] = Field(
        default={}, description="attributes of your own, for constraints", examples=[{"vendor": "acme"}]
    )
    price: Price = Field(default=Price(), description="what a request costs", examples=[{"per_request": 0.001}])
    energy: Energy = Field(default=Energy(), description="power it draws", examples=[{"active_w": 300, "idle_w": 60}])
    carbon: Carbon = Field(
        default=Carbon(), description="of the power it draws", examples=[{"zone": "JP", "g_per_kwh": 485}]
    )
    retention: Retention = Field(
        default=Retention(), description="what happens to the data", examples=[{"days": 0, "training": False}]
    )
    limits: Limits = Field(default=Limits(), description="concurrency and queue", examples=[{"max_in_flight": 8}])
    latency: Latency = Field(default=Latency(), description="expected latency", examples=[{"prior_ms": 45}])
    timeouts: Timeouts = Field(default=Timeouts(), description="how long to wait", examples=[{"connect_s": 2}])
    script: list[ScriptStep] | None = Field(
        default=None, description="what a fake backend does, step by step", examples=[[{"fail": "timeout"}, {}]]
    )


class Fleet(Model):
    """The backends that requests can go to."""

    apiVersion: Literal["pointsman/v1"] = Field(description="version of the language", examples=["pointsman/v1"])
    kind: Literal["Fleet"] = Field(description="which document this is", examples=["Fleet"])
    backends: Items[Backend] = Field(
        description="every place where models can be called",
        examples=[
            [{"name": "b", "tier": "edge", "region": "jp-east", "protocol": "fake", "models": {"m": {"task": "t"}}}]
        ],
    )
