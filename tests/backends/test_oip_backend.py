"""The oip backend: one router in front of another, and in front of servers that misbehave."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.http as triton

from backends.oip_codec import HEADER_LENGTH, encode_request
from backends.tensors import InferRequest, Tensor
from tests.upstream import Answers, upstream

INNER = """
kind: Fleet
backends:
  - name: inner
    tier: edge
    region: jp
    protocol: onnx
    clearance: restricted
    models: {double: {task: sensor, artifact: double.onnx}, echo: {task: text, artifact: echo.onnx}}
"""
OUTER = """
kind: Fleet
backends:
  - name: plant
    tier: onprem
    region: jp
    protocol: oip
    url: ${URL}
    clearance: restricted
    models: {twice: {task: sensor, upstream: double}, text: {task: text, upstream: echo}}
    timeouts: {first_byte_s: 0.5, idle_s: 0.5}
  - name: spare
    tier: cloud
    region: jp
    protocol: fake
    clearance: restricted
    models: {twice: {task: sensor}}
    latency: {prior_ms: 5000}
"""


@pytest.fixture
def chain(start_router, onnx_models):
    inner = start_router(INNER, files=onnx_models)
    return start_router(OUTER, env={"URL": inner.url})


@pytest.mark.parametrize("binary", [True, False])
def test_a_tensor_goes_through_two_routers_and_comes_back(chain, binary):
    client = triton.InferenceServerClient(f"127.0.0.1:{chain.port}")
    x = np.array([[1.5, -2.0], [3.0, 4.0]], np.float32)
    given = triton.InferInput("x", x.shape, "FP32")
    given.set_data_from_numpy(x, binary_data=binary)
    wanted = triton.InferRequestedOutput("doubled", binary_data=binary)
    answer = client.infer("twice", [given], outputs=[wanted])
    np.testing.assert_array_equal(answer.as_numpy("doubled"), x * 2)
    assert answer.get_response()["model_name"] == "twice", "the name that the client used"
    client.close()


@pytest.mark.parametrize("binary", [True, False])
def test_japanese_strings_go_through(chain, binary):
    client = triton.InferenceServerClient(f"127.0.0.1:{chain.port}")
    words = np.array(["ポンプ", "", "社外秘 x"], dtype=object)
    given = triton.InferInput("x", words.shape, "BYTES")
    given.set_data_from_numpy(words, binary_data=binary)
    found = client.infer("text", [given]).as_numpy("y")
    assert [w.decode() if isinstance(w, bytes) else w for w in found] == list(words)
    client.close()


def test_metadata_comes_from_behind(chain):
    metadata = chain.call("GET", "/v2/models/twice").json()
    assert metadata["name"] == "twice"
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]


def test_a_wrong_shape_is_refused_in_the_words_of_the_model_that_knows(chain):
    parts, length = encode_request(InferRequest((Tensor.from_array("x", np.zeros((1, 3), np.float32)),)))
    headers = {HEADER_LENGTH: str(length), "content-type": "application/octet-stream"}
    reply = chain.call("POST", "/v2/models/twice/infer", b"".join(parts), headers)
    assert reply.status == 400
    assert "x" in reply.json()["error"]
    assert len(chain.backend("spare").calls) == 0


OCTETS = {"content-type": "application/octet-stream"}
FAULTS = {
    "not json": Answers(body=b"<html>"),
    "no outputs": Answers(body={"model_name": "x"}),
    "unknown datatype": Answers(body={"outputs": [{"name": "y", "datatype": "FP7", "shape": [1], "data": [1]}]}),
    "data and shape disagree": Answers(
        body={"outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [1]}]}
    ),
    "negative shape": Answers(body={"outputs": [{"name": "y", "datatype": "FP32", "shape": [-1], "data": [1]}]}),
    "header length is a word": Answers(body=b"{}", headers=OCTETS | {HEADER_LENGTH: "many"}),
    "header length beyond the body": Answers(body=b"{}", headers=OCTETS | {HEADER_LENGTH: "2000"}),
    "binary size beyond the body": Answers(
        body={"outputs": [{"name": "y", "datatype": "FP32", "shape": [9], "parameters": {"binary_data_size": 36}}]},
        headers=OCTETS,
    ),
    "500": Answers(status=500),
    "cut": Answers(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{"),
}


@pytest.mark.parametrize("answers", FAULTS.values(), ids=FAULTS)
def test_a_server_that_answers_rubbish_costs_an_attempt(start_router, answers):
    with upstream() as remote:
        remote.answers = answers
        router = start_router(OUTER, env={"URL": remote.url})
        inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]
        reply = router.call("POST", "/v2/models/twice/infer", {"inputs": inputs})
        assert (reply.status, reply.backend) == (200, "spare")
        assert remote.asked[0].path == "/v2/models/double/infer"
        failed = {outcome: router.count("pointsman_attempts_total", backend="plant", outcome=outcome)
                  for outcome in ("bad_answer", "failed")}  # fmt: skip
        assert sum(failed.values()) == 1
