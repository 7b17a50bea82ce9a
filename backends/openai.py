"""Backends that speak the OpenAI API over HTTP: vLLM, llama.cpp, TGI, clouds, another Pointsman.

Source: the OpenAI API reference for chat completions, completions and embeddings.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import msgspec

from backends.calls import Answer, Call, Usage
from backends.errors import BadAnswer, Failed, TimedOut
from backends.http import HttpError, HttpResponse, prepare
from backends.remote import RemoteBackend
from backends.tensors import ModelMetadata

_EVENT_BEGINS = (b"data:", b":", b"event:", b"id:", b"retry:")
_LONG_EVENT = 256 * 1024
"""Bytes of one event that are held until it is whole. A longer one is passed on as it comes."""
_DONE_WITHIN = 64
"""`data: [DONE]` is among the last so many bytes of a stream."""


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = None


class _Generated(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: _Usage | None = None


class _Embedded(msgspec.Struct):
    data: list[msgspec.Raw]
    usage: _Usage | None = None


class _GeneratedUncounted(msgspec.Struct):
    choices: list[msgspec.Raw]


class _EmbeddedUncounted(msgspec.Struct):
    data: list[msgspec.Raw]


_JSON = ("content-type", "application/json")
_WHOLE, _STREAM = prepare((_JSON, ("accept", "application/json"))), prepare((_JSON, ("accept", "text/event-stream")))
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
        headers = (("x-request-id", call.request_id), *call.trace)
        response = await self._request(
            "POST", call.path, headers, body, stream=call.stream, again=call.repeatable,
            prepared=_STREAM if call.stream else _WHOLE,
        )  # fmt: skip
        if not 200 <= response.status < 300:
            await self.refuse(response, stream=call.stream)
        if call.stream:
            return Answer(chunks=await EventStream.open(self, response))
        return Answer(body=response.body, usage=self._usage(call.path, response.body))

    def _usage(self, path: str, body: bytes) -> Usage | None:
        """Tokens counted by the backend; None where it counted none, or said so in some way that nobody knows. Raises
        BadAnswer when the body is not an answer at all."""
        try:
            if not body.isascii():
                body.decode()  # the decoder below skips what it does not need, unread
            answer = (_embedded if path.endswith("/embeddings") else _generated).decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if _is_uncounted(path, body):
                return None
            raise BadAnswer(f"{self.spec.name} answered 200 with a body that is no answer") from None
        usage = answer.usage
        return Usage.told(usage.prompt_tokens, usage.completion_tokens or 0) if usage else None

    async def probe(self) -> None:
        response = await self._request("GET", "/v1/models")
        if response.status >= 500 or response.status in (401, 403):
            raise Failed(f"{self.spec.name} answered {response.status} to GET /v1/models")

    async def metadata(self, model: str) -> ModelMetadata | None:
        return None


def _is_uncounted(path: str, body: bytes) -> bool:
    """Whether a body is a good answer but for what it says of its tokens."""
    try:
        body.decode()
        msgspec.json.decode(body, type=_EmbeddedUncounted if path.endswith("/embeddings") else _GeneratedUncounted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


class EventStream:
    """Server-sent events as they arrive, relayed as bytes, whole events only: what the client is told when a stream
    breaks must not land in the middle of one. Holds the connection until closed or exhausted."""

    def __init__(self, backend: OpenAIBackend, response: HttpResponse) -> None:
        self._name, self._idle_s = backend.spec.name, backend.spec.timeouts.idle_s
        self._translate = backend.translate
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.chunks()
        self._first: bytes | None = None
        self._open = False
        self._rest = b""  # of an event that has begun to arrive
        self._rest_since = 0.0
        # Without a length, a connection that was cut looks like the end of the answer.
        self._framed = any(response.header(name) for name in ("content-length", "transfer-encoding"))
        self._done = False

    @classmethod
    async def open(cls, backend: OpenAIBackend, response: HttpResponse) -> EventStream:
        """Waits for the first event, so that everything before it can still be answered by another backend."""
        stream = cls(backend, response)
        try:
            if not (response.header("content-type") or "").startswith("text/event-stream"):
                raise stream._not_events()
            first = b""
            while not first.lstrip():  # some servers open with an empty line
                first += await stream._next()
        except StopAsyncIteration:
            await stream.aclose()
            raise BadAnswer(f"{backend.spec.name} ended its stream before the first event") from None
        except BaseException:
            await stream.aclose()
            raise
        stream._first, stream._open = first, True
        return stream

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._next()

    async def _next(self) -> bytes:
        """The next whole events, at least one. Raises BackendError for a stream that ends in the middle."""
        while True:
            try:
                data = self._rest + await anext(self._chunks)
            except HttpError as error:
                if self._done and not self._rest:  # the answer is whole, whatever became of its framing
                    raise StopAsyncIteration from None
                raise self._translate(error) from error
            except StopAsyncIteration:
                return self._last()
            if not self._open and not _may_be_events(data):
                raise self._not_events()
            end = _whole_events(data) or (len(data) if len(data) > _LONG_EVENT else 0)
            if end:
                whole, self._rest, self._rest_since = data[:end], data[end:], time.monotonic()
                self._done = b"data: [DONE]" in whole[-_DONE_WITHIN:] or b"data:[DONE]" in whole[-_DONE_WITHIN:]
                return whole
            if not self._rest:
                self._rest_since = time.monotonic()
            elif self._open and time.monotonic() - self._rest_since > self._idle_s:  # before, the deadline holds
                raise TimedOut(f"{self._name}: an event of its stream is not whole after {self._idle_s:g} s")
            self._rest = data

    def _last(self) -> bytes:
        """What is left at the stream's end: the last event, where it lacks only the empty line after it."""
        rest, self._rest = self._rest, b""
        self._done = self._done or rest.rstrip().endswith(b"[DONE]")
        if rest.strip() and (self._done or (self._framed and rest.endswith((b"\n", b"\r")))):
            return rest
        if rest.strip() or not (self._framed or self._done):
            raise BadAnswer(f"{self._name} ended its stream in the middle")
        raise StopAsyncIteration

    def _not_events(self) -> BadAnswer:
        return BadAnswer(f"{self._name} answered a streamed call with something else than events")

    async def aclose(self) -> None:
        await self._response.aclose()


def _whole_events(data: bytes) -> int:
    """Where the last whole event in `data` ends; 0 where there is none. Lines may end in CR, LF or both."""
    if data.endswith(b"\n\n"):  # nearly always
        return len(data)
    return max(data.rfind(end) + len(end) if end in data else 0 for end in (b"\n\n", b"\n\r\n", b"\r\r"))


def _may_be_events(data: bytes) -> bool:
    """Whether a stream that begins like this may be one of events; it may have come in pieces of any size."""
    begin = data.lstrip()
    return any(begin.startswith(field) or field.startswith(begin) for field in _EVENT_BEGINS)
