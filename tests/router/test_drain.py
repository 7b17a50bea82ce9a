"""Told to stop: no new connections, time for what is in progress, and a proper end for what is not done by then."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time

import pytest
from test_execution import wait_until

from router.demo.processes import free_port

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


def test_while_it_drains_it_answers_and_sends_clients_elsewhere(start_router):
    router = start_router(SLOW.replace("SCRIPT", "{latency_ms: 10}"), drain_s=3.0, drain_delay_s=1.0)
    kept = http.client.HTTPConnection("127.0.0.1", router.port, timeout=5)
    kept.request("GET", "/servez")
    before = kept.getresponse()
    assert (before.status, before.read(), before.getheader("connection")) == (200, b'{"serving":true}', None)
    router.stop()
    wait_until(lambda: router.service.draining, 1)
    kept.request("GET", "/servez")
    after = kept.getresponse()
    assert (after.status, after.read(), after.getheader("connection")) == (503, b'{"serving":false}', "close")
    reply = router.chat()
    assert (reply.status, reply.headers["connection"]) == (200, "close")


def test_backends_that_are_gone_do_not_take_it_out_of_service(start_router):
    """Their absence has an answer that says so, and a port without endpoints has none."""
    nobody = f"protocol: openai, url: 'http://127.0.0.1:{free_port()}'"
    router = start_router(SLOW.replace("protocol: fake", nobody).replace(",\n     script: [SCRIPT]", ""))
    wait_until(lambda: router.call("GET", "/readyz").status == 503, 10)
    assert router.call("GET", "/servez").status == 200
    assert router.call("GET", "/servez", admin=True).status == 200
    assert router.chat().json()["error"]["code"] in ("backends_unavailable", "upstream_error"), "it says what is wrong"


def test_connections_that_the_kernel_holds_are_answered_when_it_stops(start_router):
    """They have been accepted as far as their clients know, and are sent while the event loop is busy."""
    router = start_router(SLOW.replace("SCRIPT", "{latency_ms: 10}"), drain_s=3.0)
    busy = threading.Event()

    def hold_up():
        busy.set()
        time.sleep(0.3)

    router.loop.call_soon_threadsafe(hold_up)
    busy.wait()
    waiting = [socket.create_connection(("127.0.0.1", router.port), timeout=5) for _ in range(5)]
    for connection in waiting:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    router.stop()
    replies = [connection.recv(1000) for connection in waiting]
    assert [reply.split(b"\r\n")[0] for reply in replies] == [b"HTTP/1.1 200 OK"] * 5
    assert all(b"connection: close" in reply for reply in replies)
