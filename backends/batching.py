"""Requests that come together, run as one.

A batch goes when one of the model's runners is free and

    nothing of the model runs: a request that is alone is never held back,
    or the rows that wait fill a batch,
    or its first request has waited for `max_wait_ms`.

Until then it grows. What waits is shared out among the runners that are free, so that none of them is idle while
another runs everything. Only requests that are alike (`_Kind`) go together. Who goes with whom is settled on the event
loop, so there are no locks; joining, running and splitting happen in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from backends.errors import Failed
from backends.tensors import Tensor
from policies.schema import Batching

log = logging.getLogger("pointsman")

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
Shapes = Sequence[tuple[str, Sequence[int | str | None]]]
"""Name and shape of each input, then of each output, which may have an input's name. A dimension that may have any
size has a name, or None."""


class _Kind(NamedTuple):
    """What requests must have in common to go together."""

    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]  # name, dtype, dimensions after the first
    outputs: tuple[str, ...]
    alone: object = None  # of a request that goes with none: something that no other request has


class Batched(NamedTuple):
    """The answer to one request."""

    tensors: tuple[Tensor, ...]
    together: int  # requests that were run as one with it, itself included


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    inputs: Arrays
    rows: int
    even: bool  # all its inputs have so many
    answer: asyncio.Future[Batched]
    until: float  # when it is not held back any more, by the loop's clock, s


@dataclass(slots=True)
class _Forming:
    members: deque[_Member] = field(default_factory=deque)
    rows: int = 0


class _Ran(NamedTuple):
    answers: list[Batched | Exception]  # one for each member, in their order
    mixed: bool  # the outputs do not have a row for each row of the inputs


def why_not(shapes: Shapes) -> str | None:
    """Why requests for a model of such inputs and outputs cannot be run as one; None where they can.

    The first dimensions must be open, and the same one. An output of another (say, of what was found) has rows that
    are not one for each row of the inputs: nobody could tell whose they are.
    """
    for name, shape in shapes:
        if not shape or isinstance(shape[0], int):
            return f"the first dimension of '{name}' is fixed; all inputs and outputs need an open one"
    names = {shape[0] for _, shape in shapes}
    if len(names) > 1:
        told = ", ".join(sorted(f"'{name}'" if name else "one without a name" for name in names))
        return f"the first dimensions of its inputs and outputs are not the same one, but {told}"
    return None


def tensors(outputs: Arrays, wanted: Sequence[str]) -> tuple[Tensor, ...]:
    """What a model gave, as it is sent. Copies, so it is for threads. Raises TensorError."""
    return tuple(Tensor.from_array(name, np.asarray(outputs[name])) for name in wanted)


class Batcher:
    """Of one model. `run` takes inputs of any number of rows and is called in threads of `pool`, at most `runners` at
    once. Belongs to one event loop."""

    def __init__(self, name: str, settings: Batching, run: Run, pool: Executor, runners: int) -> None:
        self._name, self._settings, self._run, self._pool = name, settings, run, pool
        self._free = self._runners = runners
        self._forming: dict[_Kind, _Forming] = {}  # in the order in which their turn comes
        self._soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._apart = False
        self._closed = False

    async def send(self, inputs: Arrays, wanted: Sequence[str]) -> Batched:
        """The outputs `wanted` for these inputs, each an array of at least one dimension. Raises what the model raises
        on these inputs alone, and Failed when closed."""
        if self._closed:
            raise self._closing()
        loop = asyncio.get_running_loop()
        rows = {array.shape[0] for array in inputs.values()}
        # Inputs of different lengths cannot be joined. The model says what it thinks of them.
        even = len(rows) == 1
        alone = None if even and not self._apart else object()
        alike = tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items()))
        kind = _Kind(alike, tuple(wanted), alone)
        until = loop.time() + self._settings.max_wait_ms / 1e3
        member = _Member(inputs, max(rows, default=0), even, loop.create_future(), until)
        forming = self._forming.setdefault(kind, _Forming())
        forming.members.append(member)
        forming.rows += member.rows
        if self._free and not self._soon:
            # Not at once: whoever else is read from the sockets in this turn of the loop goes along.
            self._soon = True
            loop.call_soon(self._go)
        try:
            return await member.answer
        except asyncio.CancelledError:
            if member in forming.members:
                forming.members.remove(member)
                forming.rows -= member.rows
                if not forming.members:
                    self._forming.pop(kind, None)
            raise

    def close(self) -> None:
        """Whoever waits gets Failed. What runs, runs to its end."""
        self._closed = True
        self._stop_timer()
        for forming in self._forming.values():
            for member in forming.members:
                _refuse(member, self._closing())
        self._forming.clear()

    def _closing(self) -> Failed:
        return Failed(f"{self._name}: it is being taken down")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go(self) -> None:
        """Hand out what may go now, and come back when the next may."""
        self._soon = False
        self._stop_timer()
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = deque(kind for kind in self._forming if self._due(kind, now))
        while self._free and due:
            kind = due.popleft()
            # An equal part for each free runner; the other kinds that are due get one each.
            share = -(-self._forming[kind].rows // max(1, self._free - len(due)))
            members = self._take(kind, min(share, self._settings.max_size))
            self._free -= 1
            future = self._pool.submit(_compute, self._run, members, kind.outputs)
            future.add_done_callback(partial(self._tell, loop, members))
            if kind in self._forming:
                due.append(kind)
        if self._free and self._forming:
            first = min(forming.members[0].until for forming in self._forming.values())
            # Not sooner than in 1 ms, which is what the loop's clock can tell apart: it would turn for nothing.
            self._timer = loop.call_at(max(first, now + 0.001), self._go)

    def _due(self, kind: _Kind, now: float) -> bool:
        forming = self._forming[kind]
        return (
            self._free == self._runners
            or forming.rows >= self._settings.max_size
            or kind.alone is not None
            or forming.members[0].until <= now
        )

    def _take(self, kind: _Kind, most_rows: int) -> list[_Member]:
        """The first of a kind, and those after it that fit in. What is left queues up behind the other kinds."""
        forming = self._forming.pop(kind)
        members = [forming.members.popleft()]
        rows = members[0].rows
        while not self._apart and forming.members and rows + forming.members[0].rows <= most_rows:
            members.append(forming.members.popleft())
            rows += members[-1].rows
        forming.rows -= rows
        if forming.members:
            self._forming[kind] = forming
        return members

    def _tell(self, loop: asyncio.AbstractEventLoop, members: Sequence[_Member], future: Future[_Ran]) -> None:
        """In the thread. A future of asyncio's would take one more turn of the loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody is there to be told
            loop.call_soon_threadsafe(self._ended, members, future)

    def _ended(self, members: Sequence[_Member], future: Future[_Ran]) -> None:
        self._free += 1
        if self._forming:
            self._go()  # before the answers: the runner need not wait for them
        error = self._closing() if future.cancelled() else future.exception()  # cancelled: the pool was shut down
        if error is not None:
            for member in members:
                _refuse(member, error)
            return
        ran = future.result()
        if ran.mixed and not self._apart:
            self._apart = True
            log.warning("%s: an output has not a row for each row of the inputs; not batched any more", self._name)
        for member, answer in zip(members, ran.answers, strict=True):
            if isinstance(answer, Exception):
                _refuse(member, answer)
            elif not member.answer.done():
                member.answer.set_result(answer)


def _refuse(member: _Member, error: BaseException) -> None:
    if not member.answer.done():
        member.answer.set_exception(error)


def _compute(run: Run, members: Sequence[_Member], wanted: Sequence[str]) -> _Ran:
    """In a thread. Together where that works, else one after the other: one request that the model cannot take, or an
    output that cannot be told apart, is nobody else's failure. Who has gone meanwhile is left out."""
    there = [member for member in members if not member.answer.done()]
    answers: dict[_Member, Batched | Exception] = {}
    mixed = False
    if len(there) > 1:
        try:
            joined = run({name: np.concatenate([member.inputs[name] for member in there]) for name in there[0].inputs})
            mixed = not _row_by_row(joined, wanted, sum(member.rows for member in there))
            split = [] if mixed else [Batched(one, len(there)) for one in _split(joined, there, wanted)]
            answers = {} if mixed else dict(zip(there, split, strict=True))
        except Exception:
            answers = {}  # whose it was, the runs one by one tell
    for member in there if not answers else ():
        if member.answer.done():
            continue
        try:
            outputs = run(member.inputs)
            mixed = mixed or (member.even and not _row_by_row(outputs, wanted, member.rows))
            answers[member] = Batched(tensors(outputs, wanted), 1)
        except Exception as error:
            answers[member] = error
    gone = Failed("nobody waits for the answer")
    return _Ran([answers.get(member, gone) for member in members], mixed)


def _row_by_row(outputs: Arrays, wanted: Sequence[str], rows: int) -> bool:
    return all(np.shape(outputs[name])[:1] == (rows,) for name in wanted)


def _split(outputs: Arrays, members: Sequence[_Member], wanted: Sequence[str]) -> Iterator[tuple[Tensor, ...]]:
    """The rows of each member, in their order."""
    begin = 0
    for member in members:
        rows = slice(begin, begin + member.rows)
        yield tensors({name: outputs[name][rows] for name in wanted}, wanted)
        begin += member.rows
