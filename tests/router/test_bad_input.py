"""Bad input: a clear error in the client's protocol, no stack trace, no payload in it, and the server goes on."""

from __future__ import annotations

import json
import socket
import time

import numpy as np
import pytest

from backends.oip_codec import HEADER_LENGTH

CONFIG = """
kind: Fleet
backends:
  - name: edge
    tier: edge
    region: jp
    protocol: fake
    clearance: restricted
    models: {chat: {task: [chat, completion]}, vec: {task: embedding}, t: {task: sensor}}
"""
SECRET = "my-secret-payload-4711"


@pytest.fixture
def router(start_router):
    router = start_router(CONFIG, max_body_bytes=10_000)
    yield router
    assert router.chat().status == 200, "the server goes on"


def refused(router, reply, status, code="bad_request"):
    assert reply.status == status
    error = reply.json()["error"]
    message = error if isinstance(error, str) else error["message"]
    if not isinstance(error, str):
        assert error["code"] == code
        assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in reply.body.decode()
    assert SECRET not in reply.body.decode()
    assert message
    return message


CHAT = {"model": "chat", "messages": [{"role": "user", "content": SECRET}]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b'{"model": "chat", "messages": [' + SECRET.encode(), "not valid JSON"),
        (b'{"model": "chat"} trailing ' + SECRET.encode(), "not valid JSON (at byte 19)"),
        (b"[1, 2]", "must be a JSON object"),
        (b'"' + SECRET.encode() + b'"', "must be a JSON object"),
        (b'{"model": "\xff\xfe' + SECRET.encode() + b'"}', "not valid"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "over 10000 bytes"),
        (b"[" * 4500 + b"]" * 4500, "nested too deep"),
        (b'{"model": "chat", "temperature": NaN}', "not valid JSON"),
        (json.dumps({"messages": CHAT["messages"]}).encode(), "'model' is missing"),
        (json.dumps(CHAT | {"model": 7}).encode(), "'model' is missing or not text"),
        (json.dumps(CHAT | {"model": ""}).encode(), "'model' is missing"),
        (json.dumps(CHAT | {"messages": []}).encode(), "'messages' must be a list"),
        (json.dumps(CHAT | {"messages": SECRET}).encode(), "'messages' must be a list"),
        (json.dumps(CHAT | {"messages": [SECRET]}).encode(), "messages[0] must be an object with a 'role'"),
        (json.dumps(CHAT | {"messages": [{"role": "user", "content": 5}]}).encode(), "messages[0].content"),
        (json.dumps(CHAT | {"messages": [{"role": "user", "content": [SECRET]}]}).encode(), "part without a 'type'"),
        (json.dumps(CHAT | {"stream": SECRET}).encode(), "'stream' must be true or false"),
        (json.dumps(CHAT | {"max_tokens": -1}).encode(), "'max_tokens' must be a whole number from 1 to 2147483647"),
        (json.dumps(CHAT | {"max_tokens": True}).encode(), "'max_tokens' must be a whole number"),
    ],
)
def test_openai_bodies(router, body, says):
    reply = router.call("POST", "/v1/chat/completions", body)
    message = refused(
        router,
        reply,
        413 if "over" in says and "bytes" in says else 400,
        "too_large" if "over 10000" in says else "bad_request",
    )
    assert says in message


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/embeddings", {"model": "vec"}, "'input' must be text or a list"),
        ("/v1/embeddings", {"model": "vec", "input": []}, "'input' must be text or a list"),
        ("/v1/embeddings", {"model": "vec", "input": [{}]}, "neither text nor token ids"),
        ("/v1/embeddings", {"model": "vec", "input": "x", "stream": True}, "cannot be streamed"),
        ("/v1/completions", {"model": "chat", "prompt": None}, "'prompt' must be text or a list"),
    ],
)
def test_other_openai_paths(router, path, body, says):
    assert says in refused(router, router.call("POST", path, body), 400)


def test_unknown_model(router):
    reply = router.call("POST", "/v1/chat/completions", CHAT | {"model": "chta"})
    message = refused(router, reply, 404, "model_not_found")
    assert message == "no backend serves model 'chta' — models here: chat, t, vec"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"])
def test_wrong_content_type(router, content_type):
    reply = router.call("POST", "/v1/chat/completions", CHAT, {"content-type": content_type})
    assert "application/json" in refused(router, reply, 415, "unsupported_media_type")


def test_content_type_with_charset_is_fine(router):
    assert (
        router.call("POST", "/v1/chat/completions", CHAT, {"content-type": "Application/JSON; charset=utf-8"}).status
        == 200
    )


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-data-sensitivity", "secret"), ("x-data-sensitivity", ""), ("x-data-sensitivity", "Restricted"),
        ("x-slo-latency-ms", "soon"), ("x-slo-latency-ms", "-5"), ("x-slo-latency-ms", "nan"),
        ("x-slo-latency-ms", "inf"), ("x-slo-ttft-ms", "0"), ("x-usage", "a b"), ("x-usage", "x" * 65),
        ("x-request-id", "a b"), ("x-request-id", "x" * 200), ("x-no-fallback", "maybe"),
    ],
)  # fmt: skip
def test_unknown_header_values(router, header, value):
    reply = router.chat(headers={header: value})
    assert header in refused(router, reply, 400)
    assert reply.json()["error"]["param"] == header


def raw(router, data: bytes, *, finish: bool = True, wait: float = 5.0) -> bytes:
    """What the server says to these very bytes, until it closes or goes quiet."""
    with socket.create_connection(("127.0.0.1", router.port), timeout=wait) as sock:
        sock.sendall(data)
        if finish:
            sock.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while part := sock.recv(65536):
                said += part
        except (TimeoutError, ConnectionResetError):
            pass
        return said


def head(length: int, extra: str = "") -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{extra}"
        f"content-length: {length}\r\nconnection: close\r\n\r\n"
    ).encode()


def test_a_hint_given_twice_is_refused(router):
    body = json.dumps(CHAT).encode()
    twice = "x-data-sensitivity: restricted\r\nX-Data-Sensitivity: public\r\n"
    said = raw(router, head(len(body), twice) + body, finish=False)
    assert b"400 Bad Request" in said
    assert b"stands twice" in said


def test_an_oversized_body_is_refused_before_it_is_sent(router):
    said = raw(router, head(10_001), finish=False)
    assert b" 413 " in said
    assert b"over 10000 bytes" in said


def test_an_oversized_chunked_body_is_refused(router):
    chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n" + 12 * chunk
    )
    assert b" 413 " in raw(router, request, finish=False)


def test_a_body_cut_short_is_nobodys_error(router):
    raw(router, head(1000) + b'{"model": "chat"', finish=True, wait=1)
    deadline = time.monotonic() + 5
    while router.count("pointsman_requests_total", outcome="cancelled") < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert router.count("pointsman_requests_total", outcome="cancelled") == 1
    assert router.count("pointsman_in_flight") == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ],
)
def test_what_is_not_http(router, data):
    assert b" 400 " in raw(router, data, finish=False, wait=2)


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/v1/chat/completions", 405, "this path takes POST"),
        ("POST", "/v1/models", 405, "this path takes GET"),
        ("GET", "/v2/models/t/infer", 405, "this path takes POST"),
        ("GET", "/v1/nope", 404, "no such path"),
        ("GET", "/", 404, "no such path"),
        ("GET", "/v2/nope", 404, "no such path"),
        ("GET", "/v2/models/nope", 404, "no backend serves a tensor model"),
        ("GET", "/v1/models/nope", 404, "no backend serves a model of this name"),
    ],
)
def test_paths_and_methods(router, method, path, status, says):
    reply = router.call(method, path)
    assert reply.status == status
    error = reply.json()["error"]
    assert says in (error if isinstance(error, str) else error["message"])
    assert isinstance(error, str) is path.startswith("/v2")


TENSOR = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}


def infer(router, body, headers=None):
    return router.call("POST", "/v2/models/t/infer", body, headers)


def test_a_good_tensor_request_is_good(router):
    assert infer(router, {"inputs": [TENSOR]}).status == 200


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([], "'inputs' must be a list of at least one tensor"),
        ([SECRET], "inputs[0] has no name"),
        ([TENSOR | {"name": ""}], "inputs[0] has no name"),
        ([TENSOR, TENSOR], "inputs[1] has the name of another"),
        ([TENSOR | {"datatype": "FP31"}], "'datatype' must be one of"),
        ([TENSOR | {"shape": [-1]}], "'shape' must be a list of whole numbers, none negative"),
        ([TENSOR | {"shape": [1.5]}], "'shape' must be a list of whole numbers"),
        ([TENSOR | {"shape": [True, 2]}], "'shape' must be a list of whole numbers"),
        ([TENSOR | {"shape": [3]}], "'shape' means 3 elements, 'data' has 2"),
        ([TENSOR | {"shape": [10**30]}], "elements, 'data' has 2"),
        ([TENSOR | {"shape": [1] * 40}], "more than 32 dimensions"),
        ([TENSOR | {"data": [1.0, SECRET]}], "'data' holds values that are not FP32"),
        ([TENSOR | {"data": [[1.0], [2.0, 3.0]]}], "neither flat nor nested evenly"),
        ([TENSOR | {"data": [1e39, 0]}], "'data' holds values outside FP32"),
        ([TENSOR | {"data": [None, 1]}], "'data' holds values that are not FP32"),
        ([TENSOR | {"data": SECRET}], "has neither 'data' nor 'binary_data_size'"),
        ([TENSOR | {"datatype": "INT8", "data": [1, 300]}], "'data' holds values outside INT8"),
        ([TENSOR | {"datatype": "INT32", "data": [1.5, 2]}], "'data' holds values that are not INT32"),
        ([TENSOR | {"datatype": "BOOL", "data": [1, 0]}], "'data' holds values that are not BOOL"),
        ([TENSOR | {"datatype": "FP16"}], "FP16 has no JSON form"),
        ([TENSOR | {"datatype": "BYTES", "data": [SECRET, 5]}], "elements of BYTES must be text"),
        ([TENSOR | {"datatype": "BYTES", "data": [SECRET]}], "shape [2] means 2 elements, the data has 1"),
        ([TENSOR | {"parameters": {"shared_memory_region": "r"}}], "'shared_memory_region' is not supported"),
    ],
)
def test_tensors(router, inputs, says):
    assert says in refused(router, infer(router, {"inputs": inputs}), 400)


def test_nan_is_not_json(router):
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}'
    assert "not valid JSON" in refused(router, infer(router, body), 400)


def binary(shape, data, datatype="FP32", size=None):
    entry = {"name": "x", "datatype": datatype, "shape": shape}
    entry["parameters"] = {"binary_data_size": len(data) if size is None else size}
    header = json.dumps({"inputs": [entry]}).encode()
    return header + data, {HEADER_LENGTH: str(len(header)), "content-type": "application/octet-stream"}


@pytest.mark.parametrize(
    ("shape", "data", "datatype", "size", "says"),
    [
        ([2], b"\0" * 7, "FP32", None, "FP32 of shape [2] takes 8 bytes, the data has 7"),
        ([2], b"\0" * 8, "FP32", 9, "'binary_data_size' goes past the end"),
        ([2], b"\0" * 8, "FP32", -1, "'binary_data_size' goes past the end"),
        ([2], b"\0" * 12, "FP32", 8, "4 bytes of the body belong to no tensor"),
        ([1], b"\xff\xff\xff\xff" + SECRET.encode(), "BYTES", None, "BYTES data ends inside an element"),
        ([1], b"\x01\x00", "BYTES", None, "BYTES data ends inside a length"),
    ],
)
def test_binary_tensors(router, shape, data, datatype, size, says):
    body, headers = binary(shape, data, datatype, size)
    assert says in refused(router, infer(router, body, headers), 400)


@pytest.mark.parametrize("length", ["100000", "-1", "ten", "3"])
def test_a_wrong_header_length(router, length):
    body, headers = binary([1], np.zeros(1, np.float32).tobytes())
    refused(router, infer(router, body, headers | {HEADER_LENGTH: length}), 400)


def test_a_body_that_is_not_compressed_as_it_says(router):
    reply = infer(router, {"inputs": [TENSOR]}, {"content-encoding": "gzip"})
    assert "not gzip" in refused(router, reply, 400)
    reply = infer(router, {"inputs": [TENSOR]}, {"content-encoding": "zstd"})
    refused(router, reply, 415)


def test_every_one_of_them_is_counted(router):
    before = router.count("pointsman_requests_total", outcome="client_error")
    for body in (b"", b"{", b"[]"):
        router.call("POST", "/v1/chat/completions", body)
    assert router.count("pointsman_requests_total", outcome="client_error") == before + 3
