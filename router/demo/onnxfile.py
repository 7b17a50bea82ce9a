"""Writing a torch module as ONNX and running the file: what both of the demo's exporters need."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_onnx(model: Any, shape: tuple[int, ...], path: Path, input_name: str, output_name: str) -> None:
    """Write `model` to `path`; it takes FP32 [batch, *shape], and its output's first axis is the batch."""
    import torch

    with warnings.catch_warnings():
        # This exporter announces its retirement; its successor needs a package the demo does without.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, *shape),),
            str(path),
            input_names=[input_name],
            output_names=[output_name],
            dynamic_axes={input_name: {0: "batch"}, output_name: {0: "batch"}},
            dynamo=False,
        )


def run_onnx(path: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's only output for its only input, computed on the CPU by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: batch})
    return np.asarray(output, dtype=np.float32)
