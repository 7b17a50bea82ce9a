"""Told to stop: no new connections, time for what is in progress, and a proper end for what is not done by then."""

from __future__ import annotations

import json
import threading
import time

import pytest
from test_execution import wait_until

SLOW = """
kind: Fleet
backends:
  - {name: b, tier: edge, region: jp, clearance: restricted, protocol: fake, models: {chat: {task: chat}},
     script: [SCRIPT]}
"""


def asking(router, **fields):
    """A request in progress; its reply comes into the list."""
    replies = []
    thread = threading.Thread(target=lambda: replies.append(router.chat(**fields)))
    thread.start()
    wait_until(lambda: len(router.backend("b").calls) == 1)
    return thread, replies


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_done_in_time_is_answered(start_router, stream):
    script = "{chunks: 5, chunk_delay_ms: 100}" if stream else "{latency_ms: 500}"
    router = start_router(SLOW.replace("SCRIPT", script), drain_s=5.0)
    thread, replies = asking(router, stream=stream)
    router.stop()
    thread.join(10)
    assert replies[0].status == 200
    assert not stream or replies[0].body.rstrip().endswith(b"[DONE]")
    with pytest.raises(OSError):
        router.chat()


def test_a_stream_that_goes_on_ends_with_an_event_that_says_why(start_router):
    router = start_router(SLOW.replace("SCRIPT", "{chunks: 100, chunk_delay_ms: 100}"), drain_s=0.5)
    thread, replies = asking(router, stream=True)
    began = time.monotonic()
    router.stop()
    thread.join(10)
    assert time.monotonic() - began < 3
    events = [line[6:] for line in replies[0].body.decode().splitlines() if line.startswith("data: ")]
    assert json.loads(events[-1])["error"]["code"] == "shutting_down"
    router.join()
    assert router.service.state.backends[0].in_flight == 0


def test_an_answer_that_is_not_there_is_a_503(start_router):
    router = start_router(SLOW.replace("SCRIPT", "{latency_ms: 30000}"), drain_s=0.3)
    thread, replies = asking(router)
    router.stop()
    thread.join(10)
    assert (replies[0].status, replies[0].json()["error"]["code"]) == (503, "shutting_down")
    assert replies[0].headers["retry-after"] == "1"
    router.join()
    assert router.backend("b").cancelled == 1


def test_it_is_not_ready_from_then_on(start_router):
    router = start_router(SLOW.replace("SCRIPT", "{latency_ms: 600}"), drain_s=3.0)
    assert router.service.readiness()["ready"] is True
    thread, _ = asking(router)
    router.stop()
    wait_until(lambda: router.service.readiness()["ready"] is False, 1)
    thread.join(10)
