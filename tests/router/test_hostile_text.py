"""Texts made to be slow to scan: bounded time, and others are answered meanwhile."""

from __future__ import annotations

import threading
import time

import pytest

CONFIG = """
kind: Fleet
backends:
  - {name: home, tier: onprem, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}}}
---
kind: Policy
sensitivity: {detectors: [{use: pii, label: confidential}, {use: secrets, label: restricted}]}
"""
MIB = 1024 * 1024


@pytest.fixture
def router(start_router):
    return start_router(CONFIG)


def longest_wait(router, work):
    """(what the work gives, the longest that a health check waited meanwhile, in seconds)."""
    waits, done = [], threading.Event()

    def ask():
        while not done.is_set():
            began = time.monotonic()
            assert router.call("GET", "/healthz").status == 200
            waits.append(time.monotonic() - began)
            time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        return work(), max(waits, default=0.0)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(
    ("piece", "label"),
    [
        ("4111 1111 1111 1112 ", "internal"),  # a wrong check digit
        ("a@b..c ", "internal"),
        ("%41%4", "internal"),
        ("mail tanaka@example.co.jp now ", "confidential"),
        ("[EMAIL_ADDRESS_1] [", "internal"),
        ("eyJhbGciOiJIUzI1NiJ9.", "restricted"),  # three in a row have the shape of a token
        ("eyJhbGciOiJIUzI1NiJ9 ", "internal"),
    ],
)
def test_a_mebibyte_of_it_is_answered_and_holds_nobody_up(router, piece, label):
    text = piece * (MIB // len(piece))
    (reply, wait) = longest_wait(router, lambda: router.chat(text))
    assert (reply.status, reply.headers["x-pointsman-label"]) == (200, label)
    assert wait < 2, "generous: what is slow is the machine, not the wait"


def test_a_chat_of_ten_thousand_messages(router):
    messages = [{"role": "user", "content": f"message {i}"} for i in range(9_999)]
    messages.append({"role": "user", "content": "mail tanaka@example.co.jp"})
    reply = router.chat(messages=messages)
    assert (reply.status, reply.headers["x-pointsman-label"]) == (200, "confidential")


def test_text_over_the_budget_of_the_scan_has_the_top_label(start_router):
    router = start_router(CONFIG.replace("sensitivity: {", "sensitivity: {scan_bytes: 100000, "))
    assert router.chat("x " * 60_000).headers["x-pointsman-label"] == "restricted"
