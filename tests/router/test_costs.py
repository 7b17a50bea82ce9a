"""What the metrics say that requests cost is what their records say, recomputed here from the prices in the YAML."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
import yaml
from test_execution import at_rest, wait_until

from backends.calls import Answer, Usage
from backends.errors import BadAnswer, Failed, Overloaded, TimedOut
from backends.registry import BUILDERS
from router.decisionlog.files import chains, lines
from router.decisionlog.writer import LogSettings

CONFIG = """
kind: Fleet
ejection: {failures: 1000, failure_share: 1}
backends:
  - {name: edge, tier: edge, region: jp, protocol: fake, clearance: restricted, latency: {prior_ms: 5},
     limits: {max_in_flight: 16}, models: {chat: {task: chat, quality: 0.3}},
     price: {reserved_per_hour: 0.36, capacity_rps: 2, per_second: 0.01},
     energy: {active_w: 15}, carbon: {g_per_kwh: 485}}
  - {name: onprem, tier: onprem, region: jp, protocol: fake, clearance: confidential, latency: {prior_ms: 6},
     models: {chat: {task: chat, quality: 0.6}}, price: {per_request: 0.002}, energy: {active_w: 300}}
  - {name: cloud, tier: cloud, region: us, protocol: fake, clearance: internal, latency: {prior_ms: 7},
     models: {chat: {task: chat, quality: 0.9}}, price: {input_per_mtok: 150, output_per_mtok: 600}}
  - {name: trial, tier: cloud, region: us, protocol: fake, clearance: internal,
     models: {chat: {task: chat}}, price: {per_request: 0.0001, output_per_mtok: 60}}
---
kind: Policy
sensitivity: {default: public}
rules:
  - {name: hedged, match: {usage: hedged}, objective: {latency: {weight: 1}}, strategy: {hedge: {max_extra_load: 0.3}}}
  - {name: sure, match: {usage: sure}, objective: {latency: {weight: 1}},
     strategy: {cascade: {escalate_below_confidence: 0.8}}}
  - {name: resumed, match: {usage: resumed}, objective: {cost: {weight: 1}}, fallback: {resume: true}}
  - {name: tried, match: {usage: tried}, shadow: {backend: trial, share: 0.5}, slo: {latency_ms: 20}}
budgets: [{match: {usage: limited}, usd: 0.05, per: day, on_exhausted: reject}]
"""
CENT = Decimal("0.005")


class Varied:
    """Answers of all kinds: quick and slow, whole and streamed, counted and not, sure and unsure; and failures."""

    def __init__(self, spec, folder, api_key):
        self.spec, self._rng = spec, random.Random(spec.name)

    async def start(self): ...

    async def probe(self): ...

    async def metadata(self, model):
        return None

    async def aclose(self): ...

    async def send(self, call):
        rng = self._rng
        await asyncio.sleep(rng.choice([0, 0, 0.001, 0.003, 0.02]))
        failure = rng.choices([None, Failed, TimedOut, Overloaded, BadAnswer], [85, 6, 3, 3, 3])[0]
        if failure is not None:
            raise failure(f"{self.spec.name}: as the dice said")
        usage = Usage(rng.randrange(1, 3000), rng.randrange(1, 900)) if rng.random() < 0.7 else None
        if call.stream:
            return Answer(chunks=Events(rng.randrange(1, 9), usage, rng.random() < 0.1))
        logprobs = {"content": [{"token": "x", "logprob": rng.choice([-0.01, -3])}]}
        message = {"role": "assistant", "content": "x"}
        body = {"choices": [{"index": 0, "message": message, "logprobs": logprobs}]}
        return Answer(body=json.dumps(body).encode(), usage=usage)


class Events:
    def __init__(self, pieces, usage, breaks):
        piece = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
        self.left, self.breaks = [piece] * pieces, breaks
        if usage is not None and not breaks:
            counted = {"prompt_tokens": usage.tokens_in, "completion_tokens": usage.tokens_out}
            self.left.append(b"data: " + json.dumps({"choices": [], "usage": counted}).encode() + b"\n\n")

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if self.left:
            return self.left.pop(0)
        if self.breaks:
            raise BadAnswer("it broke off")
        raise StopAsyncIteration

    async def aclose(self): ...


def ask_many(router, number, seed, told):
    """So many requests on one connection, of all kinds. What came of each is added to `told`."""
    rng = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=30)
    for _ in range(number):
        stream = rng.random() < 0.3
        body = {"model": "chat", "stream": stream, "messages": [{"role": "user", "content": "x" * rng.randrange(200)}]}
        if rng.random() < 0.02:
            body["messages"] = "not a list"
        usage = rng.choice(["", "hedged", "sure", "resumed", "tried", "limited"])
        headers = {"content-type": "application/json", "x-data-sensitivity": rng.choice(["public", "confidential"])}
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), headers | ({"x-usage": usage} if usage else {})
        )
        reply = connection.getresponse()
        answer = reply.read()
        cost = None if stream or reply.status != 200 else Decimal(reply.headers["x-pointsman-cost-usd"])
        told.append((reply.status, stream, b'"error"' in answer, cost))
    connection.close()


@pytest.fixture(scope="module")
def prices():
    fleet = yaml.safe_load(CONFIG.split("---")[0])
    return {backend["name"]: {k: Decimal(str(v)) for k, v in backend["price"].items()} for backend in fleet["backends"]}


def recomputed(charge, price):
    """USD, from the fleet's prices and what the record says was used."""
    none = Decimal(0)
    usd = price.get("per_request", none) + Decimal(charge["seconds"]) * price.get("per_second", none)
    usd += charge.get("tokens_in", 0) * price.get("input_per_mtok", none) / 1_000_000
    usd += charge.get("tokens_out", 0) * price.get("output_per_mtok", none) / 1_000_000
    if "capacity_rps" in price:
        usd += price["reserved_per_hour"] / 3600 / price["capacity_rps"]
    return usd


@pytest.mark.timeout(240)
def test_the_metrics_agree_with_the_decision_log_to_the_cent(start_router, tmp_path: Path, prices):
    builders = {**BUILDERS, "fake": Varied}
    router = start_router(CONFIG, builders=builders, decision_log=LogSettings(tmp_path / "log"))
    told: list[tuple] = []
    threads = [threading.Thread(target=ask_many, args=(router, 1250, seed, told)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 10_000
    wait_until(lambda: at_rest(router) and not router.service.shadows._tasks)
    metrics = router.metrics()
    router.service.log.flush()
    records = [msgspec.json.decode(line) for line in lines(next(iter(chains([tmp_path / "log"]).values())))]

    asked = [record for record in records if "id" in record]
    copies = [record for record in records if record.get("event") == "copy"]
    charges = [c for record in asked for c in record["outcome"].get("charges", ())]
    charges += [c for record in copies for c in record["charges"]]

    def total(name, **labels):
        return sum(Decimal(v) for (n, found), v in metrics.items() if n == name and set(labels.items()) <= found)

    for backend, price in prices.items():
        own = [c for c in charges if c["backend"] == backend]
        assert own, backend
        expected = sum(recomputed(c, price) for c in own)
        assert abs(total("pointsman_cost_usd_total", backend=backend) - expected) < CENT, backend
        reserved = sum(
            price["reserved_per_hour"] / 3600 / price["capacity_rps"] for _ in own if "capacity_rps" in price
        )
        assert abs(total("pointsman_marginal_cost_usd_total", backend=backend) - (expected - reserved)) < CENT
    everything = sum(recomputed(c, prices[c["backend"]]) for c in charges)
    assert everything > 10, "enough that a cent is little"
    assert abs(total("pointsman_cost_usd_total") - everything) < CENT

    kinds = Counter(c.get("purpose", "answer") for c in charges)
    assert min(kinds[kind] for kind in ("answer", "unused", "broken", "copy")) > 20, kinds
    assert kinds["answer"] == sum(record["outcome"]["outcome"] == "ok" for record in asked)
    assert sum(c.get("estimated", False) for c in charges) > 500
    of_tenant = sum(recomputed(c, prices[c["backend"]]) for r in asked for c in r["outcome"].get("charges", ()))
    assert abs(total("pointsman_tenant_cost_usd_total", tenant="anonymous") - of_tenant) < CENT
    # What clients were told of whole answers, too.
    whole = [r for r in asked if r["outcome"]["outcome"] == "ok" and not r["request"].get("stream")]
    assert abs(sum(c for *_, c in told if c is not None) - sum(Decimal(r["outcome"]["cost_usd"]) for r in whole)) < CENT
    # The cloud's price of every answer, or its own cost where the cloud may not have it: that is still its baseline.
    answers = [next(c for c in r["outcome"]["charges"] if c.get("purpose", "answer") == "answer") for r in asked
               if r["outcome"]["outcome"] == "ok"]  # fmt: skip
    cheapest = sum(min(recomputed({**c, "seconds": 0}, prices[name]) for name in ("cloud", "trial")) for c in answers)
    assert abs(total("pointsman_baseline_cost_usd_total") - cheapest) < CENT
    # Every request is counted, once.
    assert total("pointsman_requests_total") == 10_000
    assert total("pointsman_requests_total", outcome="ok") == len(answers)
    assert total("pointsman_tenant_requests_total") == 10_000
    outcomes = Counter(r["outcome"]["outcome"] for r in asked)
    for outcome in ("upstream_error", "stream_broken", "budget_exhausted"):
        assert total("pointsman_requests_total", outcome=outcome) == outcomes[outcome] > 0
    joules = sum(Decimal(c.get("energy_j", 0)) for c in charges)
    assert joules > 0
    assert total("pointsman_energy_joules_total") == pytest.approx(joules)
    assert total("pointsman_tokens_total") == sum(c.get("tokens_in", 0) + c.get("tokens_out", 0) for c in charges)
