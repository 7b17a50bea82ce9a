"""How sure an answer is of itself, from 0 to 1; None where that cannot be read.

Of classifiers: the probability of the best class (softmax of logits), its margin over the second, or one minus the
normalised entropy. Of generated text: the geometric mean of its tokens' probabilities, which the backend is asked for
and the client does not see unless it asked, too. Embeddings have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from backends.calls import Answer, Call
from backends.tensors import InferAnswer, TensorError
from policies.schema import Cascade
from router.wire import openai

_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])


def asking(call: Call) -> Call:
    """The call with the tokens' probabilities asked for; the same one where that is so already, or makes no sense."""
    field = {"/v1/chat/completions": msgspec.Raw(b"true"), "/v1/completions": msgspec.Raw(b"1")}.get(call.path)
    if field is None:
        return call
    fields = _raw.decode(call.body)
    if bytes(fields.get("logprobs", b"null")) not in (b"null", b"false"):
        return call
    return replace(call, body=msgspec.json.encode({**fields, "logprobs": field}))


def without(answer: Answer) -> Answer:
    """A whole answer without the tokens' probabilities."""
    if answer.body is None or b'"logprobs"' not in answer.body:
        return answer
    try:
        body = msgspec.json.decode(answer.body)
        shown = {**body, "choices": [{**choice, "logprobs": None} for choice in body["choices"]]}
    except (msgspec.DecodeError, KeyError, TypeError):
        return answer
    return replace(answer, body=msgspec.json.encode(shown))


def events_without(events: bytes) -> bytes:
    """Events without them, as far as they can be read."""
    lines = events.split(b"\n")
    for i, line in enumerate(lines):
        if line.startswith(b"data:") and b'"logprobs"' in line:
            lines[i] = b"data: " + (without(Answer(body=line[5:])).body or b"").strip()
    return b"\n".join(lines)


def of_answer(answer: Answer, call: Call, cascade: Cascade) -> float | None:
    if answer.infer is not None:
        return _of_tensors(answer.infer, cascade.measure)
    try:
        body = msgspec.json.decode(answer.body or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _of_choices(_choices(body), cascade)


def of_events(events: bytes, cascade: Cascade) -> float | None:
    """Of a whole stream of server-sent events."""
    together: dict[Any, dict[str, Any]] = {}
    for data in openai.data_in(events):
        try:
            body = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        for choice in _choices(body):
            whole = together.setdefault(choice.get("index"), {"text": "", "logprobs": {"content": []}})
            whole["text"] += _text(choice)
            whole["logprobs"]["content"] += [{"logprob": one} for one in _logprobs(choice)]
    return _of_choices(list(together.values()), cascade)


def _of_tensors(answer: InferAnswer, measure: str) -> float | None:
    """Of the least sure row of the first output of numbers."""
    for tensor in answer.outputs:
        if not tensor.datatype.startswith("FP") or not tensor.shape or math.prod(tensor.shape) == 0:
            continue
        try:
            rows = tensor.array().astype(np.float64).reshape(-1, tensor.shape[-1])
        except (TensorError, ValueError):
            return None
        if not np.isfinite(rows).all():
            return None
        if rows.shape[1] == 1:  # one probability of yes
            rows = np.concatenate([rows, 1 - rows], axis=1)
            if not _are_shares(rows):
                return None
        if not _are_shares(rows):
            rows = np.exp(rows - rows.max(axis=1, keepdims=True))
            rows /= rows.sum(axis=1, keepdims=True)
        return min(_MEASURES[measure](row) for row in rows)
    return None


def _are_shares(rows: np.ndarray) -> bool:
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3))


def _margin(row: np.ndarray) -> float:
    second, first = np.sort(row)[-2:]
    return float(first - second)


def _certainty(row: np.ndarray) -> float:
    positive = row[row > 0]
    return float(1 + (positive * np.log(positive)).sum() / math.log(len(row)))


_MEASURES = {"probability": lambda row: float(row.max()), "margin": _margin, "entropy": _certainty}


def _of_choices(choices: Iterable[dict[str, Any]], cascade: Cascade) -> float | None:
    """Of the least sure one."""
    found: list[float | None] = []
    for choice in choices:
        if cascade.validator == "json" and not _is_json(_text(choice)):
            return 0.0
        logprobs = list(_logprobs(choice))
        if logprobs:
            found.append(math.exp(min(sum(logprobs) / len(logprobs), 0.0)))
        else:
            found.append(1.0 if cascade.validator is not None else None)
    return None if not found or None in found else min(one for one in found if one is not None)


def _choices(body: Any) -> list[dict[str, Any]]:
    found = body.get("choices") if isinstance(body, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _text(choice: dict[str, Any]) -> str:
    """What a choice, or a piece of one, says."""
    for holder in (choice, choice.get("message"), choice.get("delta")):
        for name in ("content", "text"):
            if isinstance(holder, dict) and isinstance(holder.get(name), str):
                return str(holder[name])
    return ""


def _logprobs(choice: dict[str, Any]) -> Iterator[float]:
    told = choice.get("logprobs")
    if not isinstance(told, dict):
        return
    content = told.get("content") or told.get("token_logprobs") or ()
    for one in content if isinstance(content, list) else ():
        value = one.get("logprob") if isinstance(one, dict) else one
        if isinstance(value, int | float) and math.isfinite(value):
            yield float(value)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text.encode(errors="surrogatepass"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
