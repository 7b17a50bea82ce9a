"""Requests run as one: who goes with whom and when, and that everybody gets their own answer, whatever happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.batching import Arrays, Batcher
from backends.errors import Failed, RequestRejected
from policies.schema import Batching

FAR = 3_600_000.0
"""A wait, in ms, that no test lives to see the end of."""
BAD = -1.0


def rows(first: float, count: int = 1) -> np.ndarray:
    """`count` rows that nobody else has: [first, 0], [first, 1], …"""
    return np.array([[first, i] for i in range(count)], np.float32).reshape(count, 2)


class Model:
    """y = x, and so is every row's owner to be seen. Keeps how many rows each run had. Fails where any row is BAD.
    While `gate` is shut, runs wait."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)

    def __call__(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        self.runs.append(len(x))
        self.began.release()
        assert self.gate.wait(30)
        if x.dtype != object and (x[..., 0] == BAD).any():
            raise RequestRejected("input 'x' is bad")
        return {"y": x, "z": x}


@dataclass
class Bench:
    model: Callable[[Arrays], Arrays]
    max_size: int = 8
    max_wait_ms: float = 0.0
    runners: int = 1

    def run(self, main):
        """`await main(batcher)` with a pool and a loop of its own."""
        with ThreadPoolExecutor(self.runners) as pool:
            settings_ = Batching(max_size=self.max_size, max_wait_ms=self.max_wait_ms)
            batcher = Batcher("edge: model m", settings_, self.model, pool, self.runners)
            return asyncio.run(asyncio.wait_for(main(batcher), 60))


async def ask(batcher, x, wanted=("y",)):
    (tensor, *_), _ = await batcher.send({"x": x}, wanted)
    return tensor.array()


async def begun(model):
    """Until one more run has begun."""
    assert await asyncio.to_thread(model.began.acquire, timeout=30)


async def turns(count=20):
    """Enough of the loop's turns for all that can happen by itself."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- when a batch goes --------------------------------------------------------------------------------------------


def test_a_request_that_is_alone_is_not_held_back():
    model = Model()

    async def main(batcher):
        for i in range(3):
            await ask(batcher, rows(i))

    Bench(model, max_wait_ms=FAR).run(main)
    assert model.runs == [1, 1, 1]


def test_requests_that_come_while_the_model_runs_go_together():
    model = Model()

    async def main(batcher):
        model.gate.clear()
        first = asyncio.create_task(ask(batcher, rows(0)))
        await begun(model)
        others = [asyncio.create_task(ask(batcher, rows(i, 2))) for i in (1, 2, 3)]
        await turns()
        model.gate.set()
        return await asyncio.gather(first, *others)

    for wait in (0, FAR):
        model = Model()
        answers = Bench(model, max_wait_ms=wait).run(main)
        assert model.runs == [1, 6]
        for answer, expected in zip(answers, [rows(0), rows(1, 2), rows(2, 2), rows(3, 2)], strict=True):
            np.testing.assert_array_equal(answer, expected)


def test_with_a_wait_a_free_runner_waits_for_more_while_another_runs_until_a_batch_is_full():
    model = Model()

    async def main(batcher):
        model.gate.clear()
        first = asyncio.create_task(ask(batcher, rows(0)))
        await begun(model)
        others = [asyncio.create_task(ask(batcher, rows(i))) for i in (1, 2, 3)]
        await turns()
        assert model.runs == [1]
        others.append(asyncio.create_task(ask(batcher, rows(4))))
        await begun(model)
        assert model.runs == [1, 4]
        model.gate.set()
        await asyncio.gather(first, *others)

    Bench(model, max_size=4, max_wait_ms=FAR, runners=2).run(main)


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_the_wait_has_an_end(wait):
    model = Model()

    async def main(batcher):
        model.gate.clear()
        first = asyncio.create_task(ask(batcher, rows(0)))
        await begun(model)
        second = asyncio.create_task(ask(batcher, rows(1)))
        await begun(model)  # although the first still runs
        model.gate.set()
        await asyncio.gather(first, second)

    Bench(model, max_wait_ms=wait, runners=2).run(main)
    assert model.runs == [1, 1]


def test_free_runners_share_what_waits():
    model = Model()

    async def main(batcher):
        await asyncio.gather(*(ask(batcher, rows(i)) for i in range(9)))

    Bench(model, max_size=32, runners=3).run(main)
    assert model.runs == [3, 3, 3]


def test_no_batch_has_more_rows_than_it_may_unless_one_request_has():
    model = Model()

    async def main(batcher):
        await asyncio.gather(*(ask(batcher, rows(i, count)) for i, count in enumerate((3, 3, 3, 20, 1))))

    Bench(model, max_size=6).run(main)
    assert model.runs == [6, 3, 20, 1]


def test_only_requests_that_are_alike_go_together():
    model = Model()

    async def main(batcher):
        other_width, other_type = np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float64)
        calls = [(rows(1), ("y",)), (other_width, ("y",)), (other_type, ("y",)), (rows(2), ("z",)), (rows(3), ("y",))]
        answers = await asyncio.gather(*(ask(batcher, x, wanted) for x, wanted in calls))
        for answer, (x, _) in zip(answers, calls, strict=True):
            assert answer.dtype == x.dtype
            np.testing.assert_array_equal(answer, x)

    Bench(model).run(main)
    assert sorted(model.runs) == [1, 1, 1, 2]


def test_inputs_of_different_lengths_go_alone():
    seen = []

    def model(inputs):
        seen.append(sorted((name, len(array)) for name, array in inputs.items()))
        return {"y": inputs["x"]}

    async def main(batcher):
        two_lengths = {"x": rows(1, 2), "w": rows(1, 3)}
        one_length = {"x": rows(2), "w": rows(2)}
        await asyncio.gather(*(batcher.send(x, ["y"]) for x in (two_lengths, two_lengths, one_length, one_length)))

    Bench(model).run(main)
    assert sorted(seen) == [[("w", 2), ("x", 2)], [("w", 3), ("x", 2)], [("w", 3), ("x", 2)]]


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_one_bad_request_fails_by_itself():
    model = Model()

    async def main(batcher):
        calls = [ask(batcher, rows(first)) for first in (1, BAD, 2)]
        return await asyncio.gather(*calls, return_exceptions=True)

    one, bad, two = Bench(model).run(main)
    assert isinstance(bad, RequestRejected)
    np.testing.assert_array_equal(one, rows(1))
    np.testing.assert_array_equal(two, rows(2))
    assert model.runs == [3, 1, 1, 1]


def test_whoever_is_cancelled_takes_nobody_along():
    model = Model()

    async def main(batcher):
        model.gate.clear()
        running = [asyncio.create_task(ask(batcher, rows(i))) for i in (0, 1)]
        await begun(model)
        waiting = [asyncio.create_task(ask(batcher, rows(i))) for i in (2, 3, 4)]
        await turns()
        running[0].cancel()
        waiting[1].cancel()
        await turns()
        model.gate.set()
        return await asyncio.gather(*running, *waiting, return_exceptions=True)

    answers = Bench(model).run(main)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False, False, True, False]
    for i in (1, 2, 4):
        np.testing.assert_array_equal(answers[i], rows(i))
    assert model.runs == [2, 2]  # who left before it began is not in it


def test_where_all_leave_nothing_is_run():
    model = Model()

    async def main(batcher):
        model.gate.clear()
        first = asyncio.create_task(ask(batcher, rows(0)))
        await begun(model)
        waiting = [asyncio.create_task(ask(batcher, rows(i))) for i in (1, 2)]
        await turns()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        model.gate.set()
        await first
        assert not batcher._forming

    Bench(model).run(main)
    assert model.runs == [1]


@pytest.mark.parametrize("rows_of_output", [lambda x: x[:1], lambda x: np.concatenate([x, x]), lambda x: x.sum()])
def test_an_output_without_the_rows_of_the_batch_is_given_to_nobody(rows_of_output, caplog):
    runs = []

    def model(inputs):
        runs.append(len(inputs["x"]))
        return {"y": np.asarray(rows_of_output(inputs["x"]))}

    async def main(batcher):
        for _ in range(2):
            answers = await asyncio.gather(*(ask(batcher, rows(i, 2)) for i in range(3)))
            for i, answer in enumerate(answers):
                np.testing.assert_array_equal(answer, rows_of_output(rows(i, 2)))

    Bench(model).run(main)
    assert runs == [6, 2, 2, 2, 2, 2, 2]  # once it is known, none is tried again
    assert [record.message for record in caplog.records] == [
        "edge: model m: an output has not a row for each row of the inputs; not batched any more"
    ]


def test_a_model_that_shows_itself_with_one_request_is_not_batched():
    runs = []

    def found(inputs):
        """As many rows as something was found: of two requests together, it might by chance be the right number."""
        runs.append(len(inputs["x"]))
        return {"y": inputs["x"][inputs["x"][:, 0] > 0]}

    async def main(batcher):
        assert len(await ask(batcher, rows(0))) == 0
        none, both = await asyncio.gather(ask(batcher, rows(0, 2)), ask(batcher, rows(1, 2)))
        assert (len(none), len(both)) == (0, 2)

    Bench(found).run(main)
    assert runs == [1, 2, 2]


def test_closing_refuses_who_waits_and_ends_what_runs():
    model = Model()

    async def main(batcher):
        model.gate.clear()
        running = asyncio.create_task(ask(batcher, rows(0)))
        await begun(model)
        waiting = asyncio.create_task(ask(batcher, rows(1)))
        await turns()
        batcher.close()
        with pytest.raises(Failed, match="edge: model m: it is being taken down"):
            await waiting
        with pytest.raises(Failed):
            await ask(batcher, rows(2))
        model.gate.set()
        np.testing.assert_array_equal(await running, rows(0))

    Bench(model, max_wait_ms=FAR).run(main)


def test_a_batch_whose_turn_never_comes_is_refused():
    model = Model()

    async def main(batcher):
        model.gate.clear()
        blocker = batcher._pool.submit(model, {"x": rows(9)})
        await begun(model)
        waiting = asyncio.create_task(ask(batcher, rows(1)))
        await turns()
        batcher.close()
        batcher._pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(Failed):
            await waiting
        model.gate.set()
        await asyncio.wrap_future(blocker)

    Bench(model).run(main)


# --- nobody gets another's answer ---------------------------------------------------------------------------------

REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "rows": st.integers(0, 5),
            "kind": st.sampled_from(["numbers", "wide", "text"]),
            "bad": st.booleans(),
            "turns": st.integers(0, 3),  # of the loop, before it is sent
            "leaves": st.none() | st.integers(0, 6),  # so many turns after it is there
        }
    ),
    min_size=1,
    max_size=25,
)


def payload(i: int, one: dict) -> np.ndarray:
    """Every row says whose it is, and which."""
    if one["kind"] == "text":
        return np.array([[f"{i}", f"{row}"] for row in range(one["rows"])], object).reshape(one["rows"], 2)
    x = np.zeros((one["rows"], 3 if one["kind"] == "wide" else 2), np.int64)
    x[:, 0], x[:, 1] = i, np.arange(one["rows"])
    return np.full_like(x, BAD) if one["bad"] else x


@settings(max_examples=300)
@given(REQUESTS, st.integers(2, 8), st.sampled_from([0.0, 0.5, FAR]), st.integers(1, 3))
def test_nobody_gets_another_requests_answer(requests, max_size, wait, runners):
    model, sent = Model(), [payload(i, one) for i, one in enumerate(requests)]

    async def client(batcher, i, one):
        await turns(one["turns"])
        task = asyncio.create_task(ask(batcher, sent[i]))
        if one["leaves"] is not None:
            await turns(one["leaves"])
            task.cancel()
        return await task

    async def main(batcher):
        clients = [client(batcher, i, one) for i, one in enumerate(requests)]
        answers = await asyncio.gather(*clients, return_exceptions=True)
        assert not batcher._forming
        return answers

    answers = Bench(model, max_size, wait, runners).run(main)
    for one, x, answer in zip(requests, sent, answers, strict=True):
        fails = one["bad"] and one["kind"] != "text" and one["rows"] > 0
        if isinstance(answer, asyncio.CancelledError):
            assert one["leaves"] is not None
        elif isinstance(answer, Exception):
            assert fails
            assert isinstance(answer, RequestRejected)
        else:
            assert not fails
            got = [[text.decode() for text in row] for row in answer] if one["kind"] == "text" else answer.tolist()
            assert got == x.tolist()
            assert answer.shape == x.shape
