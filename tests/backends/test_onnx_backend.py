"""The onnx backend by itself: what it refuses, what it makes of a model that fails, many requests at once, also as one,
and how it uses the machine."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from conftest import compile_text
from onnx import TensorProto, helper

from backends.batching import why_not
from backends.calls import Call
from backends.cpus import Threads
from backends.errors import Failed, RequestRejected, Unsuited
from backends.onnx import OnnxBackend, OnnxRunner
from backends.tensors import InferRequest, RequestedOutput, Tensor


def backend(folder, *, batching="", **models):
    """Not started yet. `models` are file names."""
    more = f", batching: {batching}" if batching else ""
    entries = ", ".join(f"{name}: {{task: x, artifact: {file}{more}}}" for name, file in models.items())
    fleet = f"""
    kind: Fleet
    backends:
      - {{name: edge, tier: edge, region: jp, protocol: onnx, models: {{{entries}}}, limits: {{max_in_flight: 8}}}}
    """
    return OnnxBackend(compile_text(fleet).fleet.backends[0], folder)


def infer(model, array, name="x", *, outputs=()):
    request = InferRequest((Tensor.from_array(name, array),), tuple(RequestedOutput(o, True) for o in outputs))
    return Call(model, "", infer=request)


def send(found, *calls):
    async def main():
        await found.start()
        try:
            return await asyncio.gather(*(found.send(call) for call in calls))
        finally:
            await found.aclose()

    return asyncio.run(main())


def save(folder, name, node, inputs, outputs):
    graph = helper.make_graph(
        [node],
        name,
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / f"{name}.onnx")


ONES = np.ones((1, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (infer("double", ONES.astype(np.float64)), "input 'x' must be FP32, not FP64"),
        (infer("double", np.ones((1, 3), np.float32)), r"input 'x' must have shape \[-1, 2\], not \[1, 3\]"),
        (infer("double", np.ones(2, np.float32)), r"input 'x' must have shape \[-1, 2\], not \[2\]"),
        (infer("double", ONES, "y"), "model double takes the inputs 'x'; the request has 'y'"),
        (infer("double", ONES, outputs=["tripled"]), "model double has no output 'tripled'; it has 'doubled'"),
        (infer("echo", np.array([b"\xff\xfe"], dtype=object)), "input 'x' holds an element that is not UTF-8"),
    ],
)
def test_a_request_that_does_not_fit_the_model_is_rejected_in_words(onnx_models, call, says):
    with pytest.raises(RequestRejected, match=says):
        send(backend(onnx_models, double="double.onnx", echo="echo.onnx"), call)


def test_many_requests_at_once_each_get_their_own_answer(onnx_models):
    calls = [infer("double", np.full((1, 2), i, np.float32)) for i in range(200)]
    answers = send(backend(onnx_models, double="double.onnx"), *calls)
    assert [float(a.infer.outputs[0].array()[0, 0]) for a in answers] == [2.0 * i for i in range(200)]


def test_a_model_that_fails_says_nothing_of_the_values_it_failed_on(tmp_path, capfd, caplog):
    data, indices, y = ("data", TensorProto.FLOAT, [2]), ("x", TensorProto.INT64, [1]), ("y", TensorProto.FLOAT, [1])
    save(tmp_path, "pick", helper.make_node("Gather", ["data", "x"], ["y"]), [data, indices], [y])
    given = [Tensor.from_array("data", np.ones(2, np.float32)), Tensor.from_array("x", np.array([987654321]))]
    with pytest.raises(Unsuited) as error:
        send(backend(tmp_path, pick="pick.onnx"), Call("pick", "", infer=InferRequest(tuple(given))))
    assert str(error.value).startswith("edge: running pick failed (")
    out, err = capfd.readouterr()
    for told in (str(error.value), out, err, caplog.text):
        assert "987654321" not in told


def test_requests_that_a_model_fails_on_do_not_take_it_away_from_others(start_router, tmp_path):
    data, indices, y = ("data", TensorProto.FLOAT, [2]), ("x", TensorProto.INT64, [1]), ("y", TensorProto.FLOAT, [1])
    save(tmp_path, "pick", helper.make_node("Gather", ["data", "x"], ["y"]), [data, indices], [y])
    fleet = """
    kind: Fleet
    backends: [{name: edge, tier: edge, region: jp, protocol: onnx, models: {pick: {task: x, artifact: pick.onnx}}}]
    ---
    kind: Policy
    sensitivity: {default: public}
    """
    router = start_router(fleet)

    def pick(index):
        inputs = [
            {"name": "data", "datatype": "FP32", "shape": [2], "data": [5, 6]},
            {"name": "x", "datatype": "INT64", "shape": [1], "data": [index]},
        ]
        return router.call("POST", "/v2/models/pick/infer", {"inputs": inputs}).status

    assert [pick(9) for _ in range(10)] == [502] * 10
    assert pick(1) == 200


def test_a_file_that_is_no_model_and_one_that_the_protocol_cannot_carry_stop_the_start(tmp_path):
    (tmp_path / "text.onnx").write_text("this is no model")
    save(
        tmp_path, "odd", helper.make_node("Identity", ["x"], ["y"]),
        [("x", TensorProto.BFLOAT16, [1])], [("y", TensorProto.BFLOAT16, [1])],
    )  # fmt: skip
    for name, says in (("text", "edge: cannot load .*text.onnx"), ("odd", r"'x' is of type tensor\(bfloat16\)")):
        with pytest.raises(Failed, match=says):
            send(backend(tmp_path, **{name: f"{name}.onnx"}))


# --- run as one ---------------------------------------------------------------------------------------------------

BATCHING = "{max_size: 16, max_wait_ms: 1}"


def test_requests_run_as_one_each_get_their_own_answer(onnx_models):
    numbers = [infer("double", np.full((1 + i % 3, 2), i, np.float32)) for i in range(60)]
    texts = [infer("echo", np.array([f"{i} 社".encode()] * (i % 4), dtype=object)) for i in range(60)]
    found = backend(onnx_models, batching=BATCHING, double="double.onnx", echo="echo.onnx")
    runs = []
    load = found.load

    def counting(artifact):
        runner = load(artifact)
        run = runner.run
        runner.run = lambda inputs: runs.append(artifact.stem) or run(inputs)
        return runner

    found.load = counting
    answers = send(found, *(call for pair in zip(numbers, texts, strict=True) for call in pair))
    for i, (number, text) in enumerate(zip(answers[::2], answers[1::2], strict=True)):
        np.testing.assert_array_equal(number.infer.outputs[0].array(), np.full((1 + i % 3, 2), 2.0 * i))
        assert text.infer.outputs[0].array().tolist() == [f"{i} 社".encode()] * (i % 4)
    assert runs.count("double") < 60
    assert runs.count("echo") < 60


def test_one_text_that_is_none_fails_by_itself(onnx_models):
    texts = [infer("echo", np.array([text], dtype=object)) for text in (b"one", b"\xff", b"two")]

    async def main():
        await found.start()
        try:
            return await asyncio.gather(*(found.send(call) for call in texts), return_exceptions=True)
        finally:
            await found.aclose()

    found = backend(onnx_models, batching=BATCHING, echo="echo.onnx")
    one, bad, two = asyncio.run(main())
    assert isinstance(bad, RequestRejected)
    assert [answer.infer.outputs[0].array().tolist() for answer in (one, two)] == [[b"one"], [b"two"]]


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ([1, 2], [1, 2], "model m cannot be batched: the first dimension of 'x' is fixed"),
        (["n"], ["found"], "are not the same one, but 'found', 'n'"),
    ],
)
def test_a_model_that_cannot_be_batched_stops_the_start(tmp_path, x, y, says):
    node = helper.make_node("Identity" if len(x) == 2 else "Unique", ["x"], ["y"])
    save(tmp_path, "m", node, [("x", TensorProto.FLOAT, x)], [("y", TensorProto.FLOAT, y)])
    with pytest.raises(Failed, match=says):
        send(backend(tmp_path, batching=BATCHING, m="m.onnx"))
    send(backend(tmp_path, m="m.onnx"))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ((["n", 3], ["n"]), None),
        (([None, 3], [None, "m"]), None),
        (([1, 3], ["n"]), "the first dimension of 'v' is fixed"),
        ((["n", 3], [4, 3]), "the first dimension of 'v' is fixed"),
        ((["n", 3], []), "the first dimension of 'v' is fixed"),
        ((["n", 3], ["found", 6]), "are not the same one, but 'found', 'n'"),
        ((["n", 3], [None, 6]), "are not the same one, but 'n', one without a name"),
    ],
)
def test_which_models_can_be_batched(shapes, says):
    reason = why_not([("v", shape) for shape in shapes])
    assert reason is None if says is None else says in reason


def test_through_the_router(start_router, onnx_models):
    fleet = f"""
    kind: Fleet
    backends:
      - {{name: edge, tier: edge, region: jp, protocol: onnx,
         models: {{double: {{task: x, artifact: double.onnx, batching: {BATCHING}}}}}}}
    ---
    kind: Policy
    sensitivity: {{default: public}}
    """
    router = start_router(fleet, files=onnx_models)

    def ask(i):
        inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [i, i]}]
        return router.call("POST", "/v2/models/double/infer", {"inputs": inputs}).json()["outputs"][0]["data"]

    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(ask, range(40))) == [[2.0 * i, 2.0 * i] for i in range(40)]


# --- the machine --------------------------------------------------------------------------------------------------


def test_threads_are_those_that_the_machine_has_for_us(onnx_models, monkeypatch):
    monkeypatch.setattr("backends.in_process.usable_cpus", lambda: 17)
    found = backend(onnx_models, double="double.onnx")
    assert found.threads == Threads(8, 2)
    options = found.load(onnx_models / "double.onnx")._session.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_by_itself_a_run_takes_one_thread(onnx_models):
    options = OnnxRunner(onnx_models / "double.onnx")._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
