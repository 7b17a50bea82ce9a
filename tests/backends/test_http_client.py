"""The upstream HTTP client against servers that behave, and that do not, byte by byte; on both event loops."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ipaddress
import itertools
import socket
import ssl
import sys
import time
from dataclasses import replace

import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backends.http import ConnectError, HttpClient, HttpError, HttpTimeout, ProtocolError, Timeouts, TlsFiles, TooLarge
from backends.http.connection import Connection
from tests.upstream import scripted

OK = b"HTTP/1.1 200 OK\r\n"
TWO = OK + b"content-length: 2\r\n\r\nok"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
QUICK = Timeouts(connect_s=3, first_byte_s=0.3, idle_s=0.3)
_DEAF = (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Runs a coroutine to its end; one that hangs fails."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda main: runner.run(asyncio.wait_for(main, 20))


@pytest.fixture
def exchange(run):
    """One request to a server that answers with `pieces` and closes unless told to `stay`."""

    def go(*pieces, method="GET", stay=True, stream=False, timeouts=QUICK, **options):
        async def main():
            async def script(peer):
                await peer.request()
                await peer.send(*pieces)
                if stay:
                    await peer.silence()

            async with scripted(script) as server:
                client = HttpClient(server.url, timeouts=timeouts, **options)
                try:
                    response = await client.request(method, "/", stream=stream)
                    if stream:
                        response.body = b"".join([chunk async for chunk in response.chunks()])
                    return response, client.idle
                finally:
                    assert client.connections == client.idle, "nothing is left open but what can be used again"
                    await client.aclose()
                    assert client.connections == 0

        return run(main())

    return go


# --- what an answer may look like -----------------------------------------------------------------------------------

GOOD = {
    "length": (TWO, 200, b"ok", 1),
    "length of nothing": (OK + b"content-length: 0\r\n\r\n", 200, b"", 1),
    "chunks": (CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", 200, b"ok", 1),
    "chunks with extension and trailer": (CHUNKED + b"2;a=b\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", 200, b"ok", 1),
    "no reason, names in capitals": (b"HTTP/1.1 404 \r\nCONTENT-LENGTH: 2\r\n\r\nno", 404, b"no", 1),
    "204 has no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", 1),
    "304 has a length but no body": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, b"", 1),
    "interim answers come before": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + TWO, 200, b"ok", 1,
    ),
    "it wants to close": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", 0),
    "HTTP/1.0 closes": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", 0),
    "HTTP/1.0 that stays": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", 1,
    ),
    "a second answer after the end": (TWO + b"HTTP/1.1 500 Oops\r\ncontent-length: 3\r\n\r\nbad", 200, b"ok", 0),
    "garbage after the end": (TWO + b"\x00\xff garbage", 200, b"ok", 0),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "status", "body", "idle"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "in two"])
def test_a_good_answer_is_read_and_its_connection_kept_only_where_another_can_follow(
    exchange, raw, status, body, idle, cut
):
    end = raw.index(b"ok") + 2 if cut and b"ok" in raw else len(raw)
    response, kept = exchange(*filter(None, (raw[:end], raw[end:])))
    assert (response.status, response.body) == (status, body)
    if not cut:  # what follows the end may come too late to be noticed before the next request
        assert kept == idle


def test_a_body_without_a_length_ends_where_the_connection_does(exchange):
    for stream in (False, True):
        response, kept = exchange(OK + b"x-a: 1\r\n\r\nsome", b" text", stay=False, stream=stream)
        assert (response.body, kept) == (b"some text", 0)


def test_head_is_answered_without_a_body(exchange):
    response, _ = exchange(OK + b"content-length: 1000\r\n\r\n", method="HEAD")
    assert (response.status, response.body) == (200, b"")
    assert response.header("content-length") == "1000"


def test_header_names_come_in_lower_case_and_values_as_latin_1(exchange):
    response, _ = exchange(OK + b"X-Name:  \xe9t\xe9 \r\nx-name: b\r\ncontent-length: 0\r\n\r\n")
    assert response.headers[:2] == (("x-name", "été"), ("x-name", "b"))
    assert response.header("x-name") == "été"
    assert response.header("missing") is None


# --- what it may not look like --------------------------------------------------------------------------------------


def head(*lines):
    return b"\r\n".join((OK.rstrip(), *lines, b"", b""))


LONG = b"a" * 40_000
BAD = {
    "length and chunks": head(b"content-length: 2", b"transfer-encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n",
    "chunks and length": head(b"transfer-encoding: chunked", b"content-length: 2") + b"2\r\nok\r\n0\r\n\r\n",
    "two lengths": head(b"content-length: 2", b"content-length: 3") + b"ok!",
    "two equal lengths": head(b"content-length: 2", b"content-length: 2") + b"ok",
    "a list of lengths": head(b"content-length: 2, 2") + b"ok",
    "a negative length": head(b"content-length: -2") + b"ok",
    "a signed length": head(b"content-length: +2") + b"ok",
    "a length in hex": head(b"content-length: 0x2") + b"ok",
    "a length past 64 bits": head(b"content-length: 99999999999999999999999") + b"ok",
    "two codings": head(b"transfer-encoding: gzip, chunked") + b"2\r\nok\r\n0\r\n\r\n",
    "chunked twice": head(b"transfer-encoding: chunked", b"transfer-encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n",
    "a coding that is not chunked": head(b"transfer-encoding: identity") + b"ok",
    "a coding that only looks like it": head(b"transfer-encoding: xchunked") + b"2\r\nok\r\n0\r\n\r\n",
    "a folded header": head(b"x-a: 1", b" folded", b"content-length: 2") + b"ok",
    "a bare line feed": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "a bare carriage return": head(b"x-a: 1\rcontent-length: 9", b"content-length: 2") + b"ok",
    "a space before the colon": head(b"content-length : 2") + b"ok",
    "a header without a colon": head(b"content-length 2") + b"ok",
    "a NUL in a value": head(b"x-a: \0", b"content-length: 2") + b"ok",
    "a chunk size that is no number": CHUNKED + b"zz\r\nok\r\n0\r\n\r\n",
    "a chunk size past 64 bits": CHUNKED + b"fffffffffffffffff\r\nok",
    "a chunk longer than it says": CHUNKED + b"1\r\nok\r\n0\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "101 without saying to what": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "another version": b"HTTP/7.3 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "a status that is no number": b"HTTP/1.1 abc\r\n\r\n",
    "noise": b"\x16\x03\x01\x00\xff" * 10,
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_that_could_be_read_in_two_ways_is_refused(exchange, raw, stream):
    with pytest.raises(ProtocolError):
        exchange(raw, stream=stream)


@pytest.mark.parametrize(
    "raw",
    [b"", b"HTTP/1.1 200", head(b"content-length: 9"), head(b"content-length: 9") + b"ok", CHUNKED + b"2\r\nok\r\n",
     CHUNKED + b"5\r\nok", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["no answer", "in the head", "before the body", "in the body", "before the last chunk", "in a chunk",
         "after an interim answer"],
)  # fmt: skip
def test_an_answer_that_is_cut_short_is_an_error(exchange, raw):
    with pytest.raises(ProtocolError, match="closed the connection"):
        exchange(raw, stay=False)


def test_a_stream_that_is_cut_short_gives_what_came_and_then_the_error(run):
    async def main():
        async def script(peer):
            await peer.request()
            await peer.send(CHUNKED + b"2\r\nok\r\n")

        async with scripted(script) as server:
            response = await HttpClient(server.url).request("GET", "/", stream=True)
            found = []
            with pytest.raises(ProtocolError, match="in the middle of its answer"):
                async for chunk in response.chunks():
                    found.append(chunk)
            assert found == [b"ok"]

    run(main())


TOO_MUCH = {
    "one header": head(b"x: " + LONG * 2),
    "many headers": head(*[b"x: " + LONG[:1000]] * 80),
    "a header without an end": OK + b"x: " + LONG * 4,
    "interim answers without an end": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 20_000,
    "trailers without an end": CHUNKED + b"0\r\n" + b"x: y\r\n" * 40_000,
}


@pytest.mark.parametrize("raw", TOO_MUCH.values(), ids=TOO_MUCH)
@pytest.mark.parametrize("piece", [500, 1_000_000], ids=["in pieces", "at once"])
def test_headers_over_the_limit_are_refused(run, raw, piece):
    async def main():
        async def script(peer):
            await peer.request()
            for i in range(0, len(raw), piece):
                peer.writer.write(raw[i : i + piece])
                await peer.writer.drain()
                await asyncio.sleep(0)
            await peer.silence()

        async with scripted(script) as server:
            with pytest.raises(TooLarge, match="headers over"):
                await HttpClient(server.url, timeouts=QUICK).request("GET", "/")

    run(main())


def test_headers_up_to_the_limit_are_taken_however_they_arrive(exchange):
    raw = head(*[b"x: " + LONG[:1000]] * 60, b"content-length: 0")
    for pieces in ([raw], [raw[:30_000], raw[30_000:]]):
        response, _ = exchange(*pieces)
        assert len(response.headers) == 61


@pytest.mark.parametrize("raw", [head(b"content-length: 101"), CHUNKED + b"65\r\n" + b"a" * 101 + b"\r\n0\r\n\r\n"])
def test_a_buffered_body_over_the_limit_is_refused_and_a_streamed_one_is_not(exchange, raw):
    with pytest.raises(TooLarge, match="over 100 bytes"):
        exchange(raw, max_body=100)
    if raw.startswith(CHUNKED):
        assert len(exchange(raw, max_body=100, stream=True)[0].body) == 101


def test_no_error_repeats_what_was_sent_or_received(exchange):
    for raw in (b"secret\r\n\r\n", head(b"secret"), head(b"content-length: secret"), CHUNKED + b"secret"):
        with pytest.raises(HttpError) as error:
            exchange(raw, stay=False)
        assert "secret" not in str(error.value)
        assert str(error.value).startswith("127.0.0.1:")


# --- however it is cut, and whatever it is --------------------------------------------------------------------------


class _Wire(asyncio.Transport):
    """Takes what is written, and brings nothing by itself."""

    def writelines(self, parts): ...

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return False

    def pause_reading(self): ...

    def resume_reading(self): ...

    def abort(self): ...


def read(pieces, method="GET", whole=False):
    """What a connection makes of an answer that arrives in these pieces and then ends: the answer, or its error's
    type. Hangs are the caller's to notice."""

    async def main():
        connection = Connection("upstream", lambda connection: None, lambda: None)
        connection.connection_made(_Wire())
        connection.begin(method, b"", [], 1 << 30 if whole else None)
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(None)
        body = b""
        try:
            async with asyncio.timeout(1):
                if whole:
                    body = await connection.whole(60, 60)
                    return connection.status, connection.headers, body
                await connection.head(60)
                while (chunk := await connection.chunk(60)) is not None:
                    body += chunk
        except HttpError as error:
            return type(error)
        return connection.status, connection.headers, body

    return asyncio.run(main())


def cut(raw, places):
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[a:b] for a, b in itertools.pairwise(edges) if a < b]


def _answer(status, interim, headers, framing, bodies, extension, trailer):
    raw = interim + b"HTTP/1.1 %d x\r\n" % status + b"".join(b"x-%d: %s\r\n" % item for item in enumerate(headers))
    if framing == "length":
        return raw + b"content-length: %d\r\n\r\n" % len(b"".join(bodies)) + b"".join(bodies)
    if framing == "close":
        return raw + b"\r\n" + b"".join(bodies)
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(body), extension, body) for body in bodies if body)
    return raw + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"


ANSWERS = st.builds(
    _answer,
    st.sampled_from([200, 201, 400, 429, 503]),
    st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 2]),
    st.lists(st.binary(max_size=20).map(lambda b: bytes(c for c in b if c >= 0x20 and c != 0x7F)), max_size=4),
    st.sampled_from(["length", "chunked", "close"]),
    st.lists(st.binary(max_size=40), max_size=4),
    st.sampled_from([b"", b";a", b';a="b c"']),
    st.sampled_from([b"", b"x-sum: 1\r\n"]),
)
PLACES = st.lists(st.integers(0, 2**16), max_size=8)


@settings(deadline=None, max_examples=150)
@given(ANSWERS, PLACES)
def test_a_valid_answer_is_read_the_same_however_it_is_cut(raw, places):
    whole = read([raw])
    assert isinstance(whole, tuple), "it is valid"
    assert read(cut(raw, places)) == whole
    assert read(cut(raw, places), whole=True) == whole
    assert read([raw[i : i + 1] for i in range(len(raw))]) == whole


@settings(deadline=None, max_examples=300)
@given(
    ANSWERS, st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=4)), max_size=4), PLACES
)
@example(TWO, [(0, 0, b"")], [])
def test_a_spoilt_answer_is_read_or_refused_but_never_hangs_or_raises_anything_else(raw, spoil, places):
    for place, length, bytes_instead in spoil:
        at = place % (len(raw) + 1)
        raw = raw[:at] + bytes_instead + raw[at + length :]
    found = read(cut(raw, places))
    assert isinstance(found, tuple) or issubclass(found, HttpError)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_noise_is_no_answer(raw):
    assert read([raw]) is ProtocolError


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_a_request_on_the_wire(run):
    asked = []

    async def main():
        async def script(peer):
            while True:
                asked.append(await peer.answer())

        async with scripted(script) as server:
            client = HttpClient(server.url + "/prefix/")
            await client.request("POST", "/a?b=c", [("x-a", "1")], [b"one", memoryview(b" two")])
            await client.request("POST", "/empty")
            await client.request("GET", "/get")
            await client.aclose()
            return server.url.removeprefix("http://").encode()

    host = run(main())
    assert asked == [
        b"POST /prefix/a?b=c HTTP/1.1\r\nhost: %s\r\nx-a: 1\r\ncontent-length: 7\r\n\r\none two" % host,
        b"POST /prefix/empty HTTP/1.1\r\nhost: %s\r\ncontent-length: 0\r\n\r\n" % host,
        b"GET /prefix/get HTTP/1.1\r\nhost: %s\r\n\r\n" % host,
    ]


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/a b", []),
        ("GET", "/a\r\nx: y", []),
        ("GET", "/é", []),
        ("GET", "", []),
        ("GET /x HTTP/1.1\r\n", "/", []),
        ("", "/", []),
        ("GET", "/", [("x-a", "1\r\nx-b: 2")]),
        ("GET", "/", [("x-a", "1\nx-b: 2")]),
        ("GET", "/", [("x-a", "1\r")]),
        ("GET", "/", [("x-a", "\0")]),
        ("GET", "/", [("x-a", "日本")]),
        ("GET", "/", [("x-a:", "1")]),
        ("GET", "/", [("x a", "1")]),
        ("GET", "/", [("x-a\r\nx-b", "1")]),
        ("GET", "/", [("", "1")]),
    ],
)
def test_what_could_smuggle_a_header_or_a_request_is_a_value_error_before_anything_is_sent(run, method, path, headers):
    async def main():
        client = HttpClient("http://127.0.0.1:1")
        with pytest.raises(ValueError, match="cannot carry"):
            await client.request(method, path, headers)
        assert client.connections == 0

    run(main())


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:80", "ftp://h/", "http://", "http://:80", "http://h:port", "http://h:70000", "http://h/a b",
     "http://bücher.example", "http://h/?q=1", "http://h/#f"],
)  # fmt: skip
def test_a_url_that_cannot_be_called_is_a_value_error(url):
    with pytest.raises(ValueError):
        HttpClient(url)


# --- connections are used again -------------------------------------------------------------------------------------


def test_connections_are_used_again_and_an_old_one_is_not(run):
    async def main():
        async def script(peer):
            while True:
                await peer.answer(b"%d" % peer.number)

        async with scripted(script) as server:
            client = HttpClient(server.url, idle_expiry_s=0.1, max_idle=2)
            assert [(await client.request("GET", "/")).body for _ in range(3)] == [b"0"] * 3
            await asyncio.gather(*(client.request("GET", "/") for _ in range(5)))
            assert (len(server.peers), client.connections, client.idle) == (5, 2, 2)
            await asyncio.sleep(0.15)
            assert (await client.request("GET", "/")).body == b"5"
            assert client.connections == 1
            await client.aclose()
            with pytest.raises(ConnectError, match="the client is closed"):
                await client.request("GET", "/")

    run(main())


def test_a_kept_connection_that_the_server_closes_or_talks_on_is_noticed(run):
    async def main():
        async def script(peer):
            await peer.answer()
            await asyncio.sleep(0.05)
            if peer.number:
                await peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
                await peer.silence()

        async with scripted(script) as server:
            client = HttpClient(server.url)
            for _ in range(2):
                await client.request("GET", "/")
                assert client.idle == 1
                await asyncio.sleep(0.2)
                assert (client.idle, client.connections) == (0, 0)

    run(main())


def test_a_kept_connection_that_dies_under_the_next_request_is_replaced_once(run):
    async def main():
        async def script(peer):
            await peer.answer(b"%d" % peer.number)
            if peer.number == 2:
                return await peer.silence()
            await peer.request()  # taken, and closed without an answer

        async with scripted(script) as server:
            client = HttpClient(server.url)
            await asyncio.gather(client.request("GET", "/"), client.request("GET", "/"))
            assert (await client.request("POST", "/", body=b"x" * 100)).body == b"2"
            assert (len(server.peers), client.connections, client.idle) == (3, 1, 1)

    run(main())


def test_a_fresh_connection_that_dies_is_not_tried_again(run):
    async def main():
        async def script(peer):
            await peer.request()

        async with scripted(script) as server:
            client = HttpClient(server.url)
            with pytest.raises(ProtocolError, match="before it answered"):
                await client.request("POST", "/", body=b"x")
            assert (len(server.peers), client.connections) == (1, 0)

    run(main())


@pytest.mark.parametrize(
    ("second", "error"),
    [(b"HTTP/1.1 2", ProtocolError), (b"nonsense\r\n\r\n", ProtocolError), (None, HttpTimeout)],
    ids=["an answer that had begun", "an answer that is none", "silence"],
)
def test_a_request_that_the_server_may_be_working_on_is_not_sent_twice(run, second, error):
    async def main():
        async def script(peer):
            await peer.answer()
            await peer.request()
            if second is None:
                await peer.silence()
            else:
                await peer.send(second)

        async with scripted(script) as server:
            client = HttpClient(server.url, timeouts=QUICK)
            await client.request("GET", "/")
            with pytest.raises(error):
                await client.request("GET", "/")
            assert (len(server.peers), client.connections) == (1, 0)

    run(main())


def test_a_server_that_speaks_or_closes_before_it_is_asked(run):
    async def main():
        async def banner(peer):
            await peer.send(b"220 mail.example ESMTP\r\n")
            await peer.silence()

        async def closes(peer): ...

        for script in (banner, closes):
            async with scripted(script) as server:
                client = HttpClient(server.url, timeouts=QUICK)
                with pytest.raises(ProtocolError):
                    await client.request("GET", "/")
                assert client.connections == 0

    run(main())


# --- time -----------------------------------------------------------------------------------------------------------


def test_no_connection_in_time(run):
    async def main(url):
        client = HttpClient(url, timeouts=replace(QUICK, connect_s=0.3))
        with pytest.raises(HttpTimeout, match=r"no connection within 0\.3 s"):
            await client.request("GET", "/")
        assert client.connections == 0

    with socket.socket() as listener:  # whose queue is full: it drops whoever knocks
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            run(main(f"http://127.0.0.1:{port}"))


STALLS = {
    "nothing": ((), "no answer"),
    "half a head": ((OK,), "no answer"),
    "only interim answers": ((b"HTTP/1.1 102 Processing\r\n\r\n",) * 100, "no answer"),
    "a head byte by byte": ([OK[i : i + 1] or b"x" for i in range(100)], "no answer"),
    "half a body": ((head(b"content-length: 9"), b"ok"), "stopped arriving"),
    "a chunk's extension without an end": ((CHUNKED + b"1;", *[b"x"] * 100), "stopped arriving"),
}


@pytest.mark.parametrize(("pieces", "says"), STALLS.values(), ids=STALLS)
def test_an_answer_that_stalls_or_only_seems_to_move_is_given_up(exchange, pieces, says):
    begin = time.monotonic()
    with pytest.raises(HttpTimeout, match=says):
        exchange(*pieces)
    assert time.monotonic() - begin < 0.9


def test_a_body_that_moves_may_take_longer_than_the_timeout(exchange):
    pieces = [head(b"content-length: 60"), *[b"a"] * 60]
    response, _ = exchange(*pieces, timeouts=Timeouts(first_byte_s=0.3, idle_s=0.3))
    assert response.body == b"a" * 60


def test_a_server_that_does_not_take_a_large_request_is_given_up(run):
    async def main():
        if _DEAF and isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
            pytest.skip("this Python's own loop does not tell a protocol to stop writing (gh-127655); uvloop does")

        async def script(peer):
            await asyncio.sleep(60)

        async with scripted(script) as server:
            client = HttpClient(server.url, timeouts=QUICK)
            with pytest.raises(HttpTimeout, match="the request is not taken"):
                await client.request("POST", "/", body=bytes(64 * 1024 * 1024))
            assert client.connections == 0

    run(main())


def test_an_answer_may_come_before_a_large_request_is_all_sent(run):
    async def main():
        async def script(peer):
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
            await asyncio.sleep(60)

        async with scripted(script) as server:
            client = HttpClient(server.url, timeouts=QUICK)
            response = await client.request("POST", "/", body=bytes(64 * 1024 * 1024))
            assert response.status == 413
            assert client.connections == 0, "the rest of the request would be taken for the next one"

    run(main())


# --- memory, cancellation, order ------------------------------------------------------------------------------------


def test_a_slow_reader_holds_up_the_server_rather_than_filling_memory(run):
    size, sent = 64 * 1024 * 1024, 0

    async def main():
        async def script(peer):
            nonlocal sent
            await peer.request()
            await peer.send(head(b"content-length: %d" % size))
            while sent < size:
                await peer.send(bytes(65536))
                sent += 65536
            await peer.silence()

        async with scripted(script) as server:
            client = HttpClient(server.url)
            response = await client.request("GET", "/", stream=True)
            chunks = response.chunks()
            got = largest = len(await anext(chunks))
            await asyncio.sleep(0.3)
            assert sent < size / 2, "the rest waits in the server"
            async for chunk in chunks:
                got += len(chunk)
                largest = max(largest, len(chunk))
            assert got == size
            assert largest <= 1024 * 1024
            assert client.idle == 1

    run(main())


def test_cancelling_at_any_point_frees_the_connection(run):
    async def main():
        async def script(peer):
            await peer.request()
            await asyncio.sleep(0.02)
            await peer.send(head(b"content-length: 9"), b"ok")
            await peer.silence()

        async with scripted(script) as server:
            client = HttpClient(server.url)
            for after_s in (0, 0.001, 0.01, 0.03, 0.1):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(after_s):
                        await client.request("GET", "/")
                assert client.connections == 0
            await asyncio.sleep(0.1)
            assert server.open == 0, "and the server sees it"

    run(main())


def test_closing_a_stream_early_ends_it_for_whoever_is_reading(run):
    async def main():
        async def script(peer):
            await peer.request()
            await peer.send(CHUNKED + b"2\r\nok\r\n")
            await peer.silence()

        async with scripted(script) as server:
            client = HttpClient(server.url)
            response = await client.request("GET", "/", stream=True)
            chunks = response.chunks()
            assert await anext(chunks) == b"ok"
            reading = asyncio.ensure_future(anext(chunks))
            await asyncio.sleep(0.01)
            await response.aclose()
            await response.aclose()
            with pytest.raises(HttpError):
                await reading
            assert client.connections == 0

    run(main())


def test_a_closed_response_gives_nothing_of_the_exchange_that_has_its_connection_now(run):
    async def main():
        async def script(peer):
            while True:
                await peer.answer(b"first" if not asked else b"other's")
                asked.append(1)

        asked = []
        async with scripted(script) as server:
            client = HttpClient(server.url)
            response = await client.request("GET", "/", stream=True)
            chunks = response.chunks()
            assert await anext(chunks) == b"first"
            await response.aclose()
            other = await client.request("GET", "/", stream=True)
            assert len(server.peers) == 1
            assert [chunk async for chunk in chunks] == []
            assert [chunk async for chunk in other.chunks()] == [b"other's"]

    run(main())


def test_who_waits_for_a_connection_is_served_in_order_and_who_gives_up_passes_the_turn(run):
    async def main():
        async def script(peer):
            while True:
                await peer.request()
                await asyncio.sleep(0.02)
                await peer.send(TWO)

        served = []

        async def ask(name):
            await client.request("GET", "/")
            served.append(name)
            if name == 0:  # who comes back at once goes to the end of the line
                await ask("again")

        async with scripted(script) as server:
            client = HttpClient(server.url, max_connections=1)
            tasks = [asyncio.create_task(ask(i)) for i in range(6)]
            await asyncio.sleep(0.01)
            tasks[2].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert served == [0, 1, 3, 4, 5, "again"]
            assert (len(server.peers), client.connections, client.idle) == (1, 1, 1)

    run(main())


@pytest.mark.parametrize("keep", [True, False], ids=["with a connection", "with room for one"])
def test_a_turn_that_comes_in_the_moment_of_giving_up_is_not_lost(run, keep):
    async def main():
        async def script(peer):
            if peer.number == 0:
                await peer.request()
                await peer.send(CHUNKED + b"2\r\nok\r\n" + b"0\r\n\r\n" * keep)
            while True:
                await peer.answer()

        async with scripted(script) as server:
            client = HttpClient(server.url, max_connections=1)
            first = await client.request("GET", "/", stream=True)
            await anext(first.chunks())
            waiting = [asyncio.create_task(client.request("GET", "/")) for _ in range(3)]
            await asyncio.sleep(0.05)
            await first.aclose()  # hands on to the first of them, which has not run yet
            waiting[0].cancel()
            waiting[1].cancel()
            await asyncio.sleep(0)
            assert (await waiting[2]).status == 200
            assert client.connections == 1

    run(main())


def test_closing_the_client_ends_requests_in_progress_and_in_line(run):
    async def main():
        async def script(peer):
            await peer.request()
            await peer.silence()

        async with scripted(script) as server:
            client = HttpClient(server.url, max_connections=2)
            tasks = [asyncio.create_task(client.request("GET", "/")) for _ in range(4)]
            await asyncio.sleep(0.05)
            await client.aclose()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(result, HttpError) for result in results)
            await asyncio.sleep(0.05)
            assert (client.connections, server.open) == (0, 0)

    run(main())


def test_why_there_is_no_connection_is_said_in_words(run):
    async def why(url):
        client = HttpClient(url, timeouts=QUICK)
        with pytest.raises(ConnectError) as error:
            await client.request("GET", "/")
        assert client.connections == 0
        return str(error.value)

    assert run(why("http://127.0.0.1:1")) == "127.0.0.1:1: connection refused"
    assert run(why("http://name.invalid:1")) == "name.invalid:1: its name cannot be resolved"
    assert run(why("http://localhost:1")) in ("localhost:1: connection refused", "localhost:1: no connection")


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A CA of our own, a server's certificate for localhost, a client's, and an encrypted key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("pki")
    pem = serialization.Encoding.PEM
    now = datetime.datetime.now(datetime.UTC)

    def issue(name, issuer=None, sans=(), encrypted=False):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer_name, issuer_key = issuer or (subject, key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            # Python 3.13 insists on what RFC 5280 asks of certificates.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if issuer is None:
            may = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                 "encipher_only", "decipher_only"), False,
            )  # fmt: skip
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **may), critical=True)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        (folder / f"{name}.pem").write_bytes(builder.sign(issuer_key, hashes.SHA256()).public_bytes(pem))
        lock = serialization.BestAvailableEncryption(b"pw") if encrypted else serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        (folder / f"{name}.key").write_bytes(key.private_bytes(pem, form, lock))
        return subject, key

    ca = issue("ca")
    issue("server", ca, [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    issue("elsewhere", ca, [x509.DNSName("elsewhere.example")])
    issue("client", ca)
    issue("locked", ca, encrypted=True)
    issue("other-ca")
    return folder


def serving(pki, name="server", *, client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki / f"{client_ca}.pem")
    return context


@pytest.fixture
def over_tls(run):
    def go(server_context, files, body=b"ok"):
        async def main():
            async def script(peer):
                while True:
                    await peer.answer(body)

            async with scripted(script, server_context) as server:
                client = HttpClient(server.url, tls=files, timeouts=Timeouts(2, 2, 2))
                try:
                    answers = [(await client.request("GET", "/")).body for _ in range(2)]
                    assert len(server.peers) == 1, "the connection is used again"
                    return answers[1]
                finally:
                    await client.aclose()
                    assert client.connections == 0

        return run(main())

    return go


def test_tls_with_a_ca_of_our_own(over_tls, pki):
    body = bytes(range(256)) * 4096
    assert over_tls(serving(pki), TlsFiles(str(pki / "ca.pem")), body) == body


@pytest.mark.parametrize(
    ("server", "ca", "says"),
    [("server", None, "not trusted"), ("server", "other-ca", "not trusted"), ("elsewhere", "ca", "mismatch")],
)
def test_a_certificate_that_does_not_prove_who_it_is_ends_it(over_tls, pki, server, ca, says):
    with pytest.raises(ConnectError, match=says):
        over_tls(serving(pki, server), TlsFiles(str(pki / f"{ca}.pem") if ca else None))


def test_a_client_certificate_is_shown_and_its_lack_ends_it(over_tls, pki):
    ca, pem, key = (str(pki / name) for name in ("ca.pem", "client.pem", "client.key"))
    assert over_tls(serving(pki, client_ca="ca"), TlsFiles(ca, pem, key)) == b"ok"
    # In TLS 1.3 the server judges it after the handshake, and the loops do not pass on what it says.
    with pytest.raises(HttpError):
        over_tls(serving(pki, client_ca="ca"), TlsFiles(ca))


def test_a_server_without_tls_is_no_connection(exchange, pki, run):
    async def main():
        async def script(peer):
            await peer.reader.read(1)
            await peer.send(TWO)

        async with scripted(script) as server:
            client = HttpClient(server.url.replace("http:", "https:"), tls=TlsFiles(str(pki / "ca.pem")))
            with pytest.raises(ConnectError, match="TLS failed"):
                await client.request("GET", "/")

    run(main())


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("server.key", None, None), "server.key holds no certificates"),
        (("ca.pem", "client.key", "client.key"), "client.key and .*client.key are no certificate"),
        (("ca.pem", "client.pem", "server.key"), "no certificate and its unencrypted key"),
        (("ca.pem", "locked.pem", "locked.key"), "no certificate and its unencrypted key"),
        (("missing.pem", None, None), "missing.pem"),
    ],
)
def test_tls_files_that_cannot_be_used_are_named_and_no_password_is_asked_for(pki, files, says):
    with pytest.raises(ValueError, match=says):
        HttpClient("https://localhost", tls=TlsFiles(*(str(pki / name) if name else None for name in files)))


def test_a_lookup_that_fails_when_nobody_waits_for_it_any_more_is_not_logged_as_an_error(run):
    async def main():
        loop, logged = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, context: logged.append(context["message"]))
        client = HttpClient("http://nowhere.invalid:1")
        asking = asyncio.create_task(client.request("GET", "/"))
        for _ in range(3):
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(socket.gaierror):  # by now, the other has failed too
            await loop.getaddrinfo("nowhere.invalid", 1)
        await asyncio.sleep(0.05)
        del asking
        gc.collect()
        return logged, client.connections

    assert run(main()) == ([], 0)


def test_the_next_address_of_a_name_is_tried_where_one_refuses(run, monkeypatch):
    async def main():
        async with scripted(lambda peer: peer.answer()) as server:
            port = int(server.url.rpartition(":")[2])
            addresses = [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.9", "127.0.0.1")
            ]
            client = HttpClient(f"http://two.example:{port}", timeouts=QUICK)
            loop = asyncio.get_running_loop()

            async def lookup(host, *_, **__):
                return addresses if host == "two.example" else await real(host, *_, **__)

            real = loop.getaddrinfo
            try:
                monkeypatch.setattr(loop, "getaddrinfo", lookup)
            except AttributeError:
                pytest.skip("uvloop's cannot be replaced")
            return (await client.request("GET", "/")).body

    assert run(main()) == b"ok"
