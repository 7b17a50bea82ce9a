"""The small model first, the better one where it is unsure: inside the deadline, and never worse than without."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from unittest import mock

import numpy as np
import pytest
from conftest import compile_text
from test_execution import at_rest, wait_until
from upstream import Answers, upstream

from backends.calls import Answer, Call
from backends.tensors import InferAnswer, Tensor
from policies.errors import ConfigurationError
from policies.schema import Cascade
from router import confidence
from router.attempts import Ask, Result, Step
from router.cascade import Cascading

EVENTS = {"content-type": "text/event-stream"}
FLEET = """
kind: Fleet
backends:
  - {{name: small, tier: edge, region: jp, clearance: restricted, protocol: openai, url: "{url}",
     latency: {{prior_ms: 10}}, models: {{chat: {{task: chat, quality: 0.3}}}}, price: {{per_request: 1}}}}
  - {{name: worse, tier: edge, region: jp, clearance: restricted, protocol: fake,
     latency: {{prior_ms: 20}}, models: {{chat: {{task: chat, quality: 0.2}}}}}}
  - {{name: large, tier: cloud, region: us, clearance: internal, protocol: fake, script: {large},
     latency: {{prior_ms: 100}}, models: {{chat: {{task: chat, quality: 0.9}}}}, price: {{per_request: 2}}}}
---
kind: Policy
rules:
  - {{name: cascade, objective: {{latency: {{weight: 1}}}}, fallback: {{attempts: 5}},
     strategy: {{cascade: {{escalate_below_confidence: 0.8, {more}}}}}}}
"""


def said(text, *logprobs):
    told = {"content": [{"token": "x", "logprob": one} for one in logprobs]} if logprobs else None
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": told}]}


@pytest.fixture
def small():
    with upstream() as server:
        yield server


def start(start_router, small, body, large="[{text: from the large}]", more=""):
    small.answers.body = body
    return start_router(FLEET.format(url=small.url, large=large, more=more))


def test_a_sure_answer_stands_and_shows_nothing_that_was_not_asked_for(start_router, small):
    router = start(start_router, small, said("sure", -0.01, -0.02))
    reply = router.chat()
    assert (reply.backend, reply.json()["choices"][0]["message"]["content"]) == ("small", "sure")
    assert json.loads(small.asked[-1].body)["logprobs"] is True
    assert reply.json()["choices"][0]["logprobs"] is None
    assert router.chat(logprobs=True).json()["choices"][0]["logprobs"]["content"]
    assert len(router.backend("large").calls) == 0


@pytest.mark.parametrize("logprobs", [(-2.0, -3.0), ()], ids=["unsure", "unreadable"])
def test_an_unsure_one_goes_on_to_higher_quality_and_both_are_paid_for(start_router, small, logprobs):
    router = start(start_router, small, said("perhaps", *logprobs))
    reply = router.chat()
    assert (reply.backend, reply.headers["x-pointsman-attempts"]) == ("large", "2")
    assert float(reply.headers["x-pointsman-cost-usd"]) == 3
    assert router.count("pointsman_cost_usd_total") == 3
    assert router.count("pointsman_attempts_total", kind="escalation", outcome="ok") == 1
    assert len(router.backend("worse").calls) == 0
    assert b"logprobs" not in router.backend("large").calls[-1].body
    assert at_rest(router)


def test_never_above_clearance(start_router, small):
    router = start(start_router, small, said("perhaps", -3.0))
    assert router.chat(headers={"x-data-sensitivity": "confidential"}).backend == "small"
    assert len(router.backend("large").calls) == 0


@pytest.mark.parametrize("large", ["[{fail: status_500}]", "[{fail: status_400}]", "[{latency_ms: 5000}]"])
def test_when_the_better_one_fails_the_answer_stands(start_router, small, large):
    router = start(start_router, small, said("perhaps", -3.0), large)
    reply = router.chat(headers={"x-slo-latency-ms": "600"})
    assert (reply.status, reply.backend) == (200, "small")
    assert reply.json()["choices"][0]["message"]["content"] == "perhaps"
    assert at_rest(router)


def test_without_time_for_the_better_one_the_answer_stands(start_router, small):
    router = start(start_router, small, said("perhaps", -3.0))
    assert router.chat(headers={"x-slo-latency-ms": "120"}).backend == "small"
    assert len(router.backend("large").calls) == 0


def test_a_backend_that_does_not_know_logprobs_answers_without_them(start_router, small):
    def answer(asked):
        refuses = b"logprobs" in asked.body
        return Answers(status=400, body={"error": {}}) if refuses else Answers(body=said("plain"))

    small.choose = answer
    router = start(start_router, small, {})
    assert router.chat(headers={"x-data-sensitivity": "confidential"}).status == 200


def test_text_that_must_be_json_and_is_not_goes_on(start_router, small):
    router = start(start_router, small, said("no json", -0.01), more="validator: json")
    assert router.chat().backend == "large"
    router = start(start_router, small, said('{"a": 1}'), more="validator: json")
    assert router.chat().backend == "small"


def events(*pieces):
    lines = [json.dumps({"choices": [{"index": 0, "delta": {"content": t}, "logprobs": {"content": [{"logprob": p}]}}]})
             for t, p in pieces]  # fmt: skip
    return "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]"))


@pytest.mark.parametrize(("logprob", "backend"), [(-0.01, "small"), (-3.0, "large")])
def test_a_stream_is_judged_before_it_begins(start_router, small, logprob, backend):
    router = start(start_router, small, {})
    first = events(("Hel", logprob)).replace("data: [DONE]\n\n", "")
    small.answers = Answers(
        chunks=[first.encode(), events(("lo", logprob)).encode()], headers={"content-type": "text/event-stream"}
    )
    reply = router.chat(stream=True)
    assert (reply.status, reply.backend) == (200, backend)
    assert reply.body.count(b"[DONE]") == 1
    assert (b"Hel" in reply.body) == (backend == "small")
    assert at_rest(router)


# --- how sure ---------------------------------------------------------------------------------------------------------


def of(rows, measure="probability", dtype="float32"):
    answer = Answer(infer=InferAnswer((Tensor.from_array("y", np.array(rows, dtype=dtype)),)))
    return confidence.of_answer(answer, Call("m", ""), Cascade(escalate_below_confidence=0.5, measure=measure))


def test_of_probabilities_and_of_logits():
    assert of([[0.1, 0.9]]) == pytest.approx(0.9)
    assert of([[0.0, np.log(9)]]) == pytest.approx(0.9)
    assert of([[0.1, 0.9], [0.4, 0.6]]) == pytest.approx(0.6), "the least sure of a batch"
    assert of([[0.2, 0.7, 0.1]], "margin") == pytest.approx(0.5)
    assert of([[0.5, 0.5]], "entropy") == pytest.approx(0.0)
    assert of([[1.0, 0.0]], "entropy") == pytest.approx(1.0)
    assert of([[0.03]]) == pytest.approx(0.97), "one probability of yes"


@pytest.mark.parametrize("rows", [[[np.nan, 1]], [[np.inf, 1]], np.zeros((0, 3)), np.zeros((2, 0)), [[7.0]], [[-1.0]]])
def test_what_cannot_be_read_has_none(rows):
    assert of(rows) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices": 1}', b'{"choices": [1]}', b"\xff",
                                  b'{"choices": [{"logprobs": {"content": [{"logprob": "x"}]}}]}'])  # fmt: skip
def test_a_body_without_any_has_none(body):
    call = Call("m", "/v1/chat/completions")
    assert confidence.of_answer(Answer(body=body), call, Cascade(escalate_below_confidence=0.5)) is None


def test_asking_changes_nothing_else():
    body = b'{"model":"m","messages":[{"role":"user","content":"\xe7\xa4\xbe"}],"x":1.50}'
    asked = confidence.asking(Call("m", "/v1/chat/completions", body)).body
    assert asked == body[:-1] + b',"logprobs":true}'
    same = Call("m", "/v1/chat/completions", b'{"logprobs":true}')
    assert confidence.asking(same) is same
    assert confidence.asking(Call("m", "/v1/embeddings", b"{}")).body == b"{}"


# --- nothing is lost on the way ---------------------------------------------------------------------------------------


def test_a_client_that_leaves_while_a_stream_is_judged_frees_everything(start_router, small):
    small.answers = Answers(chunks=[events(("a", -0.1)).encode()] * 400, headers=EVENTS, pause_s=0.05)
    router = start(start_router, small, None)
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=20)
    body = json.dumps({"model": "chat", "stream": True, "messages": [{"role": "user", "content": "x"}]})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    wait_until(lambda: len(small.asked) == 1)
    connection.close()
    wait_until(lambda: at_rest(router), 2)
    assert router.service.state.backends[0].places.taken == 0


@pytest.mark.parametrize(
    "odd",
    [{"index": [], "delta": {}}, {"index": 0, "delta": {}, "logprobs": {"content": [{"logprob": 10**400}]}}, 7, None],
)
@pytest.mark.parametrize("stream", [False, True])
def test_whatever_a_backend_makes_of_its_answer_it_is_only_not_sure(start_router, small, odd, stream):
    body = {"choices": [odd]}
    router = start(start_router, small, body)
    if stream:
        small.answers = Answers(chunks=[f"data: {json.dumps(body)}\n\n".encode()], headers=EVENTS)
    assert router.chat(stream=stream).backend == "large"
    assert at_rest(router)


def test_a_stream_that_takes_too_long_to_judge_goes_on_whole(start_router, small):
    pieces = [events((f"{i} ", -0.1)).replace("data: [DONE]\n\n", "").encode() for i in range(20)]
    small.answers = Answers(chunks=[*pieces, b"data: [DONE]\n\n"], headers=EVENTS, pause_s=0.05)
    router = start(start_router, small, None, large="[{fail: status_500}]")
    reply = router.chat(headers={"x-slo-ttft-ms": "600"}, stream=True)
    said = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: {")]
    assert "".join(one["choices"][0]["delta"]["content"] for one in said) == "".join(f"{i} " for i in range(20))
    assert reply.body.rstrip().endswith(b"[DONE]")
    assert b'"logprob"' not in reply.body, "nobody asked for it"


def test_a_stream_that_breaks_while_it_is_judged_says_so(start_router, small):
    small.answers = Answers(
        chunks=[events(("a", -0.1)).replace("data: [DONE]\n\n", "").encode()], headers=EVENTS, cut=True
    )
    router = start(start_router, small, None, large="[{fail: status_500}]")
    reply = router.chat(stream=True)
    assert b'"error"' in reply.body
    assert router.count("pointsman_requests_total", outcome="stream_broken") == 1


def test_what_was_generated_and_not_used_is_paid_for(start_router, small):
    small.answers = Answers(chunks=[events(*[("w", -3.0)] * 5).encode()], headers=EVENTS)
    router = start(start_router, small, None)
    assert router.chat(stream=True).backend == "large"
    assert router.count("pointsman_cost_usd_total", backend="small") == 1


def test_a_rule_hedges_or_cascades_and_not_both():
    text = FLEET.format(url="http://127.0.0.1:1", large="[{}]", more="").replace("cascade: {", "hedge: {}, cascade: {")
    with pytest.raises(ConfigurationError, match="hedges or cascades, not both"):
        compile_text(text)


class Ending:
    """Chunks whose end takes a moment, in which the request may be cancelled."""

    def __init__(self, closing):
        self._closing = closing

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise StopAsyncIteration

    async def aclose(self):
        self._closing.set()
        await asyncio.sleep(0.05)


class Two:
    """Attempts of which each gives a stream at once."""

    def __init__(self):
        self.results, self.closing = [], asyncio.Event()

    async def make(self, candidate, ask, kind, patience_s=None):
        step = Step(candidate.target.backend, kind)
        ask.steps.append(step)
        result = Result(Answer(chunks=Ending(self.closing)), candidate, len(ask.steps), 0.0, mock.Mock(), step, 1.0)
        self.results.append(result)
        return result

    def answered(self, result): ...


def test_who_leaves_while_the_first_answer_is_put_away_pays_for_each_once():
    def candidate(name, quality):
        target = mock.Mock(backend=name, quality=quality)
        return mock.Mock(target=target, estimate=mock.Mock(latency_ms=1, ttft_ms=1))

    async def run():
        candidates = candidate("small", 0.1), candidate("large", 0.9)
        attempts = Two()
        ask = Ask(Call("m", "/v1/chat/completions", b"{}", True), time.monotonic() + 60)
        cascading = Cascading(attempts, Cascade(escalate_below_confidence=0.8), time.monotonic)
        task = asyncio.create_task(
            cascading.run(candidates, ask, lambda some, ask: attempts.make(some[0], ask, "first"))
        )
        await attempts.closing.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sorted(one.candidate.target.backend for one in ask.wasted) == ["large", "small"]
        assert all(result.lease.release.called for result in attempts.results)

    asyncio.run(run())
