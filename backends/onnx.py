"""ONNX models by ONNX Runtime, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.batching import Shapes
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
    """Each run takes `threads` threads."""

    def __init__(self, artifact: Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        if threads > 1:
            # The threads of a session would look for work in a loop after each run, and take the CPU from other
            # models and from the event loop.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what fails is raised; its own lines on stderr can show a request's values
        self._session = onnxruntime.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._outputs = [o.name for o in outputs]
        self.shapes: Shapes = [(value.name, value.shape) for value in (*inputs, *outputs)]
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
        return OnnxRunner(artifact, self.threads.each)
