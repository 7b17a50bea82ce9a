"""The Open Inference Protocol v2 as KServe and Triton clients speak it, with the binary tensor data extension."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from backends.oip_codec import HEADER_LENGTH, WireError, decode_request, encode_answer
from backends.tensors import InferAnswer, InferRequest, ModelMetadata
from policies.compile import CompiledPolicy
from router import __version__
from router.errors import ApiError, bad_request
from router.wire.parsed import Parsed, check_model_name

SERVER = {"name": "pointsman", "version": __version__, "extensions": ["binary_tensor_data"]}
ROUTE = "/v2/models/{model}/infer"
"""The path of an inference call, whichever model it names."""
_MODEL = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer))?\Z")
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def match_model(path: str) -> tuple[str, str] | None:
    """(model, "" | "ready" | "infer") for a path under /v2/models, or None."""
    found = _MODEL.match(path)
    if found is None:
        return None
    return unquote(found["model"]), found["verb"] or ""


def parse(
    model: str, headers: Mapping[bytes, bytes], body: bytes | memoryview, policy: CompiledPolicy, limit: int
) -> Parsed:
    """Raises ApiError 400 for a body that is not an inference request; 413 for one that unpacks over `limit`."""
    check_model_name(model)
    body = _unpack(body, headers.get(b"content-encoding", b"").decode("latin-1").strip().lower(), limit)
    length = headers.get(HEADER_LENGTH.encode())
    try:
        infer = decode_request(body, int(length) if length is not None else None)
    except WireError as error:
        raise bad_request(str(error)) from None
    except ValueError:
        raise bad_request(f"{HEADER_LENGTH} is not a number", param=HEADER_LENGTH) from None
    return Parsed("oip", model, task_of(model, policy), f"/v2/models/{model}/infer", infer=infer)


def task_of(model: str, policy: CompiledPolicy) -> str:
    """A tensor call says no task: it is the model's own. "" where no backend serves the model over this wire."""
    for target in policy.targets:
        if target.model == model and "oip" in target.protocols:
            return target.tasks[0]
    return ""


def _unpack(body: bytes | memoryview, encoding: str, limit: int) -> bytes | memoryview:
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW:
        raise ApiError(
            "unsupported_media_type", "this content-encoding is not supported", "send gzip, deflate or no encoding"
        )
    unpacker = zlib.decompressobj(_WINDOW[encoding])
    try:
        unpacked = unpacker.decompress(body, limit)
    except zlib.error:
        raise bad_request(f"the body is not {encoding}, as its content-encoding says") from None
    if unpacker.unconsumed_tail:
        raise ApiError("too_large", f"the body unpacks to more than {limit} bytes")
    if not unpacker.eof:
        raise bad_request(f"the {encoding} body is cut short")
    return unpacked


def render(answer: InferAnswer, request: InferRequest, model: str) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """(body, headers). Raises ApiError 502 where an output cannot travel the way the client asked for."""
    try:
        parts, header_length = encode_answer(answer, request, model)
    except WireError as error:
        raise ApiError("upstream_error", str(error)) from None
    if header_length is None:
        return b"".join(parts), (("content-type", "application/json"),)
    return b"".join(parts), (("content-type", "application/octet-stream"), (HEADER_LENGTH, str(header_length)))


def render_metadata(model: str, metadata: ModelMetadata) -> dict[str, Any]:
    return {
        "name": model,
        "versions": ["1"],
        "platform": metadata.platform,
        "inputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in metadata.inputs],
        "outputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in metadata.outputs],
    }


def render_error(error: ApiError) -> bytes:
    return error.body if error.body is not None else msgspec.json.encode({"error": error.text})
