"""Backends that speak the OpenAI API over HTTP: vLLM, llama.cpp, TGI, clouds, another Pointsman.

Source: the OpenAI API reference for chat completions, completions and embeddings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from backends.calls import Answer, Call, Usage
from backends.errors import BadAnswer, Failed
from backends.http import HttpError, HttpResponse
from backends.remote import RemoteBackend
from backends.tensors import ModelMetadata

_EVENT_BEGINS = (b"data:", b":", b"event:", b"id:", b"retry:")


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = None


class _Generated(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: _Usage | None = None


class _Embedded(msgspec.Struct):
    data: list[msgspec.Raw]
    usage: _Usage | None = None


_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_generated = msgspec.json.Decoder(_Generated)
_embedded = msgspec.json.Decoder(_Embedded)


def with_model(body: bytes, model: str) -> bytes:
    """The same JSON object with another `model`; every other value keeps its very bytes."""
    fields = _raw_object.decode(body)
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


class OpenAIBackend(RemoteBackend):
    async def send(self, call: Call) -> Answer:
        upstream = self.spec.models[call.model].upstream
        body = call.body if upstream is None or upstream == call.model else with_model(call.body, upstream)
        headers = [
            ("content-type", "application/json"),
            ("accept", "text/event-stream" if call.stream else "application/json"),
            ("x-request-id", call.request_id),
        ]
        response = await self._request("POST", call.path, headers, body, stream=call.stream)
        await self.refuse(response, stream=call.stream)
        if call.stream:
            return Answer(chunks=await EventStream.open(self, response))
        return Answer(body=response.body, usage=self._usage(call.path, response.body))

    def _usage(self, path: str, body: bytes) -> Usage | None:
        """Tokens counted by the backend. Raises BadAnswer when the body is not an answer at all."""
        try:
            if not body.isascii():
                body.decode()  # the decoder below skips what it does not need, unread
            answer = (_embedded if path.endswith("/embeddings") else _generated).decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadAnswer(f"{self.spec.name} answered 200 with a body that is no answer") from None
        usage = answer.usage
        return Usage.told(usage.prompt_tokens, usage.completion_tokens or 0) if usage else None

    async def probe(self) -> None:
        response = await self._request("GET", "/v1/models")
        if response.status >= 500 or response.status in (401, 403):
            raise Failed(f"{self.spec.name} answered {response.status} to GET /v1/models")

    async def metadata(self, model: str) -> ModelMetadata | None:
        return None


class EventStream:
    """Server-sent events as they arrive, relayed as bytes. Holds the connection until closed or exhausted."""

    def __init__(self, backend: OpenAIBackend, response: HttpResponse) -> None:
        self._backend = backend
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.chunks()
        self._first: bytes | None = None

    @classmethod
    async def open(cls, backend: OpenAIBackend, response: HttpResponse) -> EventStream:
        """Waits for the first event, so that everything before it can still be answered by another backend."""
        stream = cls(backend, response)
        try:
            if not (response.header("content-type") or "").startswith("text/event-stream"):
                raise BadAnswer(f"{backend.spec.name} answered a streamed call with something else than events")
            first = b""
            while not first.lstrip():  # some servers open with an empty line
                first += await stream._next()
            if not first.lstrip().startswith(_EVENT_BEGINS):
                raise BadAnswer(f"{backend.spec.name} answered a streamed call with something else than events")
        except StopAsyncIteration:
            await stream.aclose()
            raise BadAnswer(f"{backend.spec.name} ended its stream before the first event") from None
        except BaseException:
            await stream.aclose()
            raise
        stream._first = first
        return stream

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._next()

    async def _next(self) -> bytes:
        try:
            return await anext(self._chunks)
        except HttpError as error:
            raise self._backend.translate(error) from error

    async def aclose(self) -> None:
        await self._response.aclose()
