"""The real `tritonclient[http]`, unchanged, against a router with a real ONNX model."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.http as triton

CONFIG = """
kind: Fleet
backends:
  - name: edge
    tier: edge
    region: jp
    protocol: onnx
    models:
      double: {task: arithmetic, artifact: double.onnx}
      nan: {task: arithmetic, artifact: nan.onnx}
      echo: {task: text, artifact: echo.onnx}
---
kind: Policy
sensitivity:
  default: public
  detectors: [{use: keywords, words: [社外秘], label: restricted}]
"""


@pytest.fixture
def router(start_router, onnx_models):
    return start_router(CONFIG, files=onnx_models, max_body_bytes=100_000)


@pytest.fixture
def client(router):
    client = triton.InferenceServerClient(f"127.0.0.1:{router.port}")
    yield client
    client.close()


def given(array, datatype="FP32", binary=True, name="x"):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


X = np.array([[1, 2], [3, 4.5]], np.float32)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_infer_binary_and_json(client, binary_in, binary_out):
    output = triton.InferRequestedOutput("doubled", binary_data=binary_out)
    result = client.infer("double", [given(X, binary=binary_in)], outputs=[output], request_id="abc")
    np.testing.assert_array_equal(result.as_numpy("doubled"), 2 * X)
    response = result.get_response()
    assert (response["model_name"], response["id"]) == ("double", "abc")


def test_infer_without_naming_outputs(client):
    np.testing.assert_array_equal(client.infer("double", [given(X)]).as_numpy("doubled"), 2 * X)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_requests(client, encoding):
    result = client.infer("double", [given(X)], request_compression_algorithm=encoding)
    np.testing.assert_array_equal(result.as_numpy("doubled"), 2 * X)


def test_a_compressed_body_is_measured_unpacked(client):
    big = np.zeros((20_000, 2), np.float32)
    with pytest.raises(triton.InferenceServerException, match="unpacks to more than 100000 bytes"):
        client.infer("double", [given(big)], request_compression_algorithm="gzip")


@pytest.mark.parametrize("binary", [True, False])
def test_strings(client, binary):
    words = np.array(["東京", "", "a\nb"], dtype=object)
    result = client.infer("echo", [given(words, "BYTES", binary)])
    assert [word.decode() for word in result.as_numpy("y")] == words.tolist()


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "pointsman"
    metadata = client.get_model_metadata("double")
    assert metadata["platform"] == "onnxruntime_onnx"
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert metadata["outputs"] == [{"name": "doubled", "datatype": "FP32", "shape": [-1, 2]}]


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (given(X.astype(np.float64), "FP64"), "input 'x' must be FP32, not FP64"),
        (given(np.zeros((2, 3), np.float32)), r"input 'x' must have shape \[-1, 2\], not \[2, 3\]"),
        (given(X, name="y"), "model double takes the inputs 'x'; the request has 'y'"),
    ],
)
def test_wrong_dtype_shape_and_name(client, tensor, says):
    with pytest.raises(triton.InferenceServerException, match=says) as error:
        client.infer("double", [tensor])
    assert error.value.status() == "400"


def test_unknown_model_and_output(client):
    with pytest.raises(triton.InferenceServerException, match="no backend serves model") as error:
        client.infer("nope", [given(X)])
    assert error.value.status() == "404"
    with pytest.raises(triton.InferenceServerException, match="has no output 'z'; it has 'doubled'"):
        client.infer("double", [given(X)], outputs=[triton.InferRequestedOutput("z")])


def test_nan_travels_binary_and_is_an_error_in_json(client):
    output = triton.InferRequestedOutput("y", binary_data=True)
    assert np.isnan(client.infer("nan", [given(0 * X)], outputs=[output]).as_numpy("y")).all()
    with pytest.raises(triton.InferenceServerException, match="NaN or infinity, which JSON cannot"):
        client.infer("nan", [given(0 * X)], outputs=[triton.InferRequestedOutput("y", binary_data=False)])


def test_text_in_tensors_is_scanned(client, router):
    words = np.array(["この資料は社外秘です"], dtype=object)
    with pytest.raises(triton.InferenceServerException, match="label restricted is above its clearance") as error:
        client.infer("echo", [given(words, "BYTES")])
    assert error.value.status() == "403"
    assert "社外秘" not in str(error.value)
    not_text = np.array([b"\xff\xfe"], dtype=object)
    with pytest.raises(triton.InferenceServerException, match="label restricted"):
        client.infer("echo", [given(not_text, "BYTES")])
    assert router.count("pointsman_rejections_total", backend="edge", filter="clearance") == 2


def test_an_id_is_scanned_like_everything_that_leaves(client):
    with pytest.raises(triton.InferenceServerException, match="label restricted"):
        client.infer("double", [given(X)], request_id="社外秘")
