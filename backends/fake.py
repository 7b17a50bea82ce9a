"""A scripted backend: latency, failures and answers as written in its fleet entry. The seam for tests of logic.

Each request takes the next step of the script; the last step repeats. What it was sent is kept in `calls`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque

import msgspec
import numpy as np

from backends.calls import Answer, Call, Usage
from backends.errors import BackendError, BadAnswer, Failed, Overloaded, RequestRejected, TimedOut, Unreachable
from backends.tensors import InferAnswer, ModelMetadata, Tensor, TensorSpec
from policies.schema import Backend as BackendSpec
from policies.schema import ScriptStep


class FakeBackend:
    def __init__(self, spec: BackendSpec) -> None:
        self.spec = spec
        self.calls: deque[Call] = deque(maxlen=1000)
        self.cancelled = 0
        steps = spec.script or [ScriptStep()]
        self._steps = itertools.chain(steps, itertools.repeat(steps[-1]))

    async def start(self) -> None: ...

    async def send(self, call: Call) -> Answer:
        self.calls.append(call)
        step = next(self._steps)
        try:
            await asyncio.sleep(step.latency_ms / 1000)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if step.fail is not None:
            raise _failure(step.fail, self.spec.name)
        if call.infer is not None:
            return Answer(infer=InferAnswer((Tensor.from_array("OUTPUT0", np.array([step.text], dtype=object)),)))
        if call.stream:
            return Answer(chunks=ScriptedEvents(self, call, step))
        usage = Usage(10, len(step.text.split()))
        return Answer(body=msgspec.json.encode(_body(call, step.text, usage)), usage=usage)

    async def probe(self) -> None: ...

    async def metadata(self, model: str) -> ModelMetadata | None:
        return ModelMetadata("fake", (TensorSpec("INPUT0", "FP32", (-1,)),), (TensorSpec("OUTPUT0", "BYTES", (1,)),))

    async def aclose(self) -> None: ...


class ScriptedEvents:
    """A streamed answer in `step.chunks` pieces, which may break on the way."""

    def __init__(self, backend: FakeBackend, call: Call, step: ScriptStep) -> None:
        self._backend, self._call, self._step = backend, call, step
        self._sent = 0

    def __aiter__(self) -> ScriptedEvents:
        return self

    async def __anext__(self) -> bytes:
        step = self._step
        if step.break_after_chunks is not None and self._sent >= step.break_after_chunks:
            raise BadAnswer(f"{self._backend.spec.name}: broke off, as scripted")
        if self._sent > step.chunks:
            raise StopAsyncIteration
        if self._sent:
            try:
                await asyncio.sleep(step.chunk_delay_ms / 1000)
            except asyncio.CancelledError:
                self._backend.cancelled += 1
                raise
        self._sent += 1
        if self._sent > step.chunks:
            return b"data: [DONE]\n\n"
        size = -(-len(step.text) // step.chunks)
        piece = step.text[(self._sent - 1) * size : self._sent * size]
        event = {
            "id": "fake", "object": "chat.completion.chunk", "created": 0, "model": self._call.model,
            "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}],
        }  # fmt: skip
        return b"data: " + msgspec.json.encode(event) + b"\n\n"

    async def aclose(self) -> None: ...


def _failure(kind: str, name: str) -> BackendError | RequestRejected:
    match kind:
        case "connect":
            return Unreachable(f"{name}: connection refused, as scripted")
        case "timeout":
            return TimedOut(f"{name}: no answer in time, as scripted")
        case "rubbish":
            return BadAnswer(f"{name}: rubbish, as scripted")
        case "overloaded":
            return Overloaded(f"{name}: overloaded, as scripted", retry_after_s=7)
        case "status_400":
            return RequestRejected(f"{name}: bad request, as scripted")
        case _:
            return Failed(f"{name}: answered 500, as scripted")


def _body(call: Call, text: str, usage: Usage) -> dict[str, object]:
    counted = {"prompt_tokens": usage.tokens_in, "completion_tokens": usage.tokens_out, "total_tokens": sum(usage)}
    if call.path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]
        return {"object": "list", "model": call.model, "data": data, "usage": counted}
    answer = {"id": "fake", "created": 0, "model": call.model, "usage": counted}
    if call.path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": text}
        return answer | {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
    return answer | {
        "object": "text_completion",
        "choices": [{"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}],
    }
