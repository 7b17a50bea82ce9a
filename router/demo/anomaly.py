"""Trains the demo's sensor-anomaly model.

What it is: a 1-D convolutional classifier of about 4,400 parameters, trained for a few seconds on windows
drawn from `samples.windows` to tell healthy ones from those with one of four faults (spikes, drift, bursts,
a flat line). Readings are normalised inside the model with the training set's mean and deviation, so a
client sends raw mm/s.

What it is not: a detector of novelty (a fault unlike those four may well score low), nor fit for a real
machine: it has seen simulated readings only. It is in the demo because it is small, fast and right on what
it was trained for, as a plant's edge model would be.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.demo.onnxfile import run_onnx, write_onnx
from router.demo.samples import WINDOW, windows

# Three numbers each, where samples.sensor_window seeds with two: the streams cannot meet.
_TRAIN_SEED = (2024, 1, 1)
_HELD_OUT_SEED = (2024, 2, 2)
_MINIMUM_AUC = 0.95


def make_anomaly(path: Path) -> dict[str, float]:
    """Train the model, write it to `path` as ONNX and check the file.

    Input `window` FP32 [batch, 64] in mm/s; output `score` FP32 [batch, 1] in [0, 1], higher is more
    anomalous. What is measured is the written file, run by ONNX Runtime on held-out windows. Returns its
    metrics; raises RuntimeError where the AUC is 0.95 or less.
    """
    model = _train(*_labelled(_TRAIN_SEED, 8_000))
    write_onnx(model, (WINDOW,), path, "window", "score")
    readings, faulty = _labelled(_HELD_OUT_SEED, 2_000)
    score = run_onnx(path, readings)[:, 0]
    auc = area_under_curve(score, faulty)
    if auc <= _MINIMUM_AUC:
        raise RuntimeError(f"the anomaly model did not learn: AUC {auc:.3f} on held-out windows")
    return {"auc": round(auc, 4), "accuracy_at_half": round(float(np.mean((score > 0.5) == faulty)), 4)}


def area_under_curve(score: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive outscores a negative; a tie counts half."""
    negatives = np.sort(score[~positive])
    below = np.searchsorted(negatives, score[positive], side="left")
    not_above = np.searchsorted(negatives, score[positive], side="right")
    return float(np.mean((below + not_above) / 2) / len(negatives))


def _labelled(seed: tuple[int, ...], each: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """`each` healthy and `each` faulty windows, FP32 [2 * each, 64]; which are faulty, bool [2 * each]."""
    rng = np.random.default_rng(seed)
    return np.concatenate([windows(rng, each, False), windows(rng, each, True)]), np.arange(2 * each) >= each


def _train(readings: NDArray[np.float32], faulty: NDArray[np.bool_]) -> Any:
    import torch
    from torch import nn

    class Anomaly(nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self, mean: float, deviation: float) -> None:
            super().__init__()
            self.register_buffer("mean", torch.tensor(mean))
            self.register_buffer("deviation", torch.tensor(deviation))
            self.features = nn.Sequential(
                nn.Conv1d(2, 16, 5, padding=2),
                nn.ReLU(),
                nn.Conv1d(16, 32, 5, stride=2, padding=2),
                nn.ReLU(),
                nn.Conv1d(32, 16, 3, stride=2, padding=1),
            )
            self.head = nn.Linear(3 * 16, 1)

        def logits(self, window: torch.Tensor) -> torch.Tensor:
            level = ((window - self.mean) / self.deviation).unsqueeze(1)
            # The step from one reading to the next shows spikes, bursts and a stuck sensor at once.
            step = torch.nn.functional.pad(level[:, :, 1:] - level[:, :, :-1], (1, 0))
            found = self.features(torch.cat([level, step], dim=1))
            return self.head(torch.cat([found.mean(2), found.amax(2), found.amin(2)], dim=1))

        def forward(self, window: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(self.logits(window))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_TRAIN_SEED[0])
        healthy = readings[~faulty]
        model = Anomaly(float(healthy.mean()), float(healthy.std()))
        x, y = torch.from_numpy(readings), torch.from_numpy(faulty.astype(np.float32))[:, None]
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(6):
            for chosen in torch.randperm(len(x)).split(256):
                loss = nn.functional.binary_cross_entropy_with_logits(model.logits(x[chosen]), y[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return model.eval()
