"""Tensors of the Open Inference Protocol. Inside, data is always binary: row-major, little-endian.

Source of datatypes and layout: the Open Inference Protocol v2 and its binary tensor data extension. BYTES
elements are each preceded by their length as four bytes, little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
DATATYPES = (*DTYPES, "BF16", "BYTES")
ITEM_BYTES: Mapping[str, int] = {name: dtype.itemsize for name, dtype in DTYPES.items()} | {"BF16": 2}
_NAMES = {dtype.newbyteorder("="): name for name, dtype in DTYPES.items()}


class TensorError(ValueError):
    """A tensor that is not one: unknown datatype, or data that does not fit its shape. Says nothing of its values."""


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview = field(repr=False)

    def __post_init__(self) -> None:
        size = math.prod(self.shape)
        if self.datatype == "BYTES":
            count = sum(1 for _ in elements(self))
            if count != size:
                raise TensorError(
                    f"'{self.name}': shape {list(self.shape)} means {size} elements, the data has {count}"
                )
        elif self.datatype not in ITEM_BYTES:
            raise TensorError(f"'{self.name}': unknown datatype; known are {', '.join(DATATYPES)}")
        elif len(self.data) != size * ITEM_BYTES[self.datatype]:
            raise TensorError(
                f"'{self.name}': {self.datatype} of shape {list(self.shape)} takes"
                f" {size * ITEM_BYTES[self.datatype]} bytes, the data has {len(self.data)}"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles with its own bytes: a view into a request's body cannot go to another process."""
        return Tensor, (self.name, self.datatype, self.shape, bytes(self.data))

    def array(self) -> np.ndarray:
        """The values; without copying, except BYTES, which become an object array of bytes."""
        if self.datatype == "BYTES":
            flat = np.empty(math.prod(self.shape), dtype=object)
            for i, element in enumerate(elements(self)):
                flat[i] = bytes(element)
            return flat.reshape(self.shape)
        if self.datatype not in DTYPES:
            raise TensorError(f"'{self.name}': {self.datatype} cannot be computed with here")
        return np.frombuffer(self.data, DTYPES[self.datatype]).reshape(self.shape)

    @classmethod
    def from_array(cls, name: str, array: np.ndarray) -> Tensor:
        """Numbers, booleans, or an object/bytes array for BYTES."""
        if array.dtype.kind in "OSU":
            items = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel().tolist()]
            return cls(name, "BYTES", array.shape, pack_bytes(items))
        datatype = _NAMES.get(array.dtype.newbyteorder("="))
        if datatype is None:
            raise TensorError(f"'{name}': arrays of {array.dtype} have no datatype in the protocol")
        contiguous = np.ascontiguousarray(array, dtype=DTYPES[datatype])
        return cls(name, datatype, array.shape, contiguous.tobytes())


def elements(tensor: Tensor) -> Iterable[memoryview]:
    """The elements of a BYTES tensor, in order."""
    view, at = memoryview(tensor.data), 0
    while at < len(view):
        if len(view) - at < 4:
            raise TensorError(f"'{tensor.name}': BYTES data ends inside a length")
        (length,) = struct.unpack_from("<I", view, at)
        at += 4
        if length > len(view) - at:
            raise TensorError(f"'{tensor.name}': BYTES data ends inside an element")
        yield view[at : at + length]
        at += length


def pack_bytes(items: Iterable[bytes]) -> bytes:
    return b"".join(part for item in items for part in (struct.pack("<I", len(item)), item))


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """An inference request. `outputs` empty means all of them; `binary` is how those then travel."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    binary: bool = False
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InferAnswer:
    outputs: tuple[Tensor, ...]
    version: str = "1"
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """-1 in a shape: any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
