"""The demo's models: what they answer, and that building them is repeatable and safe to interrupt."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.demo import assets, samples
from router.demo.anomaly import area_under_curve


@pytest.fixture(scope="session")
def models() -> Path:
    """The demo's own folder: built once per checkout, then only looked at."""
    return assets.build(assets.DEFAULT_FOLDER, lambda line: None)


@pytest.fixture(scope="module")
def onnx_classifier(models: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(str(models / "classifier.onnx"), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def torch_classifier(models: Path) -> Any:
    torch = pytest.importorskip("torch")
    return torch.export.load(models / "classifier.pt2").module()


def _by_torch(program: Any, image: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        answer = program(torch.from_numpy(image))
    assert list(answer) == ["probabilities"]
    return answer["probabilities"].numpy()


@pytest.mark.models
def test_both_formats_call_the_cat_a_cat(onnx_classifier: Any, torch_classifier: Any) -> None:
    image = samples.photo("chelsea")
    (by_onnx,) = onnx_classifier.run(["probabilities"], {"image": image})
    by_torch = _by_torch(torch_classifier, image)
    assert by_onnx.shape == by_torch.shape == (1, 1000)
    assert by_onnx[0].argmax() == by_torch[0].argmax() == 285
    assert by_onnx[0, sorted(samples.CAT_CLASSES)].sum() > 0.6
    np.testing.assert_allclose(by_onnx, by_torch, atol=1e-4)


@pytest.mark.models
def test_a_batch_answers_as_its_parts_do(onnx_classifier: Any, torch_classifier: Any) -> None:
    batch = np.concatenate([samples.photo("coffee"), samples.photo("chelsea"), samples.photo("coffee")])
    (by_onnx,) = onnx_classifier.run(None, {"image": batch})
    by_torch = _by_torch(torch_classifier, batch)
    assert by_onnx.argmax(axis=1).tolist() == by_torch.argmax(axis=1).tolist() == [967, 285, 967]
    np.testing.assert_allclose(by_onnx.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(by_torch[1:2], _by_torch(torch_classifier, samples.photo()), atol=1e-5)


def test_a_photo_is_what_the_classifier_takes() -> None:
    image = samples.photo()
    assert image.shape == (1, 3, 224, 224)
    assert image.dtype == np.float32
    assert -127 / 128 <= image.min() < image.max() <= 1
    assert {285, 967} <= set(samples.CLASS_NAMES)
    with pytest.raises(KeyError):
        samples.photo("no-such-photo")


@pytest.mark.models
def test_the_score_separates_faulty_from_healthy(models: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(models / "anomaly.onnx"), providers=["CPUExecutionProvider"])

    def scores(faulty: bool) -> np.ndarray:
        batch = np.concatenate([samples.sensor_window(faulty, seed) for seed in range(50)])
        (score,) = session.run(["score"], {"window": batch})
        assert score.shape == (50, 1)
        assert score.min() >= 0
        assert score.max() <= 1
        return score[:, 0]

    healthy, faulty = scores(False), scores(True)
    assert (healthy < 0.5).all()
    assert (faulty > 0.5).mean() >= 0.96
    both = np.concatenate([healthy, faulty])
    assert area_under_curve(both, np.arange(100) >= 50) > 0.99
    metrics = json.loads((models / assets.MANIFEST).read_text())["artifacts"]["anomaly.onnx"]["checks"]
    assert metrics["auc"] > 0.95


def test_a_sensor_window_is_repeatable() -> None:
    window = samples.sensor_window(True, 7)
    assert window.shape == (1, 64)
    assert window.dtype == np.float32
    np.testing.assert_array_equal(window, samples.sensor_window(True, 7))
    assert not np.array_equal(window, samples.sensor_window(True, 8))
    assert not np.array_equal(window, samples.sensor_window(False, 7))


def test_the_area_under_the_curve() -> None:
    positive = np.array([False, False, True, True])
    assert area_under_curve(np.array([0.1, 0.2, 0.3, 0.4], np.float32), positive) == 1
    assert area_under_curve(np.array([0.4, 0.3, 0.2, 0.1], np.float32), positive) == 0
    assert area_under_curve(np.array([0.5, 0.5, 0.5, 0.5], np.float32), positive) == 0.5


@pytest.mark.models
def test_a_second_build_does_nothing(models: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in models.iterdir() if not file.name.startswith(".")}
    assert set(before) == {"classifier.onnx", "classifier.pt2", "anomaly.onnx", "manifest.json"}
    said: list[str] = []
    assert assets.build(models, said.append) == models
    assert said == []
    assert {name: (models / name).stat().st_mtime_ns for name in before} == before


# From here on the models are stand-ins: what is tested is the building.


def _writes(content: bytes) -> Any:
    def make(path: Path) -> dict[str, float]:
        path.write_bytes(content)
        return {"size": len(content)}

    return make


def _stand_ins(monkeypatch: pytest.MonkeyPatch, **makers: Any) -> None:
    made = tuple(assets.Artifact(name, make) for name, make in makers.items())
    monkeypatch.setattr(assets, "ARTIFACTS", made)


def test_a_damaged_or_missing_file_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_ins(monkeypatch, one=_writes(b"1"), two=_writes(b"2"))
    assets.build(tmp_path, lambda line: None)
    for damage in (
        lambda: (tmp_path / "one").write_bytes(b"x"),
        lambda: (tmp_path / "two").unlink(),
        lambda: (tmp_path / "manifest.json").write_text('{"inputs"'),
        lambda: (tmp_path / "manifest.json").write_text("[]"),
    ):
        damage()
        said: list[str] = []
        assets.build(tmp_path, said.append)
        assert said[:2] == ["building one", "building two"]
        assert ((tmp_path / "one").read_bytes(), (tmp_path / "two").read_bytes()) == (b"1", b"2")


def test_other_inputs_are_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_ins(monkeypatch, one=_writes(b"old"))
    assets.build(tmp_path, lambda line: None)
    monkeypatch.setattr(assets.importlib.metadata, "version", lambda name: "999")
    _stand_ins(monkeypatch, one=_writes(b"new"))
    assets.build(tmp_path, lambda line: None)
    assert (tmp_path / "one").read_bytes() == b"new"


def test_a_failed_build_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> dict[str, float]:
        path.write_bytes(b"half")
        raise RuntimeError("it did not learn\nwith details")

    _stand_ins(monkeypatch, one=_writes(b"good"))
    assets.build(tmp_path, lambda line: None)
    _stand_ins(monkeypatch, one=_writes(b"newer"), two=fails)
    with pytest.raises(assets.AssetError, match=r"^could not build two: it did not learn$"):
        assets.build(tmp_path, lambda line: None)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock", "manifest.json", "one"]
    assert (tmp_path / "one").read_bytes() == b"good"


def test_a_killed_build_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = """
import sys, time
from pathlib import Path
from router.demo import assets

def make(path):
    path.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)

assets.ARTIFACTS = (assets.Artifact("one", make),)
assets.build(Path(sys.argv[1]), lambda line: None)
"""
    with subprocess.Popen([sys.executable, "-c", hangs, str(tmp_path)], stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"writing\n"
        builder.send_signal(signal.SIGKILL)
    assert not (tmp_path / "one").exists()
    assert list(tmp_path.glob(".building-*"))
    _stand_ins(monkeypatch, one=_writes(b"whole"))
    assets.build(tmp_path, lambda line: None)
    assert (tmp_path / "one").read_bytes() == b"whole"
    assert not list(tmp_path.glob(".building-*"))


def test_two_builds_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: Path) -> dict[str, float]:
        time.sleep(0.3)
        path.write_bytes(b"1")
        return {}

    _stand_ins(monkeypatch, one=slow)
    said: list[str] = []
    builders = [threading.Thread(target=assets.build, args=(tmp_path, said.append)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert said.count("building one") == 1
    assert said.count(f"waiting for another build of {tmp_path}") == 1


def test_a_missing_package_is_one_line_of_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(assets._NEEDED, "no_such_module", "no-such-package")
    assert assets.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: the demo needs no-such-package: run `make setup`\n"
