"""PyTorch models saved by `torch.export.save` (.pt2). The exported forward takes its inputs by name and returns a
dict of named tensors, so that the names are part of the artefact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backends.batching import Shapes
from backends.in_process import InProcessBackend, tensor_spec
from backends.tensors import ModelMetadata, TensorSpec


class TorchRunner:
    def __init__(self, artifact: Path) -> None:
        import torch

        self._torch = torch
        program = torch.export.load(str(artifact))
        self._module = program.module()
        signature = program.graph_signature
        names = program.call_spec.out_spec.context
        if program.call_spec.out_spec.type is not dict or len(names) != len(signature.user_outputs):
            raise ValueError("the exported forward must return a dict of named tensors")
        nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
        # An exported forward is called as it was exported: some inputs by position, some by keyword.
        by_keyword = list(program.call_spec.in_spec.child(1).context)
        by_position = len(signature.user_inputs) - len(by_keyword)
        self._positional, self._keyword = signature.user_inputs[:by_position], by_keyword
        inputs = {name: nodes[name] for name in signature.user_inputs}
        outputs = {name: nodes[node] for name, node in zip(names, signature.user_outputs, strict=True)}
        self.shapes: Shapes = [
            (name, [d if type(d) is int else str(d) for d in value.shape])
            for name, value in (*inputs.items(), *outputs.items())
        ]
        self.metadata = ModelMetadata(
            "pytorch_export",
            tuple(self._spec(name, value) for name, value in inputs.items()),
            tuple(self._spec(name, value) for name, value in outputs.items()),
        )

    def _spec(self, name: str, value: Any) -> TensorSpec:
        torch = self._torch
        datatypes = {
            torch.bool: "BOOL", torch.uint8: "UINT8", torch.int8: "INT8", torch.int16: "INT16",
            torch.int32: "INT32", torch.int64: "INT64", torch.float16: "FP16", torch.float32: "FP32",
            torch.float64: "FP64",
        }  # fmt: skip
        return tensor_spec(name, datatypes[value.dtype], [d if type(d) is int else "?" for d in value.shape])

    def run(self, inputs: Mapping[str, np.ndarray], /) -> Mapping[str, np.ndarray]:
        torch = self._torch
        with torch.inference_mode():
            # A copy, because the request's buffer is read-only and torch cannot promise to leave it alone.
            tensors = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
            positional = [tensors[name] for name in self._positional]
            outputs = self._module(*positional, **{name: tensors[name] for name in self._keyword})
            return {name: value.cpu().numpy() for name, value in outputs.items()}


class TorchBackend(InProcessBackend):
    def load(self, artifact: Path) -> TorchRunner:
        return TorchRunner(artifact)
