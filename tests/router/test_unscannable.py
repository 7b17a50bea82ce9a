"""What no detector can read has the level that the policy gives it; a refusal says what raised the label."""

from __future__ import annotations

import pytest

CONFIG = """
kind: Fleet
backends:
  - {name: home, tier: onprem, region: jp, protocol: fake, clearance: restricted,
     models: {chat: {task: chat}, t: {task: vision}}}
  - {name: cloud, tier: cloud, region: us, protocol: fake, clearance: internal, latency: {prior_ms: 1},
     models: {chat: {task: chat}, t: {task: vision}}}
---
kind: Policy
sensitivity: {unscannable: confidential, detectors: [{use: pii, label: confidential}]}
rules: [{name: r, objective: {latency: {weight: 1}}, transform: pseudonymise}]
"""
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TEXT = {"type": "text", "text": "what is this?"}


@pytest.fixture
def router(start_router):
    return start_router(CONFIG)


def chat(router, *parts):
    messages = [{"role": "user", "content": list(parts)}]
    return router.call("POST", "/v1/chat/completions", {"model": "chat", "messages": messages})


@pytest.mark.parametrize("part", [IMAGE, {"type": "input_audio", "input_audio": {}}, {"type": "new-kind"}])
def test_pictures_sound_and_what_is_not_known_stay_at_home(router, part):
    reply = chat(router, TEXT, part)
    assert (reply.status, reply.backend, reply.headers["x-pointsman-label"]) == (200, "home", "confidential")


def test_text_alone_is_not_raised(router):
    assert chat(router, TEXT).backend == "cloud"


def test_masking_the_text_does_not_make_a_picture_readable(router):
    assert chat(router, {"type": "text", "text": "mail tanaka@example.co.jp"}).backend == "cloud"
    assert chat(router, {"type": "text", "text": "mail tanaka@example.co.jp"}, IMAGE).backend == "home"


def test_tensors_of_numbers(router):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    reply = router.call("POST", "/v2/models/t/infer", {"inputs": [tensor]})
    assert (reply.backend, reply.headers["x-pointsman-label"]) == ("home", "confidential")
    words = {"name": "x", "datatype": "BYTES", "shape": [1], "data": ["hello"]}
    reply = router.call("POST", "/v2/models/t/infer", {"inputs": [words]})
    assert reply.headers["x-pointsman-label"] == "internal"


def test_a_refusal_says_what_raised_the_label(start_router):
    router = start_router(CONFIG.replace("clearance: restricted", "clearance: internal").replace(
        ", transform: pseudonymise", ""))  # fmt: skip
    reply = chat(router, {"type": "text", "text": "mail tanaka@example.co.jp"})
    assert reply.status == 403
    message = reply.json()["error"]["message"]
    assert "the label comes from pii:EMAIL_ADDRESS" in message
    assert "tanaka" not in message
