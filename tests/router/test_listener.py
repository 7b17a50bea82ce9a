"""The data port as HTTP/1.1: framing, order, limits, and what becomes of clients that do not keep to it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import re
import resource
import socket
import threading
import time

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from test_promises import Transport

from router.http import HttpServer
from router.http.connection import MAX_HEAD_BYTES, ServerConnection
from router.http.direct import DirectBody
from router.http.request import HIGH_WATER, Inbound
from router.server import bind

FLEET = """
kind: Fleet
backends:
  - {name: b, tier: edge, region: jp, clearance: restricted, protocol: fake, models: {chat: {task: chat}}}
"""
BODY = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "こんにちは"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
GOOD = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
LAST = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture
def router(start_router):
    return start_router(FLEET)


def talk(router, *pieces, pause_s=0.0, wait_s=5.0):
    """All that comes back until the router closes the connection, or for so long."""
    with socket.create_connection(("127.0.0.1", router.port), timeout=wait_s) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause_s)
        said = b""
        try:
            while part := sock.recv(65536):
                said += part
        except TimeoutError:
            return said + b"(still open)"
        return said


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"content-length: 5\r\ncontent-length: 5\r\n\r\nabcde", 400),
        (HEAD + b"content-length: +5\r\n\r\nabcde", 400),
        (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (HEAD + b"x: a\r\n b\r\n\r\n", 400),
        (HEAD + b"x: a\rb\r\n\r\n", 400),
        (HEAD + b"x: a\n\r\n", 400),
        (HEAD + b"content-length : 0\r\n\r\n", 400),
        (HEAD + b"host: y\r\ncontent-length: 0\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET /healthz HTTP/2.0\r\nhost: x\r\n\r\n", 505),
        (HEAD + b"x: %b\r\n\r\n" % (b"a" * (MAX_HEAD_BYTES + 1)), 431),
        (HEAD + b"x: " + b"a" * (3 * MAX_HEAD_BYTES), 431),
        (b"GET /" + b"a" * (MAX_HEAD_BYTES + 1) + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_ends_the_connection(router, request_, status):
    said = talk(router, request_ + GOOD)
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert said.count(b"\r\ndate: ") == 1, "nothing after it is taken for a request"
    assert not router.backend("b").calls


def test_requests_that_come_together_are_answered_in_their_order(router):
    get = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    said = talk(router, GOOD + get + GOOD + get + LAST)
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", said) == [b"200"] * 5
    kinds = [b"chat.completion" in answer for answer in said.split(b"HTTP/1.1 200 OK")[1:]]
    assert kinds == [True, False, True, False, True]


def test_a_request_in_single_bytes_is_the_same_request(router):
    said = talk(router, *(LAST[i : i + 1] for i in range(len(LAST))))
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in said


def test_a_chunked_body_with_extensions_and_trailers(router):
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:]))
    said = talk(
        router, HEAD + b"connection: close\r\ntransfer-encoding: Chunked\r\n\r\n" + chunks + b"0\r\nx: y\r\n\r\n"
    )
    assert said.startswith(b"HTTP/1.1 200 ")


def test_a_client_may_ask_before_it_sends(router):
    asks = HEAD + b"connection: close\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    said = talk(router, asks, BODY, pause_s=0.2)
    assert said.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")


def test_http_1_0_is_answered_and_its_stream_ends_with_the_connection(router):
    old = b"GET /healthz HTTP/1.0\r\n\r\n"
    assert talk(router, old).endswith(b'{"status":"alive"}')
    body = BODY[:-1] + b', "stream": true}'
    said = talk(router, HEAD.replace(b"1.1", b"1.0") + b"content-length: %d\r\n\r\n" % len(body) + body)
    head, _, events = said.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert events.startswith(b"data: ")
    assert events.endswith(b"data: [DONE]\n\n")


def test_who_would_speak_another_protocol_is_answered_in_this_one(router):
    upgrade = b"connection: upgrade\r\nupgrade: h2c\r\n"
    said = talk(router, b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + upgrade + b"\r\nPRI * HTTP/2.0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.count(b"HTTP/1.1 ") == 1


def test_the_target_may_be_absolute_and_percent_encoded(router):
    for target in (b"http://x/healthz?a=b", b"/health%7A", b"/healthz?x#y"):
        assert b" 200 OK" in talk(router, b"GET %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % target)


def test_head_is_answered_without_a_body(router):
    said = talk(router, b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"content-length: 18\r\nconnection: close\r\n\r\n")


def test_an_answer_before_the_body_is_all_there_keeps_the_connection(router):
    unknown = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 200000\r\n\r\n"
    )
    said = talk(router, unknown, b"x" * 100_000, b"x" * 100_000 + LAST, pause_s=0.1)
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", said) == [b"415", b"200"]


def test_a_body_that_nobody_reads_yet_is_not_taken_in():
    async def main():
        asked = asyncio.Event()

        async def handler(request):
            await asked.wait()
            request.respond(200, b"%d" % len(await request.body(1 << 30, 5)), "")

        transport = Paused()
        connection = ServerConnection(HttpServer(handler, None))
        connection.connection_made(transport)
        connection.data_received(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n")
        for _ in range(3):
            connection.data_received(b"x" * 50_000)
        assert transport.paused, f"{HIGH_WATER} bytes are enough"
        asked.set()
        await asyncio.sleep(0.01)
        assert not transport.paused
        connection.data_received(b"x" * 150_000)
        await asyncio.sleep(0.01)
        assert transport.written.endswith(b"\r\n\r\n300000")

    asyncio.run(main())


class Paused(Transport):
    paused = False

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False


def parsed(pieces):
    """What a handler gets of the requests in these pieces, and whether the connection was ended."""

    async def main():
        found = []

        async def handler(request):
            found.append((request.method, request.path, tuple(request.headers), await request.body(1 << 20, 5)))
            request.respond(200, b"", "")

        transport = Paused()
        connection = ServerConnection(HttpServer(handler, None))
        connection.connection_made(transport)
        for piece in pieces:
            connection.data_received(piece)
            for _ in range(4):
                await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        return found

    return asyncio.run(main())


REQUESTS = st.lists(
    st.sampled_from(
        [
            GOOD,
            b"GET /a%20b?c HTTP/1.1\r\nHost: x\r\n\r\n",
            HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ]
    ),
    min_size=1,
    max_size=4,
).map(b"".join)


@settings(max_examples=150)
@given(REQUESTS, st.lists(st.integers(0, 2**16), max_size=6))
def test_requests_are_the_same_however_they_are_cut(raw, places):
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    assert parsed([raw[a:b] for a, b in itertools.pairwise(edges) if a < b]) == parsed([raw])


@settings(max_examples=300)
@given(REQUESTS, st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=4)), max_size=4))
def test_spoilt_requests_are_refused_or_read_and_raise_nothing(raw, spoil):
    for place, length, instead in spoil:
        at = place % (len(raw) + 1)
        raw = raw[:at] + instead + raw[at + length :]
    parsed([raw])


def test_a_client_that_reads_nothing_is_left_behind(start_router):
    router = start_router(
        FLEET.replace("models:", "script: [{chunks: 20000}], models:"), client_idle_s=0.5, default_deadline_s=30
    )
    body = BODY[:-1] + b', "stream": true}'
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", router.port))
    sock.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    deadline = time.monotonic() + 10
    while router.count("pointsman_requests_total", outcome="cancelled") < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert router.count("pointsman_requests_total", outcome="cancelled") == 1
    assert router.service.state.backends[0].in_flight == 0
    sock.close()


def test_a_client_that_reads_slowly_says_nothing_of_its_backend(start_router):
    router = start_router(FLEET.replace("models:", "script: [{chunks: 20000}], models:"))
    body = BODY[:-1] + b', "stream": true}'
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", router.port))
        sock.sendall(HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        time.sleep(2)
        while sock.recv(1024 * 1024):
            pass
    assert router.count("pointsman_requests_total", outcome="ok") == 1
    assert [average_ms for average_ms, _ in router.service.state.measured()] == [None]
    assert router.count("pointsman_time_per_output_token_seconds_count") == 0


def test_many_connections_at_once(router):
    wrong = []

    def ask():
        said = talk(router, LAST)
        if not said.startswith(b"HTTP/1.1 200 "):
            wrong.append(said)

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_large_binary_body_is_read_into_its_place(run):
    """And what comes before and behind it on the same connection is read as ever."""
    kinds, found = [], []

    async def handler(request):
        body = await request.body(10 << 20, 5)
        kinds.append(type(body))
        found.append(hashlib.sha256(body).hexdigest())
        request.respond(200, b"ok", "")

    async def main():
        sock = bind("127.0.0.1", 0)
        server = HttpServer(handler, sock)
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
        head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n"
        bodies = [os.urandom(size) for size in (10, 3_000_000, 300_000, 20, 1_000_000)]
        kind = "application/octet-stream"
        for i, body in enumerate(bodies):
            raw = head.format("text/plain" if i == 4 else kind, len(body)).encode() + body
            writer.write(raw[:1000])
            await asyncio.sleep(0.02 * (i % 2))
            writer.write(raw[1000:])
        await writer.drain()
        for _ in bodies:
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        assert found == [hashlib.sha256(body).hexdigest() for body in bodies]
        assert kinds[1] is memoryview
        assert (kinds[0], kinds[3], kinds[4]) == (bytes, bytes, bytes)
        writer.write(head.format(kind, 3_000_000).encode() + bytes(2_000_000))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()  # in the middle of a body
        server.retire()
        async with asyncio.timeout(5):
            await server.empty()
        server.close()

    run(main())


def test_bodies_are_held_up_to_a_limit_for_all_requests_together(start_router):
    router = start_router(FLEET, max_body_bytes=1_000_000, max_bodies_bytes=1_500_000)
    body = BODY[:-1] + b" " * 900_000 + BODY[-1:]
    raw = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", router.port), timeout=5) as first:
        first.sendall(raw[:300_000])
        time.sleep(0.2)
        refused = talk(router, raw)
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"overloaded" in refused
        assert b"retry-after: 1\r\n" in refused
        chunked = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + b"dbba0\r\n" + body[:900_000]
        assert talk(router, chunked).startswith(b"HTTP/1.1 429 ")
        assert talk(router, LAST).startswith(b"HTTP/1.1 200 "), "small ones go on"
        first.sendall(raw[300_000:])
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
    for _ in range(3):
        assert talk(router, raw).startswith(b"HTTP/1.1 200 "), "what was held is free again"


# --- clients that mean harm -----------------------------------------------------------------------------------------


def drive(*pieces, handler=None):
    """A connection without a socket that gets these pieces, some turns of the loop after each: what was written."""

    async def answer(request):
        await request.body(1 << 20, 5)
        request.respond(200, request.path.encode(), "")

    async def main():
        transport = Paused()
        connection = ServerConnection(HttpServer(handler or answer, None))
        connection.connection_made(transport)
        for piece in pieces:
            if callable(piece):
                piece(connection)
            else:
                connection.data_received(piece)
            for _ in range(30):
                await asyncio.sleep(0)
        return transport

    return asyncio.run(main())


def statuses(written):
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", written)


def test_who_does_not_read_is_not_answered_any_further():
    get = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
    transport = drive(ServerConnection.pause_writing, *[get] * 40)
    assert transport.written == b""
    assert transport.paused, "nor is more taken in"
    steps = (get, ServerConnection.pause_writing, get, get, ServerConnection.resume_writing)
    assert statuses(drive(*steps).written) == [b"200"] * 3


@pytest.mark.parametrize("start", [HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: ", HEAD + b"x: "])
def test_a_header_or_trailer_without_an_end_is_refused(start):
    async def patient(request):
        await request.body(1 << 30, 5)
        request.respond(200, b"", "")

    assert statuses(drive(start, *[b"a" * 50_000] * 6, handler=patient).written) == [b"431"]


def test_a_request_that_is_cut_behind_a_large_one_is_read():
    first = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000
    transport = drive(first[:10], first[10:] + b"GET /b HT", b"TP/1.1\r\nhost: x\r\n\r\n")
    assert statuses(transport.written) == [b"200", b"200"]


def test_what_was_whole_before_a_bad_request_is_answered():
    get = b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n"
    written = drive(b"".join(get % i for i in range(5)) + b"\0\0\0").written
    assert statuses(written) == [b"200"] * 5
    assert written.count(b"connection: close") == 1


@pytest.mark.parametrize(
    "body",
    [b"content-length: 5\r\n\r\nabcde", b"transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"],
)
def test_a_body_stays_with_its_request_whatever_protocol_is_asked_for(body):
    async def echo(request):
        request.respond(200, await request.body(100, 5), "")

    asks = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    raw = b"POST /a HTTP/1.1\r\nhost: x\r\n" + asks + body
    written = drive(raw, raw, handler=echo).written
    assert statuses(written) == [b"200", b"200"]
    assert written.count(b"abcde") == 2


def test_an_early_answer_to_who_asked_first_ends_the_connection():
    async def refuse(request):
        request.respond(415, b"", "")

    asks = b"POST /a HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    written = drive(asks, handler=refuse).written
    assert statuses(written) == [b"415"]
    assert b"connection: close\r\n" in written


def test_a_client_that_leaves_with_requests_waiting_is_noticed(start_router):
    router = start_router(FLEET.replace("models:", "script: [{latency_ms: 20000}], models:"))
    backend = router.service.state.backends[0]

    def until(count):
        deadline = time.monotonic() + 5
        while backend.in_flight != count and time.monotonic() < deadline:
            time.sleep(0.01)
        return backend.in_flight == count

    with socket.create_connection(("127.0.0.1", router.port)) as sock:
        sock.sendall(GOOD + GOOD)
        assert until(1)
    assert until(0)


def test_many_small_pieces_take_no_more_than_their_size():
    async def main():
        request = Inbound(None, "POST", "/", [])
        for _ in range(50_000):
            request.feed(b"ab")
        request.complete = True
        assert len(request._parts) == 2
        assert await request.body(1 << 20, 1) == b"ab" * 50_000

    asyncio.run(main())


def test_a_large_body_that_does_not_come_takes_no_memory():
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bodies = [DirectBody(asyncio.Protocol(), 64 << 20, b"abc", lambda view: None) for _ in range(8)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began < 64 * 1024
    for body in bodies:
        body.connection_lost(None)
        assert len(body._view) == 0
