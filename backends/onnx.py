"""ONNX models by ONNX Runtime, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.errors import RequestRejected
from backends.in_process import InProcessBackend, tensor_spec
from backends.tensors import ModelMetadata

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    **{f"tensor(int{bits})": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"tensor(uint{bits})": f"UINT{bits}" for bits in (8, 16, 32, 64)},
}


class OnnxRunner:
    def __init__(self, artifact: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread per run: several requests then run side by side, and none waits for all cores.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what fails is raised; its own lines on stderr can show a request's values
        self._session = onnxruntime.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._outputs = [o.name for o in outputs]
        self.metadata = ModelMetadata(
            "onnxruntime_onnx",
            tuple(tensor_spec(i.name, _datatype(i), i.shape) for i in inputs),
            tuple(tensor_spec(o.name, _datatype(o), o.shape) for o in outputs),
        )

    def run(self, inputs: Mapping[str, np.ndarray], /) -> Mapping[str, np.ndarray]:
        given = {name: _text(name, array) if array.dtype == object else array for name, array in inputs.items()}
        return dict(zip(self._outputs, self._session.run(None, given), strict=True))


def _datatype(value: Any) -> str:
    try:
        return _DATATYPES[value.type]
    except KeyError:
        raise ValueError(f"'{value.name}' is of type {value.type}, which the protocol cannot carry") from None


def _text(name: str, array: np.ndarray) -> np.ndarray:
    """ONNX strings are text: of bytes, ONNX Runtime would take Python's spelling of them."""
    try:
        flat = [element.decode() for element in array.ravel().tolist()]
    except UnicodeDecodeError:
        raise RequestRejected(f"input '{name}' holds an element that is not UTF-8") from None
    return np.array(flat, dtype=object).reshape(array.shape)


class OnnxBackend(InProcessBackend):
    def load(self, artifact: Path) -> OnnxRunner:
        return OnnxRunner(artifact)
