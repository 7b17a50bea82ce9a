"""What the demo sends: real requests of every kind, each with what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from backends.oip_codec import HEADER_LENGTH, decode_answer, encode_request
from backends.tensors import InferRequest, Tensor
from router.demo.samples import CLASS_NAMES, photo, sensor_window

CLOUD = "cloud-gpu"
"""The backend that is taken away for the last request."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, and the backend that must answer it; None where policy must refuse."""

    title: str
    path: str
    backend: str | None
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    without_cloud: bool = False


def samples() -> list[Sample]:
    """Eleven requests: image, sensor, chat, embeddings; plain, streamed, sensitive, refused, and one fallback."""
    cat, coffee = photo("chelsea"), photo("coffee")
    hello = "Say hello to the night shift in one short sentence."
    return [
        _tensor(
            "photo of a cat, 100 ms to answer", "classifier", "image", cat, "plant1-edge", {"x-slo-latency-ms": "100"}
        ),
        _tensor("photo of a cup, for an audit", "classifier", "image", coffee, "onprem-torch", {"x-usage": "audit"}),
        _tensor("sensor window, healthy", "anomaly", "window", sensor_window(False, 1), "plant1-edge"),
        _tensor("sensor window, worn bearing", "anomaly", "window", sensor_window(True, 4), "plant1-edge"),
        _chat("harmless chat", hello, CLOUD),
        _chat("chat marked confidential", hello, "onprem-llm", {"x-data-sensitivity": "confidential"}),
        _chat(
            "chat that says 社外秘", "次の社外秘の文を短く要約してください。新型ポンプは来月出荷します。", "onprem-llm"
        ),
        _chat("streamed chat", "Count from one to five.", CLOUD, stream=True),
        _json(
            "embeddings, commercial use",
            "/v1/embeddings",
            {"model": "embed", "input": ["pump failure", "ポンプの故障"]},
            "onprem-embeddings",
            {"x-usage": "commercial"},
        ),
        _chat("chat marked restricted", hello, None, {"x-data-sensitivity": "restricted"}),
        _chat("harmless chat, cloud stopped", hello, "onprem-llm", without_cloud=True),
    ]


def _tensor(
    title: str, model: str, name: str, array: np.ndarray, backend: str, headers: dict[str, str] | None = None
) -> Sample:
    parts, header_length = encode_request(InferRequest((Tensor.from_array(name, array),)))
    length = {HEADER_LENGTH: str(header_length), "content-type": "application/octet-stream"}
    return Sample(title, f"/v2/models/{model}/infer", backend, b"".join(parts), length | (headers or {}))


def _chat(
    title: str,
    text: str,
    backend: str | None,
    headers: dict[str, str] | None = None,
    *,
    stream: bool = False,
    without_cloud: bool = False,
) -> Sample:
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 32,
        "temperature": 0,
        "stream": stream,
    }
    return _json(title, "/v1/chat/completions", body, backend, headers, without_cloud=without_cloud)


def _json(
    title: str,
    path: str,
    body: dict[str, Any],
    backend: str | None,
    headers: dict[str, str] | None = None,
    *,
    without_cloud: bool = False,
) -> Sample:
    fields = {"content-type": "application/json"} | (headers or {})
    return Sample(title, path, backend, msgspec.json.encode(body), fields, without_cloud)


def answer_in_words(sample: Sample, status: int, headers: dict[str, str], body: bytes) -> str:
    """What a person would want to see of an answer."""
    if status != 200:
        return str(msgspec.json.decode(body)["error"]["code"])
    if "/infer" in sample.path:
        length = headers.get(HEADER_LENGTH)
        output = decode_answer(body, int(length) if length else None).outputs[0]
        values = output.array()
        if output.name == "probabilities":
            best = int(values[0].argmax())
            return f"{CLASS_NAMES.get(best, f'class {best}')}, {float(values[0, best]):.0%}"
        return f"anomaly score {float(values.ravel()[0]):.2f}"
    if sample.path.endswith("/embeddings"):
        vectors = msgspec.json.decode(body)["data"]
        return f"{len(vectors)} vectors of {len(vectors[0]['embedding'])}"
    if headers.get("content-type", "").startswith("text/event-stream"):
        return _spoken(body)
    text: str = msgspec.json.decode(body)["choices"][0]["message"]["content"]
    return text.strip()


def _spoken(events: bytes) -> str:
    """The text of a streamed chat answer."""
    text = ""
    for line in events.splitlines():
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            for choice in msgspec.json.decode(line.removeprefix(b"data: ")).get("choices", ()):
                text += choice.get("delta", {}).get("content") or ""
    return text.strip()
