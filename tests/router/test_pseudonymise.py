"""Masking, end to end: what leaves holds nothing that was found, what comes back is whole, and doubt stays at home."""

from __future__ import annotations

import json

import pytest

FLEET = """
kind: Fleet
backends:
  - {name: home, tier: onprem, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}},
     latency: {prior_ms: 900}}
  - {name: cloud, tier: cloud, region: us, protocol: fake, clearance: internal, latency: {prior_ms: 10},
     models: {chat: {task: chat}}, script: [{text: "Dear [EMAIL_ADDRESS_1], [EMAIL_ADDRESS_2] and [EMAIL_ADDRESS_9].",
     chunks: 17}]}
---
kind: Policy
sensitivity:
  detectors:
    - {use: pii, label: confidential}
    - {use: secrets, label: restricted}
    - {use: keywords, words: [社外秘], label: confidential}
rules:
  - {name: mask, match: {label: confidential}, transform: pseudonymise, objective: {latency: {weight: 1}}}
  - {name: other, objective: {latency: {weight: 1}}}
"""
TEXT = "田中 tanaka@example.co.jp は suzuki@example.co.jp に tanaka@example.co.jp から書いた。"


@pytest.fixture
def router(start_router):
    return start_router(FLEET)


def sent(router, name="cloud"):
    return b"".join(call.body for call in router.backend(name).calls).decode()


def test_what_leaves_holds_nothing_and_what_comes_back_is_whole(router):
    reply = router.chat(TEXT)
    assert (reply.status, reply.backend, reply.headers["x-pointsman-label"]) == (200, "cloud", "confidential")
    out = sent(router)
    assert "example.co.jp" not in out
    assert json.loads(out)["messages"][0]["content"] == (
        "田中 [EMAIL_ADDRESS_1] は [EMAIL_ADDRESS_2] に [EMAIL_ADDRESS_1] から書いた。"
    )
    answer = reply.json()["choices"][0]["message"]["content"]
    assert answer == "Dear tanaka@example.co.jp, suzuki@example.co.jp and [EMAIL_ADDRESS_9]."
    assert router.count("pointsman_pseudonymised_total") == 2
    assert router.count("pointsman_placeholders_unrestored_total") == 1
    assert router.backend("cloud").calls[0].label == 1, "what was sent is internal, and the guard is told so"


def test_a_stream_is_restored(router):
    reply = router.chat(TEXT, stream=True)
    assert reply.backend == "cloud"
    events = [line[6:] for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    said = "".join(json.loads(one)["choices"][0]["delta"].get("content", "") for one in events[:-1])
    assert said == "Dear tanaka@example.co.jp, suzuki@example.co.jp and [EMAIL_ADDRESS_9]."


def test_every_place_of_a_body_is_masked(router):
    reply = router.chat(
        "hello",
        user="tanaka@example.co.jp",
        metadata={"who": "suzuki@example.co.jp"},
        tools=[{"type": "function", "function": {"name": "f", "description": "mail tanaka@example.co.jp"}}],
    )
    assert reply.backend == "cloud"
    assert "example.co.jp" not in sent(router)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (TEXT + " 社外秘", {}),  # a word about the whole text does not go away with the word
        (TEXT + " AKIAIOSFODNN7EXAMPLE aws_secret_access_key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", {}),
        (TEXT, {"headers": {"x-data-sensitivity": "confidential"}}),
        ("hello", {"metadata": {"tanaka@example.co.jp": "a key is not masked"}}),
    ],
)
def test_what_masking_does_not_remove_stays_at_home(router, text, options):
    headers = options.pop("headers", None)
    reply = router.chat(text, headers, **options)
    assert (reply.status, reply.backend) == (200, "home")
    assert sent(router) == ""


def test_a_detector_that_fails_while_masking_means_home(router, monkeypatch):
    from policies.sensitivity.scanner import Scanner

    def broken(self, text):
        raise RuntimeError

    monkeypatch.setattr(Scanner, "cover", broken)
    assert router.chat(TEXT).backend == "home"
    assert sent(router) == ""


def test_masking_that_misses_something_means_home(router, monkeypatch):
    """The masked text is scanned again: what is left in it raises the label again."""
    from policies.sensitivity.scanner import Scanner

    monkeypatch.setattr(Scanner, "cover", lambda self, text: [])
    assert router.chat(TEXT).backend == "home"
    assert sent(router) == ""


def test_a_look_alike_comes_back_as_it_was(router):
    router.chat("[EMAIL_ADDRESS_1] is written here, and tanaka@example.co.jp")
    content = json.loads(sent(router))["messages"][0]["content"]
    assert content == "[TEXT_1] is written here, and [EMAIL_ADDRESS_1]"


def test_explain_says_what_would_be_masked(router):
    body = {"model": "chat", "messages": [{"role": "user", "content": TEXT}]}
    reply = router.call("POST", "/explain", {"path": "/v1/chat/completions", "body": body}, admin=True).json()
    assert (reply["label"], reply["sent_label"], reply["transform"]) == ("confidential", "internal", "pseudonymise")


def test_nothing_of_it_is_kept(router, caplog):
    router.chat(TEXT)
    router.chat(TEXT, stream=True)
    shown = router.call("GET", "/decisions", admin=True).body + router.call("GET", "/metrics", admin=True).body
    assert b"example.co.jp" not in shown
    assert "example.co.jp" not in caplog.text
    assert "example.co.jp" not in repr(router.service.recent.latest())


PASSWORD = "Xk9fe2qq9x"
CREDENTIALS = FLEET.replace("label: restricted}", "label: confidential}")


@pytest.mark.parametrize(
    "texts",
    [
        [f"My password is {PASSWORD}. I typed {PASSWORD} twice and {PASSWORD} was refused."],
        [f"password: {PASSWORD}", f"So you want to log in with {PASSWORD}?", "yes"],
        [f"My password: {PASSWORD} 4111 1111 1111 1111"],
        ["password: Xk9!fe2#qq:4111 1111 1111 1111"],
        ["pay with 4111 1111 1111 1111/dXNlcjp0YW5ha2FAZXhhbXBsZS5jby5qcCB3cm90ZSB0aGlz"],
        [f"password: {PASSWORD}", f"in another case: {PASSWORD.upper()}"],
        [f"password: {PASSWORD}", "full width: " + PASSWORD.translate({c: c + 0xFEE0 for c in range(33, 127)})],
    ],
)
def test_no_copy_and_no_part_of_what_was_found_leaves(start_router, texts):
    router = start_router(CREDENTIALS)
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    assert router.chat(messages=messages).status == 200
    out = sent(router)
    for secret in (PASSWORD, PASSWORD.upper(), "Xk9!fe2", "4111", "1111", "dXNlcjp0"):
        assert secret not in out
    assert PASSWORD.translate({c: c + 0xFEE0 for c in range(33, 127)}) not in out


def test_masking_takes_linear_time(router):
    import time

    def seconds(n):
        """The best of three: whatever else the machine does only adds."""
        taken = []
        for _ in range(3):
            began = time.monotonic()
            assert router.chat("[A_1] a@b.co " * n).status == 200
            taken.append(time.monotonic() - began)
        return min(taken)

    seconds(100)
    assert seconds(8000) < 16 * max(seconds(1000), 0.02), "eight times the text; the square would be sixty-four times"
