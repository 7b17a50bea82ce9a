"""Puts what was pseudonymised back into answers of the OpenAI API: whole ones and streams of events."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from backends.calls import Chunks
from backends.errors import BadAnswer
from policies.sensitivity.pseudonyms import Pseudonyms, Restorer

_JSON_TEXT = frozenset({"arguments"})
"""Fields whose text is JSON itself: what is put back is escaped for it."""
_MAX_EVENT = 16 * 1024 * 1024


class UnreadableEvent(BadAnswer):
    """An event of a stream that is not what the OpenAI API sends. Says nothing of what it was."""


def restore_body(body: bytes, pseudonyms: Pseudonyms) -> tuple[bytes, int]:
    """A whole answer with every string restored, and the number of placeholders that are none of ours. Raises
    BadAnswer."""
    unrestored = 0

    def restored(value: Any, key: str = "") -> Any:
        nonlocal unrestored
        if isinstance(value, dict):
            return {name: restored(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [restored(one, key) for one in value]
        if not isinstance(value, str):
            return value
        restorer = Restorer(pseudonyms, in_json=key in _JSON_TEXT)
        text = restorer.whole(value)
        unrestored += restorer.unrestored
        return text

    try:
        return msgspec.json.encode(restored(msgspec.json.decode(body))), unrestored
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadAnswer("an answer that is not JSON") from None
    except RecursionError:
        raise BadAnswer("an answer that is nested too deep") from None


@dataclass(slots=True)
class EventRestorer:
    """Restores a stream of server-sent events. Every text of every choice is a stream of its own; the bytes may be cut
    anywhere."""

    pseudonyms: Pseudonyms
    _texts: dict[tuple[Any, ...], Restorer] = field(default_factory=dict, repr=False)
    _buffer: bytes = field(default=b"", repr=False)
    _last: dict[str, Any] = field(default_factory=dict, repr=False)  # the latest event, as a pattern for one of our own

    @property
    def unrestored(self) -> int:
        return sum(restorer.unrestored for restorer in self._texts.values())

    def feed(self, data: bytes) -> bytes:
        """Whole events restored; the beginning of one that has not ended yet is kept."""
        self._buffer += data
        if len(self._buffer) > _MAX_EVENT:
            raise UnreadableEvent("an event without an end")
        out = b""
        while True:
            cut, skip = _end(self._buffer)
            if cut < 0:
                return out
            event, self._buffer = self._buffer[:cut], self._buffer[cut + skip :]
            out += self._event(event)

    def flush(self) -> bytes:
        """The end of the stream."""
        rest, self._buffer = self._buffer, b""
        out = self._event(rest) if rest.strip() else b""
        return out + self._remains()

    def _event(self, event: bytes) -> bytes:
        lines = event.replace(b"\r\n", b"\n").split(b"\n")
        data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        others = [line for line in lines if line and not line.startswith(b"data:")]
        if not data:
            return b"\n".join(lines) + b"\n\n"
        content = b"\n".join(data)
        if content.strip() == b"[DONE]":
            return self._remains() + b"".join(line + b"\n" for line in others) + b"data: [DONE]\n\n"
        try:
            decoded = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UnreadableEvent("an event that is not JSON") from None
        if isinstance(decoded, dict) and isinstance(decoded.get("choices"), list):
            self._last = {k: v for k, v in decoded.items() if k not in ("choices", "usage")}
            for choice in decoded["choices"]:
                if isinstance(choice, dict):
                    self._choice(choice)
        return b"".join(line + b"\n" for line in others) + b"data: " + msgspec.json.encode(decoded) + b"\n\n"

    def _choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index", 0)
        for path, parent, key in list(_strings(choice, ())):
            restorer = self._texts.setdefault((index, *path), Restorer(self.pseudonyms, in_json=key in _JSON_TEXT))
            parent[key] = restorer.feed(parent[key])
        if choice.get("finish_reason") is not None:
            for path, restorer in self._texts.items():
                if path[0] == index and (rest := restorer.flush()):
                    _append(choice, path[1:], rest)

    def _remains(self) -> bytes:
        """What is still held back when a stream ends without saying so, as events of our own."""
        out = b""
        for path, restorer in self._texts.items():
            if rest := restorer.flush():
                choice: dict[str, Any] = {"index": path[0], "finish_reason": None}
                _append(choice, path[1:], rest)
                out += b"data: " + msgspec.json.encode({**self._last, "choices": [choice]}) + b"\n\n"
        return out


_NAMES = frozenset({"role", "id", "type", "finish_reason", "name", "object"})
"""Short strings that name things and are no text."""


def _strings(value: dict[str, Any], path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any], str]]:
    """(path, its mapping, its key) of every text in a choice. Items of lists are told apart by their `index`."""
    for key, one in value.items():
        if isinstance(one, str):
            if key not in _NAMES:
                yield (*path, key), value, key
        elif isinstance(one, dict):
            yield from _strings(one, (*path, key))
        elif isinstance(one, list) and key != "logprobs":
            for i, item in enumerate(one):
                if isinstance(item, dict):
                    yield from _strings(item, (*path, key, item.get("index", i)))


def _append(holder: dict[str, Any], path: tuple[Any, ...], text: str) -> None:
    """Add text at a path of a choice, making what is missing on the way."""
    here: Any = holder
    for step, following in itertools.pairwise(path):
        if isinstance(here, list):
            found = next((one for one in here if isinstance(one, dict) and one.get("index") == step), None)
            if found is None:
                found = {"index": step}
                here.append(found)
            here = found
        else:
            here = here.setdefault(step, [] if isinstance(following, int) else {})
    here[path[-1]] = (here.get(path[-1]) or "") + text


def _end(data: bytes) -> tuple[int, int]:
    """(where the first event ends, the length of its end); (-1, 0) where none does yet."""
    found = [(at, len(end)) for end in (b"\n\n", b"\r\n\r\n", b"\r\r") if (at := data.find(end)) >= 0]
    return min(found, default=(-1, 0))


class RestoredStream:
    """A stream of events with what was pseudonymised put back."""

    def __init__(self, chunks: Chunks, pseudonyms: Pseudonyms) -> None:
        self._chunks = chunks
        self._restorer = EventRestorer(pseudonyms)
        self._ended = False

    @property
    def unrestored(self) -> int:
        return self._restorer.unrestored

    def __aiter__(self) -> RestoredStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                out = self._restorer.feed(await anext(self._chunks))
            except StopAsyncIteration:
                self._ended = True
                out = self._restorer.flush()
            if out:
                return out
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._chunks.aclose()
