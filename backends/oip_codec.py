"""The Open Inference Protocol on the wire, both ways: bodies to requests and answers, and back.

A body is a JSON header, followed, with the binary tensor data extension, by the tensors' bytes one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from backends.jsonbody import NotJson, decode
from backends.tensors import (
    DATATYPES,
    DTYPES,
    InferAnswer,
    InferRequest,
    RequestedOutput,
    Tensor,
    TensorError,
    pack_bytes,
)

HEADER_LENGTH = "inference-header-content-length"
MAX_DIMENSIONS = 32
_UNSUPPORTED = ("shared_memory_region", "classification", "sequence_id")


class WireError(ValueError):
    """A body that does not follow the protocol. The message says where, never what the values were."""


def decode_request(body: bytes | memoryview, header_length: int | None) -> InferRequest:
    header, tail = _split(body, header_length)
    _refuse_unsupported(header.get("parameters"), "the request")
    inputs = _tensors(header, "inputs", tail)
    outputs: list[RequestedOutput] = []
    default = _flag(header.get("parameters"), "binary_data_output")
    for item in _list(header, "outputs", required=False):
        where = f"outputs[{len(outputs)}]"
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise WireError(f"{where} has no name")
        _refuse_unsupported(item.get("parameters"), where)
        outputs.append(RequestedOutput(item["name"], _flag(item.get("parameters"), "binary_data", default)))
    request_id = header.get("id", "")
    if not isinstance(request_id, str):
        raise WireError("'id' must be text")
    return InferRequest(inputs, tuple(outputs), default, request_id)


def encode_request(request: InferRequest) -> tuple[list[bytes | memoryview], int]:
    """(parts of the body, length of its JSON header). Everything travels binary, both ways."""
    header: dict[str, Any] = {
        "inputs": [_binary_entry(tensor) for tensor in request.inputs],
        "parameters": {"binary_data_output": True},
    }
    if request.id:
        header["id"] = request.id
    if request.outputs:
        header["outputs"] = [{"name": o.name, "parameters": {"binary_data": True}} for o in request.outputs]
    encoded = msgspec.json.encode(header)
    return [encoded, *(tensor.data for tensor in request.inputs)], len(encoded)


def decode_answer(body: bytes, header_length: int | None) -> InferAnswer:
    header, tail = _split(body, header_length)
    version = header.get("model_version", "1")
    return InferAnswer(_tensors(header, "outputs", tail), version if isinstance(version, str) else "1")


def encode_answer(
    answer: InferAnswer, request: InferRequest, model: str
) -> tuple[list[bytes | memoryview], int | None]:
    """(parts of the body, length of its JSON header or None when there is no binary part)."""
    wanted = {output.name: output.binary for output in request.outputs}
    entries: list[dict[str, Any]] = []
    tail: list[bytes | memoryview] = []
    for tensor in answer.outputs:
        if wanted.get(tensor.name, request.binary):
            entries.append(_binary_entry(tensor))
            tail.append(tensor.data)
        else:
            entries.append(_json_entry(tensor))
    header = {"model_name": model, "model_version": answer.version, "outputs": entries}
    if request.id:
        header["id"] = request.id
    encoded = msgspec.json.encode(header)
    return [encoded, *tail], len(encoded) if tail else None


def _split(body: bytes | memoryview, header_length: int | None) -> tuple[dict[str, Any], memoryview]:
    view = memoryview(body)
    if header_length is None:
        header_length = len(view)
    if not 0 <= header_length <= len(view):
        raise WireError(f"{HEADER_LENGTH} is {header_length}, the body has {len(view)} bytes")
    try:
        header = decode(view[:header_length])
    except NotJson as error:
        raise WireError(f"the JSON part {error}") from None
    if not isinstance(header, dict):
        raise WireError("the JSON part must be an object")
    return header, view[header_length:]


def _list(header: Mapping[str, Any], key: str, *, required: bool = True) -> list[Any]:
    value = header.get(key)
    if value is None and not required:
        return []
    if not isinstance(value, list) or (required and not value):
        raise WireError(f"'{key}' must be a list{' of at least one tensor' if required else ''}")
    return value


def _tensors(header: Mapping[str, Any], key: str, tail: memoryview) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    at = 0
    for i, item in enumerate(_list(header, key)):
        where = f"{key}[{i}]"
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
            raise WireError(f"{where} has no name")
        if any(item["name"] == tensor.name for tensor in tensors):
            raise WireError(f"{where} has the name of another")
        datatype, shape = item.get("datatype"), item.get("shape")
        if datatype not in DATATYPES:
            raise WireError(f"{where}: 'datatype' must be one of {', '.join(DATATYPES)}")
        if not isinstance(shape, list) or not all(type(d) is int and d >= 0 for d in shape):
            raise WireError(f"{where}: 'shape' must be a list of whole numbers, none negative")
        if len(shape) > MAX_DIMENSIONS:
            raise WireError(f"{where}: more than {MAX_DIMENSIONS} dimensions")
        parameters = item.get("parameters")
        _refuse_unsupported(parameters, where)
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        try:
            if size is not None:
                if type(size) is not int or not 0 <= size <= len(tail) - at:
                    raise WireError(f"{where}: 'binary_data_size' goes past the end of the body")
                data: bytes | memoryview = tail[at : at + size]
                at += size
            else:
                data = _json_data(item, datatype, math.prod(shape), where)
            tensors.append(Tensor(item["name"], datatype, tuple(shape), data))
        except TensorError as error:
            raise WireError(f"{where} {error}") from None
    if at != len(tail):
        raise WireError(f"{len(tail) - at} bytes of the body belong to no tensor")
    return tuple(tensors)


def _json_data(item: Mapping[str, Any], datatype: str, size: int, where: str) -> bytes:
    data = item.get("data")
    if not isinstance(data, list):
        raise WireError(f"{where} has neither 'data' nor 'binary_data_size'")
    if datatype in ("FP16", "BF16"):
        raise WireError(f"{where}: {datatype} has no JSON form; send it with the binary tensor data extension")
    if datatype == "BYTES":
        flat = _flatten(data, where)
        if not all(isinstance(element, str) for element in flat):
            raise WireError(f"{where}: elements of BYTES must be text")
        return pack_bytes(element.encode() for element in flat)
    array = _numbers(data, DTYPES[datatype], where, datatype)
    if array.size != size:
        raise WireError(f"{where}: 'shape' means {size} elements, 'data' has {array.size}")
    return array.tobytes()


def _numbers(data: list[Any], dtype: np.dtype[Any], where: str, datatype: str) -> np.ndarray:
    try:
        array = np.array(data)
    except (ValueError, OverflowError):  # ragged; numpy's own message could show values
        raise WireError(f"{where}: 'data' is neither flat nor nested evenly") from None
    if array.size == 0:
        return array.astype(dtype)
    allowed = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}[dtype.kind]
    if array.dtype.kind not in allowed:
        raise WireError(f"{where}: 'data' holds values that are not {datatype}")
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if int(array.min()) < info.min or int(array.max()) > info.max:
            raise WireError(f"{where}: 'data' holds values outside {datatype}")
        return array.astype(dtype)
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(converted).all():
        raise WireError(f"{where}: 'data' holds values outside {datatype}")
    return converted


def _flatten(data: Sequence[Any], where: str, depth: int = 0) -> list[Any]:
    if depth > MAX_DIMENSIONS:
        raise WireError(f"{where}: 'data' is nested too deep")
    flat: list[Any] = []
    for element in data:
        flat += _flatten(element, where, depth + 1) if isinstance(element, list) else [element]
    return flat


def _flag(parameters: Any, name: str, default: bool = False) -> bool:
    value = parameters.get(name, default) if isinstance(parameters, dict) else default
    if not isinstance(value, bool):
        raise WireError(f"parameter '{name}' must be true or false")
    return value


def _refuse_unsupported(parameters: Any, where: str) -> None:
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise WireError(f"{where}: 'parameters' must be an object")
    for name in _UNSUPPORTED:
        if parameters.get(name):
            raise WireError(f"{where}: parameter '{name}' is not supported")


def _binary_entry(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "parameters": {"binary_data_size": len(tensor.data)},
    }


def _json_entry(tensor: Tensor) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
    try:
        array = tensor.array()
        if tensor.datatype == "BYTES":
            entry["data"] = [element.decode() for element in array.ravel().tolist()]
            return entry
    except (TensorError, UnicodeDecodeError):
        raise WireError(f"output '{tensor.name}' has no JSON form; ask for binary output") from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise WireError(f"output '{tensor.name}' holds NaN or infinity, which JSON cannot; ask for binary output")
    entry["data"] = array.ravel().tolist()
    return entry
