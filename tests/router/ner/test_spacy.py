"""A real model of Japanese names (GiNZA, MIT), from the policy to the answer."""

from __future__ import annotations

import json
import os
import signal

import pytest
from conftest import run_command

from policies.errors import ConfigurationError
from router.ner.process import recogniser

FLEET = """
kind: Fleet
backends:
  - {name: home, tier: onprem, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}},
     latency: {prior_ms: 900}}
  - {name: cloud, tier: cloud, region: us, protocol: fake, clearance: internal, latency: {prior_ms: 10},
     models: {chat: {task: chat}}, script: [{text: "[PERSON_1]様、承知しました。"}]}
---
"""
POLICY = """
kind: Policy
sensitivity:
  detectors:
    - {use: pii, label: confidential}
    - {use: ner, model: ja_ginza, label: confidential, entities: [PERSON, LOCATION], timeout_ms: 20000}
rules:
  - {name: mask, match: {label: confidential, entities: {only: [PERSON, LOCATION, PHONE]}}, transform: pseudonymise,
     objective: {latency: {weight: 1}}}
  - {name: other, objective: {latency: {weight: 1}}}
"""
TEXT = "田中太郎さんは大阪市に住んでいます。電話は090-1234-5678です。"


@pytest.fixture
def router(start_router):
    return start_router(FLEET + POLICY)


def test_names_are_masked_and_come_back(router):
    reply = router.chat(TEXT)
    assert (reply.status, reply.backend, reply.headers["x-pointsman-label"]) == (200, "cloud", "confidential")
    sent = json.loads(router.backend("cloud").calls[-1].body)["messages"][0]["content"]
    assert sent == "[PERSON_1]さんは[LOCATION_1]に住んでいます。電話は[PHONE_NUMBER_1]です。"
    assert reply.json()["choices"][0]["message"]["content"] == "田中太郎様、承知しました。"
    assert router.chat("今日の天気は晴れです。").headers["x-pointsman-label"] == "internal"


def test_while_the_model_is_gone_everything_stays_at_home(router):
    model = recogniser("ja_ginza")
    os.kill(model._process.pid, signal.SIGKILL)
    reply = router.chat("hello")
    assert (reply.headers["x-pointsman-label"], reply.backend) == ("restricted", "home")
    assert router.count("pointsman_detector_failures_total", detector="ner") == 1
    model.load()
    assert router.chat("hello").headers["x-pointsman-label"] == "internal"


def test_a_model_that_is_not_there_does_not_start(start_router):
    with pytest.raises(ConfigurationError) as refused:
        start_router(FLEET + POLICY.replace("ja_ginza", "no_such_model"))
    assert "the model cannot be loaded" in str(refused.value)
    assert "no_such_model" in str(refused.value)


def test_scan_shows_the_places(capsys, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY.replace("kind:", "apiVersion: pointsman/v1\nkind:"))
    (tmp_path / "texts").write_text(TEXT)
    status, out, _ = run_command(capsys, "scan", "--policy", tmp_path / "policy.yaml", tmp_path / "texts")
    assert status == 0
    assert [(e["type"], TEXT[e["start"] : e["end"]]) for e in json.loads(out)["entities"]] == [
        ("PERSON", "田中太郎"), ("LOCATION", "大阪市"), ("PHONE_NUMBER", "090-1234-5678"),
    ]  # fmt: skip
