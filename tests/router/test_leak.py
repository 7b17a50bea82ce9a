"""Canaries of every kind go through everything at once, while things break; none of them may be found outside.

The cloud is a real server that records every byte it gets. Beside it: the logs, the metrics, the decision log, the
admin port's answers. Meanwhile detectors crash and hang, backends fail, are slow and hedged, and policies are reloaded.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import Router, egress_blocked
from upstream import upstream

from backends.oip_codec import HEADER_LENGTH, encode_request
from backends.registry import BUILDERS
from backends.tensors import InferRequest, Tensor
from policies.sensitivity import scanner
from router import configuration
from router.decisionlog.writer import LogSettings
from router.loading import ConfigurationLoader
from router.ner.process import Unavailable
from router.settings import Settings

CANARIES = {
    "EMAIL_ADDRESS": ("tanaka.canary@example.co.jp", "{}"),
    "PHONE_NUMBER": ("090-8765-4321", "電話は {} です"),
    "CREDIT_CARD": ("4111 1111 1111 1111", "card {}"),
    "IBAN_CODE": ("DE89 3704 0044 0532 0130 00", "IBAN {}"),
    "IP_ADDRESS": ("203.0.113.77", "host {}"),
    "MAC_ADDRESS": ("02:1a:c5:9f:33:e7", "device {}"),
    "US_SSN": ("536-90-4399", "ssn {}"),
    "JP_MY_NUMBER": ("123456789018", "マイナンバー {}"),
    "DATE_OF_BIRTH": ("1984-11-23", "date of birth: {}"),
    "MEDICAL_RECORD": ("MRN 8412-77310", "patient {}"),
    "CLOUD_KEY": ("AKIAQ3EGRZJ7K4VYT2WB", "{}"),
    "JWT": (
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.dGhpcy1pcy1ub3QtYS1zaWduYXR1cmUtYXQtYWxs",
        "bearer {}",
    ),
    "TOKEN": ("hV7rQz2LkW9pXb4TnC8sDf3J", "password: {}"),
    "URL_CREDENTIALS": ("svc:Pa55-canary@db.internal", "postgres://{}/x"),
    "KEYWORD": ("極秘計画カナリア", "{}"),
    "PART": ("PN-771204", "part {}"),
}
"""Of each type of entity: a value, and a text in which it is one."""

CONFIG = """apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: home, tier: onprem, region: jp, protocol: fake, clearance: restricted, latency: {prior_ms: 10},
     models: {chat: {task: [chat, completion]}, vec: {task: embedding}, t: {task: text}},
     script: SCRIPT}
  - {name: home2, tier: edge, region: jp, protocol: fake, clearance: restricted, latency: {prior_ms: 950},
     models: {chat: {task: [chat, completion]}, vec: {task: embedding}, t: {task: text}}}
  - {name: cloud, tier: cloud, region: us, protocol: openai, clearance: internal, latency: {prior_ms: 1}, url: "URL",
     models: {chat: {task: [chat, completion]}, vec: {task: embedding}}}
  - {name: cloud-tensors, tier: cloud, region: us, protocol: oip, clearance: internal, latency: {prior_ms: 1},
     url: "URL", models: {t: {task: text}}}
  - {name: copies, tier: cloud, region: us, protocol: openai, clearance: internal, url: "URL",
     models: {chat: {task: [chat, completion]}}}
"""
POLICY = """apiVersion: pointsman/v1
kind: Policy
sensitivity:
  detectors:
    - {use: pii, label: confidential}
    - {use: secrets, label: restricted}
    - {use: keywords, words: [極秘計画カナリア], label: confidential}
    - {use: patterns, patterns: {PART: "\\\\bPN-[0-9]{6}\\\\b"}, label: confidential}
    - {use: ner, model: scripted, label: confidential, timeout_ms: 50}
rules:
  - {name: RULE, match: {stream: true, label: confidential}, transform: pseudonymise,
     objective: {latency: {weight: 1}}, fallback: {attempts: 5}, strategy: {hedge: {max_extra_load: 1}}}
  - {name: other, objective: {latency: {weight: 1}}, fallback: {attempts: 5}, shadow: {backend: copies},
     strategy: {hedge: {max_extra_load: 1}}}
"""
HOME_SCRIPT = (
    "[{fail: status_500}, {}, {fail: timeout}, {latency_ms: 90}, {break_after_chunks: 1}, {fail: rubbish}"
    + ", {latency_ms: 60}, {}, {}, {latency_ms: 90, fail: rubbish}, {}" * 40
    + "]"
)


@pytest.fixture
def cloud():
    with upstream() as server:
        server.answers.body = {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "[EMAIL_ADDRESS_1] ok"}, "text": "ok"}
            ],
            "data": [],
        }
        yield server


class Hangs:
    """A model of names that finds none, and now and then does not come back in time."""

    calls = itertools.count()

    def load(self):
        pass

    def __call__(self, texts, timeout_s):
        if next(self.calls) % 37 == 0:
            time.sleep(timeout_s)
            raise Unavailable("no answer in time")
        return [[] for _ in texts]


@pytest.fixture(autouse=True)
def model(monkeypatch):
    monkeypatch.setattr(configuration, "recogniser", lambda model: Hangs())


@pytest.fixture
def folder(tmp_path, cloud):
    path = tmp_path / "config"
    path.mkdir()
    (path / "fleet.yaml").write_text(CONFIG.replace("URL", cloud.url).replace("SCRIPT", HOME_SCRIPT))
    (path / "policy.yaml").write_text(POLICY.replace("RULE", "mask"))
    return path


@pytest.fixture
def router(folder, tmp_path):
    loader = ConfigurationLoader((folder,), {})
    router = Router(loader(), Settings(decision_log=LogSettings(tmp_path / "log")), BUILDERS, loader).start()
    yield router
    router.stop()


def disguises(text):
    """The same text as people may hide it."""
    yield text
    yield "\u200b".join(text)
    yield text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    yield base64.b64encode(f"here it is, as text: {text}".encode()).decode()
    yield text.replace(" ", "\u00a0")


def bodies(text):
    """Requests of every kind with the text in every place that can carry it: (path, body)."""
    user = {"role": "user", "content": "hello"}
    chat = "/v1/chat/completions"
    for stream in (False, True):
        common = {"model": "chat", "stream": stream}
        yield chat, {**common, "messages": [{"role": "user", "content": text}]}
        yield chat, {**common, "messages": [{"role": "system", "content": text}, user]}
        yield chat, {**common, "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": text})}}
        yield chat, {**common, "messages": [user, {"role": "assistant", "tool_calls": [call]}]}
        yield chat, {**common, "messages": [user, {"role": "tool", "tool_call_id": "c", "content": text}]}
        tool = {"type": "function", "function": {"name": "f", "description": text}}
        yield chat, {**common, "messages": [user], "tools": [tool], "user": text, "metadata": {"k": text}}
        yield chat, {**common, "messages": [user], "stop": [text], "metadata": {text: "a key"}}
    yield "/v1/completions", {"model": "chat", "prompt": [text, "and more"]}
    yield "/v1/embeddings", {"model": "vec", "input": ["first", text]}


def tensors(text):
    """Tensor requests: (headers, body)."""
    array = np.array([text], dtype=object)
    parts, length = encode_request(InferRequest((Tensor.from_array("x", array),), id="plain"))
    yield {HEADER_LENGTH: str(length), "content-type": "application/octet-stream"}, b"".join(parts)
    header = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    yield {}, json.dumps(header).encode()
    header = {"id": text, "inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
    yield {}, json.dumps(header).encode()


def everything():
    for kind, (value, sentence) in CANARIES.items():
        for text in disguises(sentence.format(value)):
            for path, body in bodies(text):
                yield kind, path, {}, json.dumps(body, ensure_ascii=False).encode()
            for headers, body in tensors(text):
                yield kind, "/v2/models/t/infer", headers, body


def found_in(data):
    """The canaries that some bytes hold, plain or hidden as the requests hide them."""
    text = data.decode(errors="replace")
    flat = scanner.normalise(text)
    spread = [flat, text]
    for word in flat.replace('"', " ").replace("\\", " ").split():
        if len(word) > 24:
            try:
                spread.append(base64.b64decode(word + "=" * (-len(word) % 4)).decode())
            except ValueError:
                continue
    return {kind for kind, (value, _) in CANARIES.items() for one in spread if value in one}


def test_every_canary_is_one(router):
    """Without this the others could pass for nothing: each value, in its sentence, keeps its request at home."""
    for kind, (value, sentence) in CANARIES.items():
        body = {"model": "chat", "messages": [{"role": "user", "content": sentence.format(value)}]}
        reply = router.call("POST", "/explain", {"path": "/v1/chat/completions", "body": body}, admin=True).json()
        assert reply["label"] in ("confidential", "restricted"), kind
        rejected = {one["backend"] for one in reply["rejected"] if any(by["filter"] == "clearance" for by in one["by"])}
        assert "cloud" in rejected, kind


def test_the_recorder_sees_what_may_leave(router, cloud):
    assert router.chat("nothing secret").backend == "cloud"
    assert b"nothing secret" in cloud.asked[-1].body


def test_nothing_leaks_while_everything_breaks(router, cloud, folder, tmp_path, monkeypatch, caplog, capfd):
    crash = itertools.count()
    real = scanner.Scanner._look

    def sometimes_broken(self, *arguments):
        if next(crash) % 11 == 0:
            raise RuntimeError("a detector crashed")
        return real(self, *arguments)

    monkeypatch.setattr(scanner.Scanner, "_look", sometimes_broken)
    done = threading.Event()

    def reloads():
        for i in itertools.count():
            if done.wait(0.1):
                return
            name = "not a name" if i % 3 == 2 else f"mask{i}"
            (folder / "policy.yaml").write_text(POLICY.replace("RULE", name))
            router.call("POST", "/reload", admin=True)

    reloader = threading.Thread(target=reloads)
    reloader.start()
    requests = list(everything())
    random.Random(1).shuffle(requests)
    try:
        with ThreadPoolExecutor(6) as pool:
            replies = list(pool.map(lambda one: (one[0], router.call("POST", one[1], one[3], one[2])), requests))
    finally:
        done.set()
        reloader.join()
    failures = router.count("pointsman_detector_failures_total", detector="ner")
    hedges = router.count("pointsman_attempts_total", kind="hedge")
    metrics = router.call("GET", "/metrics", admin=True).body
    decisions = router.call("GET", "/decisions", admin=True).body
    monkeypatch.undo()
    router.stop()
    assert len(replies) == len(requests) > 1000
    assert all(reply.status in (200, 429, 502, 503, 504) for _, reply in replies)
    assert sum(reply.status == 200 for _, reply in replies) > len(replies) / 2
    assert b"pointsman_egress_blocked_total" in metrics
    assert egress_blocked(router.service) == 0, "the guard had nothing to stop"
    left = [asked for asked in cloud.asked if found_in(asked.body + repr((asked.path, asked.headers)).encode())]
    assert left == [], f"{len(left)} of {len(cloud.asked)} requests to the cloud"
    assert cloud.asked, "masked streams went there"
    assert hedges > 10
    assert failures > 10, "detectors did crash and hang"
    log = b"".join(file.read_bytes() for file in (tmp_path / "log").iterdir())
    out, err = capfd.readouterr()
    for name, data in (
        ("metrics", metrics),
        ("decisions", decisions),
        ("decision log", log),
        ("log lines", caplog.text.encode()),
        ("output", (out + err).encode()),
    ):
        assert found_in(data) == set(), name


def test_refusals_and_errors_do_not_repeat_it(router, folder):
    (folder / "fleet.yaml").write_text(
        (folder / "fleet.yaml").read_text().replace("clearance: restricted", "clearance: public")
    )
    router.call("POST", "/reload", admin=True)
    for kind, (value, sentence) in CANARIES.items():
        reply = router.chat(sentence.format(value))
        assert reply.status == 403, kind
        assert found_in(reply.body + repr(reply.headers).encode()) == set()
