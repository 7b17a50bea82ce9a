"""A second attempt where the first is late: within its share, only to where policy allows, and nothing is left over."""

from __future__ import annotations

import asyncio
import json
import time
from unittest import mock

import pytest
from test_execution import at_rest, wait_until

from backends.calls import Answer, Call, Usage
from router.attempts import Ask, Result, Step
from router.execute import Executor, _Failures

FLEET = """
kind: Fleet
backends:
  - {{name: slow, tier: edge, region: jp, clearance: restricted, protocol: fake, latency: {{prior_ms: 10}},
     script: {slow}, models: {{chat: {{task: chat}}}}, price: {{input_per_mtok: 1000000}}}}
  - {{name: other, tier: cloud, region: us, clearance: internal, protocol: fake, latency: {{prior_ms: 100}},
     script: {other}, models: {{chat: {{task: chat}}}}, price: {{per_request: 2}}}}
---
kind: Policy
rules:
  - {{name: hedged, objective: {{latency: {{weight: 1}}}}, strategy: {{hedge: {{max_extra_load: {share}}}}},
     fallback: {{attempts: {attempts}}}}}
"""


def fleet(slow="[{latency_ms: 3000}]", other="[{text: from the other}]", share=1, attempts=3):
    return FLEET.format(slow=slow, other=other, share=share, attempts=attempts)


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_good_answer_counts_and_the_other_is_cancelled(start_router, stream):
    router = start_router(fleet())
    began = time.monotonic()
    reply = router.chat(stream=stream)
    assert (reply.status, reply.backend) == (200, "other")
    assert time.monotonic() - began < 2
    wait_until(lambda: router.backend("slow").cancelled == 1)
    wait_until(lambda: at_rest(router))
    assert router.count("pointsman_attempts_total", kind="hedge", outcome="ok") == 1
    assert router.count("pointsman_attempts_total", kind="first", outcome="cancelled") == 1
    assert router.count("pointsman_hedges_total", outcome="won") == 1


def test_one_that_comes_too_late_is_lost_and_discarded(start_router):
    router = start_router(fleet(slow="[{latency_ms: 150}]", other="[{latency_ms: 2000}]"))
    assert router.chat().backend == "slow"
    wait_until(lambda: router.backend("other").cancelled == 1)
    wait_until(lambda: at_rest(router))
    assert router.count("pointsman_hedges_total", outcome="lost") == 1


def test_both_are_paid_for(start_router):
    router = start_router(fleet())
    cost = float(router.chat().headers["x-pointsman-cost-usd"])
    assert cost > 2, "the other's price, and the input of the one that was given up"
    assert router.count("pointsman_cost_usd_total") == pytest.approx(cost)


def test_a_quick_answer_needs_no_second(start_router):
    text = fleet(slow="[{}]")
    patient = text.replace("prior_ms: 100}", "prior_ms: 20000}").replace("prior_ms: 10}", "prior_ms: 2000}")
    router = start_router(patient)  # also where this machine holds an answer up
    assert all(router.chat().backend == "slow" for _ in range(20))
    assert len(router.backend("other").calls) == 0


def test_they_stay_within_their_share(start_router):
    router = start_router(fleet(slow="[{latency_ms: 100}]", share=0.1, other="[{latency_ms: 100}]"))
    for _ in range(20):
        assert router.chat().status == 200
    assert 1 <= router.count("pointsman_attempts_total", kind="hedge") <= 1 + 0.1 * 20


@pytest.mark.parametrize(
    ("headers", "options", "fields"),
    [
        ({"x-data-sensitivity": "confidential"}, {}, {}),
        ({"x-no-fallback": "true"}, {}, {}),
        ({}, {"attempts": 1}, {}),
        ({}, {}, {"store": True}),
    ],
)
def test_there_is_none_where_none_is_allowed(start_router, headers, options, fields):
    router = start_router(fleet(slow="[{latency_ms: 200}]", **options))
    assert router.chat(headers=headers, **fields).backend == "slow"
    assert len(router.backend("other").calls) == 0


def test_failures_are_followed_by_the_next_as_without_it(start_router):
    router = start_router(fleet(slow="[{fail: status_500}]"))
    assert router.chat().backend == "other"
    assert router.count("pointsman_attempts_total", kind="fallback") == 1


def test_when_both_fail_the_answer_says_why_for_each(start_router):
    router = start_router(fleet(slow="[{latency_ms: 100, fail: status_500}]", other="[{fail: rubbish}]"))
    reply = router.chat()
    assert reply.status == 502
    assert "slow: answered 500" in reply.json()["error"]["message"]
    assert "other: rubbish" in reply.json()["error"]["message"]
    assert at_rest(router)


def test_a_client_that_leaves_ends_both(start_router):
    router = start_router(fleet(other="[{latency_ms: 3000}]"))
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=20)
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "x"}]})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    wait_until(lambda: len(router.backend("other").calls) == 1)
    connection.close()
    wait_until(lambda: router.backend("slow").cancelled == 1 and router.backend("other").cancelled == 1, 1)
    wait_until(lambda: at_rest(router))


def test_the_record_has_every_attempt(start_router, tmp_path):
    from router.decisionlog.writer import LogSettings

    router = start_router(fleet(), decision_log=LogSettings(tmp_path / "log"))
    router.chat()
    router.stop()
    router.join()
    lines = [json.loads(line) for file in (tmp_path / "log").glob("*.jsonl") for line in file.read_text().splitlines()]
    steps = next(line["outcome"]["steps"] for line in lines if "outcome" in line)
    assert [(step["backend"], step["kind"], step["outcome"]) for step in steps] == [
        ("slow", "first", "cancelled"), ("other", "hedge", "ok"),
    ]  # fmt: skip


class Late:
    """Attempts: the first answers when it is told to, the other while it is being cancelled, which takes a moment."""

    def __init__(self):
        self.late, self.settling = asyncio.Event(), asyncio.Event()

    def quantile_s(self, candidate, share, stream):
        return 0.0

    async def make(self, candidate, ask, kind, patience_s=None):
        step = Step(candidate.target.backend, kind)
        ask.steps.append(step)
        try:
            if kind == "first":
                await self.late.wait()
            else:
                self.late.set()
                await asyncio.sleep(10)
        except asyncio.CancelledError:
            self.settling.set()
            await asyncio.sleep(0.05)
        return Result(Answer(usage=Usage(1, 1)), candidate, len(ask.steps), 0.0, mock.Mock(), step, 1.0)


def test_who_leaves_while_the_slower_one_is_ended_pays_for_both_once():
    async def run():
        candidates = [mock.Mock(target=mock.Mock(backend=name)) for name in ("slow", "other")]
        executor, attempts = Executor({}, mock.Mock(), mock.Mock()), Late()
        executor._attempts = attempts
        ask = Ask(Call("m", "/v1/chat/completions", b"{}"), time.monotonic() + 60)
        always = mock.Mock(after_quantile=0.5)
        task = asyncio.create_task(executor._hedged(candidates, ask, _Failures(), always, mock.Mock()))
        await attempts.settling.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert sorted(waste.candidate.target.backend for waste in ask.wasted) == ["other", "slow"]

    asyncio.run(run())
