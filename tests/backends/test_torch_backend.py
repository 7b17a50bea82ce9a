"""PyTorch artefacts: names, shapes and calling convention come from the exported program."""

from __future__ import annotations

import numpy as np
import pytest

from backends.torch import TorchRunner

torch = pytest.importorskip("torch")


class Affine(torch.nn.Module):
    def forward(self, x, *, scale):
        return {"y": x * scale, "total": x.sum(dim=1).to(torch.int64)}


class Nameless(torch.nn.Module):
    def forward(self, x):
        return x * 2


def export(module, args, kwargs, dynamic, path):
    program = torch.export.export(module.eval(), args, kwargs, dynamic_shapes=dynamic)
    torch.export.save(program, str(path))
    return path


def test_inputs_by_position_and_by_keyword_with_named_outputs(tmp_path):
    batch = torch.export.Dim("batch", min=1, max=8)
    path = export(
        Affine(), (torch.ones(2, 3),), {"scale": torch.ones(1)}, {"x": {0: batch}, "scale": {}}, tmp_path / "m.pt2"
    )
    runner = TorchRunner(path)
    assert [(t.name, t.datatype, t.shape) for t in runner.metadata.inputs] == [
        ("x", "FP32", (-1, 3)),
        ("scale", "FP32", (1,)),
    ]
    assert [(t.name, t.datatype, t.shape) for t in runner.metadata.outputs] == [
        ("y", "FP32", (-1, 3)),
        ("total", "INT64", (-1,)),
    ]
    (x, rows), (_, scale), (_, y), (_, total) = runner.shapes
    assert (x, rows[1:], scale) == ("x", [3], [1])
    assert rows[0] == y[0] == total[0] != scale[0]  # by the exporter's name for it
    given = {"scale": np.array([2], np.float32), "x": np.arange(9, dtype=np.float32).reshape(3, 3)}
    outputs = runner.run(given)
    np.testing.assert_array_equal(outputs["y"], given["x"] * 2)
    np.testing.assert_array_equal(outputs["total"], [3, 12, 21])


def test_outputs_without_names_are_refused(tmp_path):
    path = export(Nameless(), (torch.ones(2),), {}, None, tmp_path / "m.pt2")
    with pytest.raises(ValueError, match="dict of named tensors"):
        TorchRunner(path)
