"""Models that run inside this process, off the event loop. ONNX Runtime and PyTorch differ only in the runner."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from backends.batching import Batcher, Shapes, tensors, why_not
from backends.calls import Answer, Call
from backends.cpus import Threads, usable_cpus
from backends.errors import BackendError, Failed, RequestRejected, Unsuited
from backends.tensors import InferAnswer, InferRequest, ModelMetadata, Tensor, TensorError, TensorSpec
from policies.schema import Backend as BackendSpec


class Runner(Protocol):
    """One loaded model. `run` is called from several threads at once. `shapes` are those of `metadata`, with the names
    that the model has for dimensions of any size."""

    metadata: ModelMetadata
    shapes: Shapes

    def run(self, inputs: Mapping[str, np.ndarray], /) -> Mapping[str, np.ndarray]: ...


class InProcessBackend:
    """Runs the models of one fleet entry in a thread pool of its own. Subclasses say how to load one, so that each of
    its runs takes `threads.each` threads."""

    def __init__(self, spec: BackendSpec, folder: Path) -> None:
        self.spec = spec
        self._folder = folder
        self._runners: dict[str, Runner] = {}
        self._batchers: dict[str, Batcher] = {}
        # More threads than CPUs only add switching: the libraries release the GIL and compute.
        self.threads = Threads.shared(usable_cpus(), spec.limits.max_in_flight)
        self._pool = ThreadPoolExecutor(self.threads.workers, thread_name_prefix=spec.name)

    def load(self, artifact: Path) -> Runner:
        raise NotImplementedError

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for name, model in self.spec.models.items():
            path = self._folder / (model.artifact or "")
            try:
                runner = await loop.run_in_executor(self._pool, self.load, path)
            except Exception as error:
                raise Failed(f"{self.spec.name}: cannot load {path}: {_first_line(error)}") from error
            if model.batching is not None:
                reason = why_not(runner.shapes)
                if reason is not None:
                    raise Failed(f"{self.spec.name}: model {name} cannot be batched: {reason}")
                whose = f"{self.spec.name}: model {name}"
                self._batchers[name] = Batcher(whose, model.batching, runner.run, self._pool, self.threads.workers)
            self._runners[name] = runner

    async def send(self, call: Call) -> Answer:
        assert call.infer is not None, "the capability filter lets only tensor calls come here"
        runner = self._runners[call.model]
        inputs = _inputs(call.infer, runner.metadata, call.model)
        names = _outputs(call.infer, runner.metadata, call.model)
        batcher = self._batchers.get(call.model)
        together = 0
        try:
            if batcher is not None:
                outputs, together = await batcher.send(inputs, names)
            else:
                outputs = await asyncio.get_running_loop().run_in_executor(self._pool, _run, runner, inputs, names)
        except (RequestRejected, BackendError):
            raise
        except Exception as error:  # the runtime's own message may show values
            # A loaded model that fails does so on what it was given; callers must not be able to get it ejected.
            raise Unsuited(f"{self.spec.name}: running {call.model} failed ({type(error).__name__})") from error
        return Answer(infer=InferAnswer(outputs), together=together)

    async def probe(self) -> None:
        if not self._runners:
            raise BackendError(f"{self.spec.name}: not loaded")

    async def metadata(self, model: str) -> ModelMetadata | None:
        return self._runners[model].metadata

    async def aclose(self) -> None:
        for batcher in self._batchers.values():
            batcher.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _run(runner: Runner, inputs: Mapping[str, np.ndarray], wanted: Sequence[str]) -> tuple[Tensor, ...]:
    return tensors(runner.run(inputs), wanted)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _inputs(request: InferRequest, metadata: ModelMetadata, model: str) -> dict[str, np.ndarray]:
    given = {tensor.name: tensor for tensor in request.inputs}
    wanted = {spec.name: spec for spec in metadata.inputs}
    if given.keys() != wanted.keys():
        raise RequestRejected(f"model {model} takes the inputs {_names(wanted)}; the request has {_names(given)}")
    for name, spec in wanted.items():
        tensor = given[name]
        if tensor.datatype != spec.datatype:
            raise RequestRejected(f"input '{name}' must be {spec.datatype}, not {tensor.datatype}")
        fits = len(tensor.shape) == len(spec.shape) and all(
            want in (-1, got) for want, got in zip(spec.shape, tensor.shape, strict=True)
        )
        if not fits:
            raise RequestRejected(f"input '{name}' must have shape {list(spec.shape)}, not {list(tensor.shape)}")
    try:
        return {name: tensor.array() for name, tensor in given.items()}
    except TensorError as error:
        raise RequestRejected(str(error)) from None


def _outputs(request: InferRequest, metadata: ModelMetadata, model: str) -> list[str]:
    known = [spec.name for spec in metadata.outputs]
    wanted = [output.name for output in request.outputs]
    for name in wanted:
        if name not in known:
            raise RequestRejected(f"model {model} has no output '{name[:60]}'; it has {_names(known)}")
    return wanted or known


def _names(names: object) -> str:
    return ", ".join(f"'{str(name)[:60]}'" for name in list(names)[:10]) or "none"  # type: ignore[call-overload]


def dynamic(shape: object) -> tuple[int, ...]:
    """A shape with symbols as a protocol shape: anything that is not a number is -1."""
    return tuple(d if isinstance(d, int) else -1 for d in shape)  # type: ignore[attr-defined]


def tensor_spec(name: str, datatype: str, shape: object) -> TensorSpec:
    return TensorSpec(name, datatype, dynamic(shape))
