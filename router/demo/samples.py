"""What the demo's clients send: photographs, and windows of a simulated vibration sensor.

Nothing here needs torch, ONNX Runtime or the built models, so a client can import it in milliseconds.
The sensor's readings are simulated, not recorded; `windows` says exactly how, and the anomaly model is
trained on draws from the same function (with other seeds).
"""

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PHOTOS = {"chelsea": "chelsea.png", "coffee": "coffee.png"}
"""Photographs that ship inside the scikit-image wheel, by the name `photo` takes."""

CLASS_NAMES = {
    281: "tabby",
    282: "tiger cat",
    283: "Persian cat",
    284: "Siamese cat",
    285: "Egyptian cat",
    287: "lynx",
    504: "coffee mug",
    550: "espresso maker",
    925: "consomme",
    967: "espresso",
    968: "cup",
}
"""The few of ImageNet's 1,000 class names that the demo's photographs call for."""

CAT_CLASSES = frozenset({281, 282, 283, 284, 285})
"""ImageNet's domestic cats."""

IMAGE_SIZE = 224
WINDOW = 64
"""Readings in one sensor window."""

FAULTS = ("spikes", "drift", "burst", "flatline")


def photo(name: str = "chelsea") -> NDArray[np.float32]:
    """A photograph as the classifier wants it: FP32 [1, 3, 224, 224], RGB, (x - 127) / 128.

    The largest centred square, resized bicubically. scikit-image itself is not imported: only its data
    folder is wanted, and its dependencies are not installed.

    Raises KeyError for a name not in PHOTOS, FileNotFoundError where scikit-image is not installed.
    """
    from PIL import Image

    with Image.open(_photo_path(PHOTOS[name])) as file:
        picture = file.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    pixels = np.asarray(square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1)[None])


def sensor_window(faulty: bool, seed: int) -> NDArray[np.float32]:
    """One window of readings, FP32 [1, 64] in mm/s; the same arguments give the same window."""
    return windows(np.random.default_rng([seed, int(faulty)]), 1, faulty)


def windows(rng: np.random.Generator, count: int, faulty: bool) -> NDArray[np.float32]:
    """`count` windows of a bearing housing's vibration velocity, FP32 [count, 64] in mm/s.

    Healthy: a level of 4-5 mm/s, a rotation of 2.5-4.5 cycles per window (amplitude 0.8-1.2) with its
    second harmonic (0.2-0.4), and sensor noise (sigma 0.10-0.15). Faulty: the same plus one of FAULTS,
    equally likely.
    """
    healthy = _healthy(rng, count)
    if not faulty:
        return healthy.astype(np.float32)
    variants = np.stack([_FAULTS[fault](rng, healthy) for fault in FAULTS])
    chosen = rng.integers(len(FAULTS), size=count)
    return variants[chosen, np.arange(count)].astype(np.float32)


def _healthy(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    def per_window(low: float, high: float) -> NDArray[np.float64]:
        return np.asarray(rng.uniform(low, high, (count, 1)))

    angle = 2 * np.pi * per_window(2.5, 4.5) * np.arange(WINDOW) / WINDOW + per_window(0, 2 * np.pi)
    rotation = per_window(0.8, 1.2) * np.sin(angle)
    harmonic = per_window(0.2, 0.4) * np.sin(2 * angle + per_window(0, 2 * np.pi))
    noise = per_window(0.10, 0.15) * rng.standard_normal((count, WINDOW))
    return per_window(4.0, 5.0) + rotation + harmonic + noise


def _signs(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    return np.where(rng.random(shape) < 0.5, -1.0, 1.0)


def _spikes(rng: np.random.Generator, healthy: NDArray[np.float64]) -> NDArray[np.float64]:
    """One to three single readings thrown 2-4 mm/s off: a loose connector, an impact."""
    count = len(healthy)
    how_many = rng.integers(1, 4, (count, 1))
    rank = rng.random((count, WINDOW)).argsort(axis=1).argsort(axis=1)
    size = rng.uniform(2, 4, (count, WINDOW)) * _signs(rng, (count, WINDOW))
    return np.where(rank < how_many, healthy + size, healthy)


def _drift(rng: np.random.Generator, healthy: NDArray[np.float64]) -> NDArray[np.float64]:
    """A ramp from somewhere in the first half, 2-4 mm/s off at the end: a mounting coming loose."""
    count = len(healthy)
    start = rng.integers(0, WINDOW // 2, (count, 1))
    ramp = np.clip((np.arange(WINDOW) - start) / (WINDOW - 1 - start), 0, None)
    return healthy + ramp * rng.uniform(2, 4, (count, 1)) * _signs(rng, (count, 1))


def _burst(rng: np.random.Generator, healthy: NDArray[np.float64]) -> NDArray[np.float64]:
    """A high-frequency packet of 16-40 readings, as a chipped bearing rings when a ball passes the chip."""
    count = len(healthy)
    length = rng.integers(16, 41, (count, 1))
    start = rng.integers(0, WINDOW - length + 1)
    position = (np.arange(WINDOW) - start) / length
    envelope = np.where((position >= 0) & (position <= 1), np.sin(np.pi * position) ** 2, 0)
    ringing = np.sin(2 * np.pi * rng.uniform(0.30, 0.45, (count, 1)) * np.arange(WINDOW))
    return healthy + rng.uniform(0.8, 1.6, (count, 1)) * envelope * ringing


def _flatline(rng: np.random.Generator, healthy: NDArray[np.float64]) -> NDArray[np.float64]:
    """The last 24 readings or more repeat one value, give or take 0.01 mm/s: a stuck sensor."""
    start = rng.integers(0, WINDOW - 23, (len(healthy), 1))
    stuck = np.take_along_axis(healthy, start, axis=1) + 0.01 * rng.standard_normal(healthy.shape)
    return np.where(np.arange(WINDOW) >= start, stuck, healthy)


_FAULTS = {"spikes": _spikes, "drift": _drift, "burst": _burst, "flatline": _flatline}


def _photo_path(file: str) -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("the demo's photographs come with scikit-image: run `make setup`")
    return Path(found.submodule_search_locations[0]) / "data" / file
