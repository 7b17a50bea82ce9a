"""The OpenAI API: chat completions, completions, embeddings. Parses what routing needs; the rest is the backend's.

Source: the OpenAI API reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from backends.calls import Usage
from backends.jsonbody import NotJson, decode_unambiguous
from policies.compile import CompiledPolicy
from policies.estimate import DEFAULT_TOKENS_OUT, tokens
from router.errors import ApiError, bad_request
from router.wire.parsed import Parsed, check_model_name

TASKS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/embeddings": "embedding",
}
"""The task of each path."""


class _Counted(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    usage: _Counted | None = None


_usage = msgspec.json.Decoder(_Event)
MAX_COUNT = 2**31
_LIMITS = ("max_completion_tokens", "max_tokens")
_COUNTS = (*_LIMITS, "n", "best_of")
IMAGE_TOKENS = 765
"""Assumed for an image part: what a 1024 x 1024 image costs in high detail."""


def parse(path: str, headers: Mapping[bytes, bytes], body: bytes | memoryview, policy: CompiledPolicy) -> Parsed:
    """Raises ApiError 400 with the field at fault; messages name fields, never values."""
    fields = _object(body)
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("'model' is missing or not text", "name the model to use", param="model")
    check_model_name(model)
    task = TASKS[path]
    text_bytes = {"chat": _chat, "completion": _completion, "embedding": _embedding}[task](fields)
    stream = _optional(fields, "stream", bool, "true or false") or False
    if stream and task == "embedding":
        raise bad_request("embeddings cannot be streamed", param="stream")
    return Parsed(
        "openai",
        model,
        task,
        path,
        stream,
        tokens(text_bytes),
        0 if task == "embedding" else _tokens_out(fields),
        fields,
    )


def _object(body: bytes | memoryview) -> dict[str, Any]:
    try:
        fields = decode_unambiguous(body)
    except NotJson as error:
        raise bad_request(f"the body {error}") from None
    if not isinstance(fields, dict):
        raise bad_request("the body must be a JSON object")
    if len({key.casefold() for key in fields}) != len(fields):  # some servers read keys without regard to case
        raise bad_request("two keys of the body differ in case only")
    return fields


def _chat(fields: dict[str, Any]) -> int:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("'messages' must be a list of at least one message", param="messages")
    size = 0
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad_request(f"{where} must be an object with a 'role'", param=where)
        size += _content_bytes(message.get("content"), where)
    return size


def _content_bytes(content: Any, where: str) -> int:
    """UTF-8 bytes of the text in a message's content; an image counts as the text it costs as much as."""
    if content is None:
        return 0
    if isinstance(content, str):
        return len(content.encode())
    if not isinstance(content, list):
        raise bad_request(f"{where}.content must be text or a list of parts", param=where)
    size = 0
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise bad_request(f"{where}.content has a part without a 'type'", param=where)
        text = part.get("text")
        size += len(text.encode()) if isinstance(text, str) else int(IMAGE_TOKENS * 3.6)
    return size


def _completion(fields: dict[str, Any]) -> int:
    return _text_or_list(fields, "prompt")


def _embedding(fields: dict[str, Any]) -> int:
    return _text_or_list(fields, "input")


def _text_or_list(fields: dict[str, Any], name: str) -> int:
    """UTF-8 bytes of text, a list of texts, or (lists of) token ids at four bytes each."""
    value = fields.get(name)
    if isinstance(value, str):
        return len(value.encode())
    if not isinstance(value, list) or not value:
        raise bad_request(f"'{name}' must be text or a list of at least one", param=name)
    size = 0
    for item in value:
        if isinstance(item, str):
            size += len(item.encode())
        elif isinstance(item, list) and all(type(one) is int for one in item):
            size += 4 * len(item)
        elif type(item) is int:
            size += 4
        else:
            raise bad_request(f"'{name}' holds something that is neither text nor token ids", param=name)
    return size


def _tokens_out(fields: dict[str, Any]) -> int:
    """Of all answers that are asked for together: the larger of the limits, for each."""
    found = {name: _counted(fields, name) for name in _COUNTS if name in fields}
    limits = [limit for name in _LIMITS if (limit := found.get(name)) is not None]
    return max(limits, default=DEFAULT_TOKENS_OUT) * max(found.get("n") or 1, found.get("best_of") or 1)


def _counted(fields: dict[str, Any], name: str) -> int | None:
    count: int | None = _optional(fields, name, int, "a whole number over 0")
    if count is not None and not 0 < count < MAX_COUNT:
        raise bad_request(f"'{name}' must be a whole number from 1 to {MAX_COUNT - 1}", param=name)
    return count


def _optional(fields: dict[str, Any], name: str, kind: type, what: str) -> Any:
    value = fields.get(name)
    if value is not None and type(value) is not kind:
        raise bad_request(f"'{name}' must be {what}", param=name)
    return value


def repeatable(fields: Any) -> bool:
    """Whether a call may be made twice: `store` keeps something at the backend."""
    return not (isinstance(fields, dict) and any(fields[name] for name in fields if name.lower() == "store"))


def render_error(error: ApiError) -> bytes:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    if error.body is not None:
        return error.body
    return msgspec.json.encode(
        {"error": {"message": error.text, "type": kind, "param": error.param, "code": error.code}}
    )


def stream_error(error: ApiError) -> bytes:
    """The event that ends a stream that has failed after it began."""
    return b"data: " + render_error(error) + b"\n\n"


def data_in(events: bytes) -> Iterator[bytes]:
    """The data of each event, but for the `[DONE]` at the end."""
    for line in events.splitlines():
        if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
            yield data


def pieces_in(events: bytes) -> int:
    """How many events with something in them a piece of a stream has: servers send about a token in each."""
    return events.count(b"data:") - events.count(b"data: [DONE]")


def usage_in(events: bytes) -> Usage | None:
    """The tokens that a piece of a stream counts, where it does: the API tells them in one of the last events, and some
    servers in every one, of all so far. So the last of them holds."""
    found = None
    for data in data_in(events):
        if b'"usage"' in data:
            try:
                counted = _usage.decode(data).usage
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # cut in two, or no usage of this shape: the estimate has to do
            if counted is not None:
                found = Usage.told(counted.prompt_tokens, counted.completion_tokens or 0) or found
    return found


def models(policy: CompiledPolicy) -> list[dict[str, Any]]:
    """What GET /v1/models lists: the models that this API can call."""
    names = sorted({target.model for target in policy.targets if "openai" in target.protocols})
    return [{"id": name, "object": "model", "created": 0, "owned_by": "pointsman"} for name in names]
