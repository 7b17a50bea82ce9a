"""A stream that broke, gone on with at another backend: where the rule says `fallback: {resume: true}`.

The other backend gets the conversation with what has been said so far as the assistant's beginning, and most servers go
on from there. What has gone to the client stays as it is: the joint may show, which is why a rule must ask for it. Only
plain text can be gone on with: one choice, no tool calls. What was said is scanned by nobody, so it only goes to
who may see at least as much as the one that said it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from backends.calls import Call, Chunks
from backends.errors import BackendError
from router.wire import openai

Again = Callable[[Call], Awaitable[Chunks | None]]
"""The stream of another backend; None where there is none to ask."""


class ResumedStream:
    def __init__(self, chunks: Chunks, call: Call, again: Again) -> None:
        self._chunks, self._call, self._again = chunks, call, again
        self._said: list[str] = []
        self._plain = call.path == "/v1/chat/completions"

    def __aiter__(self) -> ResumedStream:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                chunk = await anext(self._chunks)
            except BackendError:
                if not self._plain:
                    raise
                await self._chunks.aclose()
                following = await self._again(self._continued())
                if following is None:
                    raise
                self._chunks = following
                continue
            self._listen(chunk)
            return chunk

    async def aclose(self) -> None:
        await self._chunks.aclose()

    def _continued(self) -> Call:
        said = "".join(self._said)
        if not said:
            return self._call
        body: dict[str, Any] = msgspec.json.decode(self._call.body)
        body["messages"] = [*body["messages"], {"role": "assistant", "content": said}]
        return replace(self._call, body=msgspec.json.encode(body))

    def _listen(self, events: bytes) -> None:
        for data in openai.data_in(events):
            try:
                choices = msgspec.json.decode(data)["choices"]
                for choice in choices:
                    delta = choice["delta"]
                    whole = choice.get("finish_reason") is not None  # all is said: there is nothing to go on with
                    plain = not whole and not choice.get("index") and not delta.get("tool_calls")
                    self._plain = self._plain and plain
                    self._said.append(delta.get("content") or "")
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
                self._plain = False
