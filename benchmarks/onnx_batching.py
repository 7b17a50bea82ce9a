"""ONNX models in process: what our side adds to ONNX Runtime's own time, and what running requests as one brings.

Run: .venv/bin/python -m benchmarks.onnx_batching (40 s), or with --quick (ten, without the classifier). No HTTP: so
many clients, each a coroutine, call the backend in one process, on the loop that the router uses; each sends its next
request when it has its answer. What is compared runs in turns, so that a slow moment of the machine hits all.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import uvloop
from onnx import TensorProto, helper, numpy_helper

from backends.calls import Call
from backends.cpus import usable_cpus
from backends.onnx import OnnxBackend
from backends.tensors import InferRequest, Tensor
from policies.schema import Backend

CONCURRENCY = (1, 16, 64)
ROUNDS = 3
DEMO_CLASSIFIER = Path(__file__).parents[1] / "configs" / "demo" / "models" / "classifier.onnx"
WIDTHS = (512, 1024, 1024, 512, 100)


@dataclass(frozen=True)
class Subject:
    """A model to be measured, with one input of one row."""

    name: str
    path: Path
    input: str
    row: tuple[int, ...]
    max_size: int

    def batch(self, rows: int) -> np.ndarray:
        return np.random.default_rng(rows).normal(size=(rows, *self.row)).astype(np.float32)

    def backends(self) -> dict[str, OnnxBackend]:
        """The same model without batching, with it, and with it and a wait."""
        ways: Mapping[str, Any] = {
            "plain": None,
            "batched": {"max_size": self.max_size},
            "batched_wait": {"max_size": self.max_size, "max_wait_ms": 2},
        }
        return {way: self._backend(batching) for way, batching in ways.items()}

    def _backend(self, batching: Any) -> OnnxBackend:
        model = {"task": "x", "artifact": self.path.name, "batching": batching}
        entry = {"name": "edge", "tier": "edge", "region": "x", "protocol": "onnx", "models": {self.name: model}}
        return OnnxBackend(Backend.model_validate(entry), self.path.parent)


def perceptron(path: Path) -> Path:
    """2.2 million weights in four layers: what takes the time is to read them, once for any number of rows."""
    rng, nodes, weights, last = np.random.default_rng(1), [], [], "x"
    for i, (wide, narrow) in enumerate(itertools.pairwise(WIDTHS)):
        layer = (rng.normal(size=(wide, narrow)) / wide**0.5).astype(np.float32)
        weights += [
            numpy_helper.from_array(layer, f"w{i}"),
            numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{i}"),
        ]
        nodes += [helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"h{i}"])]
        nodes += [helper.make_node("Relu", [f"h{i}"], [f"r{i}"])]
        last = f"r{i}"
    nodes += [helper.make_node("Softmax", [last], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTHS[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTHS[-1]])
    graph = helper.make_graph(nodes, "perceptron", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def classifier(folder: Path) -> Path | None:
    """The demo's picture classifier; None where the packages that make it are missing."""
    if DEMO_CLASSIFIER.exists():
        return DEMO_CLASSIFIER
    try:
        from router.demo.classifier import make_classifier_onnx

        make_classifier_onnx(folder / "classifier.onnx")
    except ImportError:
        return None
    return folder / "classifier.onnx"


class Tally:
    """What clients saw: seconds for each answer, over how many seconds, at what cost of CPU."""

    def __init__(self) -> None:
        self.answers_s: list[float] = []
        self.wall_s = self.cpu_s = 0.0

    async def load(self, backend: OnnxBackend, call: Call, clients: int, seconds: float) -> None:
        async def client() -> None:
            while (began := time.perf_counter()) < until:
                await backend.send(call)
                self.answers_s.append(time.perf_counter() - began)

        wall, cpu = time.perf_counter(), time.process_time()
        until = wall + seconds
        await asyncio.gather(*(client() for _ in range(clients)))
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu

    def summary(self) -> dict[str, float]:
        count, ordered = len(self.answers_s), sorted(self.answers_s)
        return {
            "rps": round(count / self.wall_s, 1),
            "p50_ms": round(ordered[count // 2] * 1e3, 3),
            "p99_ms": round(ordered[min(int(count * 0.99), count - 1)] * 1e3, 3),
            "cpu_us": round(self.cpu_s / count * 1e6, 1),
        }


async def measure_subject(subject: Subject, seconds: float) -> dict[str, Any]:
    """`seconds` for each number of clients and each way to run them."""
    backends = subject.backends()
    for backend in backends.values():
        await backend.start()
    one = subject.batch(1)
    call = Call(subject.name, "", infer=InferRequest((Tensor.from_array(subject.input, one),)))
    try:
        # With one client, ONNX Runtime itself takes its turns, too: same input, same threads, no one in between.
        session = raw_session(subject.path, backends["plain"].threads.each)
        raw: list[float] = []
        found: dict[str, Any] = {}
        for clients in CONCURRENCY:
            tallies = {way: Tally() for way in backends}
            for backend in backends.values():
                await Tally().load(backend, call, clients, seconds / 6)
            for _ in range(ROUNDS):
                for way, backend in backends.items():
                    await tallies[way].load(backend, call, clients, seconds / ROUNDS)
                if clients == 1:
                    raw += times(session, {subject.input: one}, seconds / ROUNDS)
            found[f"c{clients}"] = {way: tally.summary() for way, tally in tallies.items()}
            if clients == 1:
                found |= overhead(raw, {way: tally.answers_s for way, tally in tallies.items()})
    finally:
        for backend in backends.values():
            await backend.aclose()
    return found


def overhead(raw: Sequence[float], ways: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Medians, with one client."""
    raw_us, backend_us, batched_us = (statistics.median(one) * 1e6 for one in (raw, ways["plain"], ways["batched"]))
    return {
        "raw_us": round(raw_us, 1),
        "backend_us": round(backend_us, 1),
        "overhead_us": round(backend_us - raw_us, 1),
        "batched_overhead_us": round(batched_us - raw_us, 1),
    }


def raw_session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def times(session: Any, inputs: Mapping[str, np.ndarray], seconds: float) -> list[float]:
    """Seconds of each run, one after the other."""
    taken, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        session.run(None, inputs)
        taken.append(time.perf_counter() - began)
    return taken


async def hop_us(seconds: float) -> float:
    """The median of handing nothing to a thread and waiting for it: the part of the overhead that is not ours."""
    backend_loop, taken = asyncio.get_running_loop(), []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        await backend_loop.run_in_executor(None, int)
        taken.append(time.perf_counter() - began)
    return round(statistics.median(taken) * 1e6, 1)


def threads(subject: Subject, rows: int, seconds: float) -> dict[str, Any]:
    """Rows a second: as many runs side by side as there are CPUs, each on one thread, or one run at a time on all."""
    cpus, batch = usable_cpus(), {subject.input: subject.batch(rows)}
    beside, all_of_it = raw_session(subject.path, 1), raw_session(subject.path, cpus)
    rates = []
    for session, workers in ((beside, cpus), (all_of_it, 1)):
        session.run(None, batch)
        counts: list[int] = []
        # Bound now: the threads end before the loop goes on.
        run = [
            threading.Thread(target=lambda s=session, c=counts: c.append(len(times(s, batch, seconds))))
            for _ in range(workers)
        ]
        for thread in run:
            thread.start()
        for thread in run:
            thread.join()
        rates.append(round(sum(counts) * rows / seconds, 1))
    return {"model": subject.name, "rows": rows, "side_by_side": rates[0], "one_at_a_time": rates[1]}


def measure(quick: bool) -> dict[str, Any]:
    """Plain numbers, which JSON can hold. Those of the perceptron, at the top:

    raw_us, backend_us          median of ONNX Runtime's own call, and of the backend's, with one client
    overhead_us                 their difference; batched_overhead_us: with batching
    hop_us                      median of handing nothing to a thread and back
    c1, c16, c64                by the number of clients, then plain, batched, batched_wait:
                                rps (requests a second), p50_ms, p99_ms, cpu_us (CPU of the process for each request)
    classifier                  the same of the demo's classifier; None where quick, or where it cannot be made
    threads                     rows a second, by model and rows of a run: runs side_by_side, or one_at_a_time
    cpus                        that may be used
    """
    seconds = 0.5 if quick else 1.2
    with tempfile.TemporaryDirectory() as folder:
        small = Subject("perceptron", perceptron(Path(folder) / "perceptron.onnx"), "x", (WIDTHS[0],), 32)
        subjects, pictures = [small], None
        path = None if quick else classifier(Path(folder))
        if path is not None:
            pictures = Subject("classifier", path, "image", (3, 224, 224), 8)
            subjects.append(pictures)
        found: dict[str, Any] = {"cpus": usable_cpus()}
        found |= uvloop.run(measure_subject(small, seconds))
        found["hop_us"] = uvloop.run(hop_us(seconds))
        found["classifier"] = uvloop.run(measure_subject(pictures, seconds)) if pictures else None
        found["threads"] = [
            threads(subject, rows, seconds / 3) for subject in subjects for rows in (1, subject.max_size)
        ]
    return found


def print_loads(name: str, found: Mapping[str, Any]) -> None:
    print(
        f"\n{name}: {found['raw_us']:.0f} µs in ONNX Runtime, {found['backend_us']:.0f} µs through the backend"
        f" (+{found['overhead_us']:.0f} µs; batched +{found['batched_overhead_us']:.0f} µs)"
    )
    print(f"{'clients':<9}{'way':<14}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}{'times':>7}")
    for clients in CONCURRENCY:
        ways = found[f"c{clients}"]
        for way, one in ways.items():
            print(
                f"{clients:<9}{way.replace('_wait', ' 2 ms'):<14}{one['rps']:>12.0f}{one['p50_ms']:>9.2f}"
                f"{one['p99_ms']:>9.2f}{one['cpu_us']:>9.0f}{one['rps'] / ways['plain']['rps']:>7.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="ten seconds, without the classifier")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead")
    arguments = parser.parse_args()
    found = measure(arguments.quick)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(
        f"onnxruntime {onnxruntime.__version__}, {found['cpus']} CPUs; to a thread and back: {found['hop_us']:.0f} µs"
    )
    print_loads("perceptron", found)
    if found["classifier"]:
        print_loads("classifier", found["classifier"])
    print(f"\n{'rows a second':<14}{'rows':>5}{'side by side':>14}{'one at a time':>15}{'times':>7}")
    for one in found["threads"]:
        times_ = one["side_by_side"] / one["one_at_a_time"]
        print(
            f"{one['model']:<14}{one['rows']:>5}{one['side_by_side']:>14.0f}{one['one_at_a_time']:>15.0f}{times_:>7.1f}"
        )


if __name__ == "__main__":
    main()
