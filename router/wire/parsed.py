"""What a wire hands over: the facts of one inference call, before any policy has looked at it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from backends.tensors import InferRequest, elements
from policies.types import Value
from router.errors import bad_request

_WORD = re.compile(r"[A-Za-z0-9._:/-]{1,128}\Z")
_TEXT_PARTS = ("text", "refusal")
_TEXT_KEYS = frozenset({"type", "text", "refusal", "cache_control", "annotations"})
_NO_TEXT = frozenset(
    {
        "image", "images", "image_url", "audio", "input_audio", "file", "files", "video", "videos", "multi_modal_data",
        "prompt_embeds", "inputs_embeds", "input_embeds",
    }
)  # fmt: skip
"""Fields of bodies and messages with which some servers take more than text."""
_TOKENS = frozenset({"prompt", "input"})


MAX_MODEL_NAME = 256


def check_model_name(model: str) -> None:
    """Raises ApiError 400 for a name longer than any: it would be kept with the decision."""
    if len(model) > MAX_MODEL_NAME:
        raise bad_request(f"the model's name is over {MAX_MODEL_NAME} characters", param="model")


class Parsed(Value, frozen=True):
    """A well-formed call. `content` is the decoded body, for scanning; the original bytes are what is forwarded."""

    wire: str
    model: str
    task: str
    path: str = ""
    stream: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    content: Any = None
    infer: InferRequest | None = None

    def __repr__(self) -> str:  # never the payload
        return f"Parsed(wire={self.wire!r}, task={self.task!r}, path={self.path!r}, …)"

    def labels(self) -> dict[str, str]:
        """The caller's own labels: `metadata` in an OpenAI body. Values that are no words are none: labels are
        matched and recorded, and text is neither."""
        metadata = self.content.get("metadata") if isinstance(self.content, dict) else None
        if not isinstance(metadata, dict):
            return {}
        return {name: value for name, value in metadata.items() if isinstance(value, str) and _WORD.match(value)}

    def unscannable(self) -> bool:
        """Whether a part of the call is something else than text: pictures, sound, files, vectors, tokens. What is
        not known to be text counts as not."""
        if self.infer is not None:
            return any(tensor.datatype != "BYTES" for tensor in self.infer.inputs)
        fields = self.content if isinstance(self.content, dict) else {}
        if _holds_tokens(fields.get("prompt")) or _holds_tokens(fields.get("input")) or not _NO_TEXT.isdisjoint(fields):
            return True
        return any(
            not _NO_TEXT.isdisjoint(message)
            or any(
                not (isinstance(part, dict) and part.get("type") in _TEXT_PARTS and part.keys() <= _TEXT_KEYS)
                for part in _parts(message)
            )
            for message in _messages(fields)
        )

    def texts(self) -> list[str] | None:
        """Everything in the call that can carry text, or None where a part of it cannot be read as text."""
        found = strings(self.content)
        if self.infer is None:
            found += _joined(self.content)
            return found
        # Names and ids go to the backend as they are, so they can carry text as well as a payload can.
        found += [self.infer.id, *(tensor.name for tensor in self.infer.inputs)]
        found += [output.name for output in self.infer.outputs]
        try:
            for tensor in self.infer.inputs:
                if tensor.datatype == "BYTES":
                    found += [bytes(element).decode() for element in elements(tensor)]
        except UnicodeDecodeError:
            return None
        return found


def _messages(fields: Any) -> list[dict[str, Any]]:
    messages = fields.get("messages") if isinstance(fields, dict) else None
    return [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []


def _parts(message: dict[str, Any]) -> list[Any]:
    parts = message.get("content")
    return parts if isinstance(parts, list) else []


def _holds_tokens(value: Any) -> bool:
    return isinstance(value, list) and any(not isinstance(item, str) for item in value)


def _joined(fields: Any) -> Iterator[str]:
    """Messages as a model reads them, where that is more than one piece: chat templates put the parts of a message
    together with nothing between, and messages one after the other."""
    whole = []
    for message in _messages(fields):
        content = message.get("content")
        texts = [
            part["text"] for part in _parts(message) if isinstance(part, dict) and isinstance(part.get("text"), str)
        ]
        if len(texts) > 1:
            yield "".join(texts)
        whole.append(content if isinstance(content, str) else "\n".join(texts))
    if len(whole) > 1:
        yield "\n".join(whole)


def strings(value: Any) -> list[str]:
    """Every text in decoded JSON, in its order, keys included: a caller can hide text in either. A text is given with
    its key, `password: hunter2`, since what it is can depend on what it is called; so is a number.
    The numbers in `prompt` and `input` are left out: there they are tokens.
    """
    found: list[str] = []
    add = found.append
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        key, one = pending.pop()
        kind = type(one)
        if kind is str:
            add(f"{key}: {one}" if key else one)
        elif kind is dict:
            if key:
                add(key)
            pending += reversed(one.items())
        elif kind is list:
            tokens = key in _TOKENS
            pending += [(key, item) for item in reversed(one) if not (tokens and isinstance(item, int | float))]
            if key and not any(isinstance(item, str) for item in one):
                add(key)
        elif one is None or kind is bool:
            if key:
                add(key)
        else:
            number = int(one) if kind is float and one.is_integer() and abs(one) < 1e22 else one
            add(f"{key}: {number}" if key else str(number))
    return found
