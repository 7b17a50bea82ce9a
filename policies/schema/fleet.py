"""The Fleet document: the backends, what they serve, and what they cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from policies.schema.base import Count, Items, Model, Name, NonNegative, Positive, Share


class Licence(Model):
    """The licence of a model's weights."""

    spdx: str | None = Field(default=None, description="its SPDX identifier", examples=["Apache-2.0"])
    commercial_use: bool | None = Field(default=None, description="whether it allows commercial use", examples=[True])


class Batching(Model):
    """How requests that come together are run as one. Only for models that the router runs itself, that take any number
    of rows, and that treat each row by itself."""

    max_size: Annotated[int, Field(ge=2)] = Field(
        description="most rows in one run: the sum of the first dimensions", examples=[32]
    )
    max_wait_ms: NonNegative = Field(
        default=0,
        description="for how long a request may be held back for others while the model runs and a thread is free. "
        "Where nothing runs, it is not held back",
        examples=[2],
    )


def _text_or_list(value: Any) -> str:
    return "§list" if isinstance(value, list) else "§scalar"


class BackendModel(Model):
    """A model as one backend serves it. It stands under the name that clients use."""

    task: Annotated[
        Annotated[str, Tag("§scalar")] | Annotated[Items[str], Tag("§list")], Discriminator(_text_or_list)
    ] = Field(description="what it does: one task, or several", examples=["chat", ["chat", "completion"]])
    upstream: str | None = Field(
        default=None, description="its name at the backend, where that is another", examples=["llama-3.1-8b"]
    )
    artifact: str | None = Field(
        default=None, description="for onnx and torch: its file, relative to this file", examples=["models/defect.onnx"]
    )
    batching: Batching | None = Field(
        default=None,
        description="for onnx and torch: run requests that come together as one. Absent: each by itself",
        examples=[{"max_size": 32, "max_wait_ms": 2}],
    )
    quality: Share | None = Field(
        default=None, description="measured quality, which `quality` in an objective prefers", examples=[0.93]
    )
    context_tokens: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="most tokens that input and answer may have together", examples=[8192]
    )
    licence: Licence = Field(
        default=Licence(), description="the licence of its weights", examples=[{"spdx": "MIT", "commercial_use": True}]
    )

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task,) if isinstance(self.task, str) else tuple(self.task)


class SecretReference(Model):
    """Where a secret is to be found, never the secret itself. Exactly one of the two."""

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        default=None, description="an environment variable", examples=["CLOUD_API_KEY"]
    )
    file: str | None = Field(default=None, description="a file, relative to this file", examples=["/run/secrets/key"])


class Tls(Model):
    """Certificates for a backend behind https, as PEM files, relative to this file."""

    ca_file: str | None = Field(
        default=None,
        description="trust these authorities instead of the system's. From Python 3.13 on certificates must be as RFC "
        "5280 asks: without an authority key identifier they are refused",
        examples=["tls/ca.pem"],
    )
    client_cert: str | None = Field(
        default=None, description="the router's own certificate", examples=["tls/client.pem"]
    )
    client_key: str | None = Field(default=None, description="its private key", examples=["tls/client.key"])


class Price(Model):
    """What a request costs. Hardware of your own is not free: say what it costs by the hour, and how much it can do."""

    per_request: NonNegative = Field(default=0, description="USD per request", examples=[0.0005])
    input_per_mtok: NonNegative = Field(default=0, description="USD per million input tokens", examples=[0.15])
    output_per_mtok: NonNegative = Field(default=0, description="USD per million output tokens", examples=[0.6])
    per_second: NonNegative = Field(
        default=0, description="USD per second that a request is being served", examples=[0.0006]
    )
    reserved_per_hour: NonNegative = Field(
        default=0, description="USD per hour, used or not. Needs `capacity_rps`", examples=[1.1]
    )
    capacity_rps: Positive | None = Field(
        default=None, description="requests per second that this hardware can do", examples=[20]
    )


class Baseline(Model):
    """What the cost of every request is compared with."""

    backend: Name | None = Field(
        default=None,
        description="the cloud backend at whose prices a request would have been answered otherwise. Absent, or where "
        "it does not serve the model: the cheapest cloud backend that does",
        examples=["cloud-gpu"],
    )


class Energy(Model):
    """The power a backend draws."""

    active_w: NonNegative = Field(default=0, description="watts with all `max_in_flight` places taken", examples=[300])
    idle_w: NonNegative = Field(default=0, description="watts while it waits", examples=[60])


class Carbon(Model):
    """What the power of a backend emits."""

    zone: str | None = Field(default=None, description="the zone of the power grid", examples=["JP"])
    g_per_kwh: NonNegative = Field(
        default=0,
        description="grams of CO2 equivalent per kWh, where no file says otherwise",
        examples=[485],
    )
    table: str | None = Field(
        default=None,
        description="a file of intensities by zone, relative to this file: CSV with the columns zone and g_per_kwh, or "
        "JSON as codecarbon's energy mixes. Needs `zone`",
        examples=["carbon/zones.csv"],
    )
    series: str | None = Field(
        default=None,
        description="a CSV file of the intensity by time, relative to this file: a row of names, then times in the "
        "first column, ascending, each the beginning of what holds until the next. Times without an offset are UTC; "
        "times of day (`09:00`) hold every day. Before the first row and later than a day after the last, the table or "
        "`g_per_kwh` holds",
        examples=["carbon/today.csv"],
    )
    series_column: str | None = Field(
        default=None, description="the column of the series. Absent: the second", examples=["JP-TK"]
    )
    source: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="who says so, for reports. Absent: the name of the file, or `fleet`",
        examples=["grid operator, day-ahead forecast"],
    )


class Retention(Model):
    """What the operator of a backend does with what it receives, as the contract says."""

    days: NonNegative | None = Field(
        default=None, description="for how many days it keeps prompts and answers", examples=[0]
    )
    training: bool | None = Field(default=None, description="whether it trains models with them", examples=[False])


class Limits(Model):
    """How many requests a backend takes. Beyond both numbers, it is full and gets no more."""

    max_in_flight: Annotated[int, Field(ge=1)] = Field(
        default=64, description="most requests that are served at once", examples=[8]
    )
    adaptive: bool = Field(
        default=False,
        description="find out how many at once the backend takes without slowing down, up to `max_in_flight`",
        examples=[True],
    )
    max_queued: Count = Field(default=256, description="most requests that wait for a place", examples=[64])


class Latency(Model):
    """How long answers are expected to take, until there are measurements."""

    prior_ms: Positive = Field(default=500, description="time to the whole answer", examples=[45])
    prior_ttft_ms: Positive | None = Field(
        default=None,
        description="time to the first token of a stream. Absent: the time to the whole answer",
        examples=[120],
    )


class Timeouts(Model):
    """How long to wait for a backend before the attempt has failed."""

    connect_s: Positive = Field(default=5, description="for the connection", examples=[2])
    first_byte_s: Positive = Field(default=60, description="for the answer to begin", examples=[30])
    idle_s: Positive = Field(default=60, description="for the next piece of a stream", examples=[30])


class ScriptStep(Model):
    """What a fake backend does with one request."""

    latency_ms: NonNegative = Field(default=0, description="how long it waits before it answers", examples=[20])
    fail: Literal["connect", "timeout", "rubbish", "overloaded", "status_500", "status_400"] | None = Field(
        default=None, description="how it fails. Absent: it does not", examples=["status_500"]
    )
    text: str = Field(default="This is a scripted answer.", description="what it answers", examples=["Hello!"])
    chunks: Annotated[int, Field(ge=1)] = Field(
        default=4, description="in how many pieces a streamed answer comes", examples=[4]
    )
    chunk_delay_ms: NonNegative = Field(default=0, description="how long it waits between pieces", examples=[5])
    break_after_chunks: Count | None = Field(
        default=None, description="after how many pieces a stream fails. Absent: it does not", examples=[2]
    )


class Backend(Model):
    """A named place where models can be called."""

    name: Name = Field(description="its name, which no other backend has", examples=["plant1-edge"])
    tier: Literal["edge", "onprem", "cloud"] = Field(
        description="how near it is, and whose: a device at the edge, a machine on the premises, somebody else's cloud",
        examples=["edge"],
    )
    region: str = Field(description="where it runs, in names of your choice", examples=["jp-east"])
    zone: str | None = Field(default=None, description="where in the region it runs", examples=["jp-east-1a"])
    clearance: str | None = Field(
        default=None,
        description="the highest sensitivity level that it may receive. Absent: the lowest",
        examples=["confidential"],
    )
    protocol: Literal["onnx", "torch", "openai", "oip", "fake"] = Field(
        description="how it is called: over HTTP (openai; oip for Triton and KServe), as a file that the router runs "
        "itself (onnx, torch), or not at all, with answers from `script` (fake)",
        examples=["openai"],
    )
    url: str | None = Field(
        default=None,
        description="for openai and oip: the base URL, without /v1 or /v2",
        examples=["http://llm.internal:8000", "${CLOUD_URL}"],
    )
    api_key: SecretReference | None = Field(
        default=None, description="the key that is sent as a bearer token", examples=[{"env": "CLOUD_API_KEY"}]
    )
    tls: Tls | None = Field(
        default=None,
        description="certificates for https. Absent: the system's authorities",
        examples=[{"ca_file": "tls/ca.pem"}],
    )
    models: Annotated[dict[str, BackendModel], Field(min_length=1)] = Field(
        description="what it serves, by the name that clients use",
        examples=[{"chat": {"task": "chat", "quality": 0.8}}],
    )
    labels: dict[str, str] = Field(
        default={},
        description="attributes of your own, which constraints can require as `labels.<name>`",
        examples=[{"vendor": "acme"}],
    )
    price: Price = Field(default=Price(), description="what a request costs", examples=[{"per_request": 0.001}])
    energy: Energy = Field(
        default=Energy(), description="the power it draws", examples=[{"active_w": 300, "idle_w": 60}]
    )
    carbon: Carbon = Field(
        default=Carbon(), description="what its power emits", examples=[{"zone": "JP", "g_per_kwh": 485}]
    )
    retention: Retention = Field(
        default=Retention(), description="what its operator keeps", examples=[{"days": 0, "training": False}]
    )
    limits: Limits = Field(default=Limits(), description="how many requests it takes", examples=[{"max_in_flight": 8}])
    latency: Latency = Field(
        default=Latency(), description="how fast it is expected to be", examples=[{"prior_ms": 45}]
    )
    timeouts: Timeouts = Field(
        default=Timeouts(), description="how long the router waits for it", examples=[{"connect_s": 2}]
    )
    script: list[ScriptStep] | None = Field(
        default=None,
        description="for fake: what it does, one step for each request. The last step repeats",
        examples=[[{"fail": "timeout"}, {}]],
    )


class Ejection(Model):
    """When a backend that fails is kept out, and how it comes back: first on trial, with one request at a time, then
    with more and more."""

    failures: Annotated[int, Field(ge=1)] = Field(
        default=3, description="so many failures in a row keep it out", examples=[5]
    )
    failure_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5,
        description="so large a share of failures among its latest answers (about twenty) keeps it out as well",
        examples=[0.3],
    )
    first_s: Positive = Field(
        default=5, description="for how long at first; twice as long each time that it fails again", examples=[10]
    )
    longest_s: Positive = Field(default=60, description="for how long at most", examples=[300])
    max_share: Share = Field(
        default=0.5,
        description="most of the backends of one model that may be kept out at the same time for failing; one always "
        "may",
        examples=[0.34],
    )
    slow_start_s: NonNegative = Field(
        default=10,
        description="after its return: the time until it gets as many requests at once as before",
        examples=[30],
    )


class Fleet(Model):
    """The backends that requests can go to."""

    apiVersion: Literal["pointsman/v1"] = Field(description="the version of the language", examples=["pointsman/v1"])
    kind: Literal["Fleet"] = Field(description="the kind of this document", examples=["Fleet"])
    backends: Items[Backend] = Field(
        description="every place where models can be called",
        examples=[
            [
                {
                    "name": "plant1",
                    "tier": "edge",
                    "region": "jp",
                    "protocol": "fake",
                    "models": {"chat": {"task": "chat"}},
                }
            ]
        ],
    )
    baseline: Baseline = Field(
        default=Baseline(),
        description="what savings are counted against",
        examples=[{"backend": "cloud-gpu"}],
    )
    ejection: Ejection = Field(
        default=Ejection(),
        description="when backends that fail are kept out, and how they come back",
        examples=[{"failures": 5, "max_share": 0.34}],
    )
