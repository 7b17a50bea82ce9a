"""What a wire hands over: the facts of one inference call, before any policy has looked at it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from backends.tensors import InferRequest, elements

_WORD = re.compile(r"[A-Za-z0-9._:/-]{1,128}\Z")
_TEXT_PARTS = ("text", "refusal")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A well-formed call. `content` is the decoded body, for scanning; the original bytes are what is forwarded."""

    wire: str
    model: str
    task: str
    path: str = ""
    stream: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    content: Any = field(default=None, repr=False)
    infer: InferRequest | None = field(default=None, repr=False)

    def labels(self) -> dict[str, str]:
        """The caller's own labels: `metadata` in an OpenAI body. Values that are no words are none: labels are
        matched and recorded, and text is neither."""
        metadata = self.content.get("metadata") if isinstance(self.content, dict) else None
        if not isinstance(metadata, dict):
            return {}
        return {name: value for name, value in metadata.items() if isinstance(value, str) and _WORD.match(value)}

    def unscannable(self) -> bool:
        """Whether a part of the call is something else than text: pictures, sound, files, tensors of numbers."""
        if self.infer is not None:
            return any(tensor.datatype != "BYTES" for tensor in self.infer.inputs)
        messages = self.content.get("messages") if isinstance(self.content, dict) else None
        for message in messages if isinstance(messages, list) else ():
            parts = message.get("content") if isinstance(message, dict) else None
            for part in parts if isinstance(parts, list) else ():
                if not (isinstance(part, dict) and part.get("type") in _TEXT_PARTS):
                    return True
        return False

    def texts(self) -> list[str] | None:
        """Everything in the call that can carry text, or None where a part of it cannot be read as text."""
        found = list(strings(self.content))
        if self.infer is None:
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


def strings(value: Any) -> Iterator[str]:
    """Every text in decoded JSON, in its order, keys included: a caller can hide text in either. A text is given with
    its key, `password: hunter2`, since what it is can depend on what it is called; so is a number that has a key.
    Numbers in lists are left out: there they are tokens and vectors."""
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        key, one = pending.pop()
        if isinstance(one, str):
            yield f"{key}: {one}" if key else one
        elif isinstance(one, dict):
            pending += reversed(one.items())
            if key:
                yield key
        elif isinstance(one, list):
            pending += [(key, item) for item in reversed(one) if isinstance(item, str | dict | list)]
            if key and not any(isinstance(item, str) for item in one):
                yield key
        elif key:
            yield key if one is None or isinstance(one, bool) else f"{key}: {one}"
