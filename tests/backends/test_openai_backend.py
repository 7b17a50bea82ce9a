"""The openai backend behind a router, against a real HTTP server that behaves, and that does not."""

from __future__ import annotations

import json
import time

import pytest

from backends.errors import BackendError
from tests.upstream import Answers, upstream

CONFIG = """
kind: Fleet
backends:
  - name: remote
    tier: cloud
    region: us
    protocol: openai
    url: ${{URL}}{prefix}
    api_key: {{env: KEY}}
    clearance: internal
    models: {{chat: {{task: [chat, completion, embedding], upstream: vendor/model-1, quality: 0.9}}}}
    timeouts: {{first_byte_s: 0.5, idle_s: 0.5}}
    price: {{input_per_mtok: 1, output_per_mtok: 2}}
  - name: spare
    tier: onprem
    region: jp
    protocol: fake
    clearance: restricted
    models: {{chat: {{task: [chat, completion, embedding], quality: 0.1}}}}
---
kind: Policy
rules: [{{name: best, objective: {{quality: {{weight: 1}}}}}}]
"""
KEY = "sk-very-secret-4711"
ANSWER = {
    "id": "x", "object": "chat.completion", "model": "vendor/model-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "やあ"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
}  # fmt: skip
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
STREAM = {"content-type": "text/event-stream"}


@pytest.fixture
def remote():
    with upstream() as found:
        found.answers = Answers(body=ANSWER)
        yield found


@pytest.fixture
def router(start_router, remote):
    return start_router(CONFIG.format(prefix=""), env={"URL": remote.url, "KEY": KEY})


def test_a_call_carries_the_upstreams_model_name_the_key_and_every_other_field_as_it_came(router, remote):
    odd = {"top_p": 0.30000000000000004, "seed": 12345678901234567890, "x": [None, {"é": "\u0000"}], "logit_bias": {}}
    reply = router.chat("社外 hello", **odd)
    assert (reply.status, reply.backend) == (200, "remote")
    asked = remote.asked[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["x-request-id"] == reply.headers["x-request-id"]
    assert asked.json() == {"model": "vendor/model-1", "messages": [{"role": "user", "content": "社外 hello"}]} | odd
    assert b"0.30000000000000004" in asked.body
    assert b"12345678901234567890" in asked.body


def test_the_callers_own_credentials_and_hints_stay_here(router, remote):
    router.chat(headers={"authorization": "Bearer callers-own", "cookie": "a=b", "x-data-sensitivity": "public"})
    sent = remote.asked[0].headers
    assert sent["authorization"] == f"Bearer {KEY}"
    assert not {"cookie", "x-data-sensitivity"} & sent.keys()


def test_an_answer_comes_back_byte_by_byte_and_its_own_token_count_makes_the_cost(router, remote):
    body = json.dumps(ANSWER, indent=3).encode()
    remote.answers = Answers(body=body)
    reply = router.chat()
    assert reply.body == body
    assert float(reply.headers["x-pointsman-cost-usd"]) == pytest.approx((1000 * 1 + 500 * 2) / 1e6)
    assert router.count("pointsman_tokens_total", backend="remote", direction="out") == 500
    assert router.count("pointsman_cost_usd_total", backend="remote") == pytest.approx(0.002)


def test_a_path_prefix_in_the_url_is_kept(start_router, remote):
    router = start_router(CONFIG.format(prefix="/gateway/"), env={"URL": remote.url, "KEY": KEY})
    assert router.chat().backend == "remote"
    assert remote.asked[0].path == "/gateway/v1/chat/completions"


def test_a_stream_is_relayed_as_it_came(router, remote):
    events = [b": hello\n\n", EVENT, EVENT[:20], EVENT[20:], b"data: [DONE]\n\n"]
    remote.answers = Answers(headers=STREAM, chunks=events)
    reply = router.chat(stream=True)
    assert (reply.backend, reply.body) == ("remote", b"".join(events))
    assert reply.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_the_upstream_calls_wrong_goes_to_the_caller_in_its_own_words(router, remote, status):
    said = {"error": {"message": "max_tokens is too large", "type": "invalid_request_error", "code": "x"}}
    remote.answers = Answers(status=status, body=said)
    for stream in (False, True):
        reply = router.chat(stream=stream)
        assert (reply.status, reply.json()) == (status, said)
    assert len(router.backend("spare").calls) == 0


def test_an_unreadable_refusal_of_the_upstream_is_put_into_our_words(router, remote):
    remote.answers = Answers(status=400, body=b"<html>bad</html>", headers={"content-type": "text/html"})
    reply = router.chat()
    assert reply.status == 400
    assert reply.json()["error"]["message"].startswith("remote answered 400: it does not accept this request")


HTTP = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
FAULTS = {
    "not http": (Answers(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "bad_answer"),
    "nothing": (Answers(raw=b""), "bad_answer"),
    "cut short": (Answers(raw=HTTP + b'content-length: 100\r\n\r\n{"cho'), "bad_answer"),
    "not json": (Answers(body=b"<html>welcome to my proxy</html>"), "bad_answer"),
    "json of another kind": (Answers(body={"hello": 1}), "bad_answer"),
    "not utf-8": (Answers(body=b'{"choices": [], "x": "\xff"}'), "bad_answer"),
    "a list": (Answers(body=[1]), "bad_answer"),
    "nested too deep": (Answers(body=b"[" * 100_000), "bad_answer"),
    "401": (Answers(status=401), "failed"),
    "403": (Answers(status=403), "failed"),
    "404": (Answers(status=404, body={"error": "no such model"}), "failed"),
    "500": (Answers(status=500, body=b"boom"), "failed"),
    "502": (Answers(status=502), "failed"),
    "429": (Answers(status=429, headers={"retry-after": "9"}), "overloaded"),
    "503": (Answers(status=503), "overloaded"),
    "504": (Answers(status=504), "timeout"),
    "302": (Answers(status=302, headers={"location": "http://elsewhere.invalid/"}), "failed"),
    "silence": (Answers(raw=HTTP + b"content-length: 2\r\n\r\n{"), "bad_answer"),
}
STREAM_FAULTS = {
    "not events": (Answers(body=ANSWER), "bad_answer"),
    "no event at all": (Answers(headers=STREAM, chunks=[]), "bad_answer"),
    "cut before the first event": (Answers(headers=STREAM, chunks=[], cut=True), "bad_answer"),
    "html as events": (Answers(headers=STREAM, chunks=[b"<html>"]), "bad_answer"),
    "500": (Answers(status=500, headers=STREAM), "failed"),
    "429": (Answers(status=429), "overloaded"),
}


@pytest.mark.parametrize(
    ("stream", "answers", "outcome"),
    [(False, *case) for case in FAULTS.values()] + [(True, *case) for case in STREAM_FAULTS.values()],
    ids=[*FAULTS, *(f"stream: {name}" for name in STREAM_FAULTS)],
)
def test_an_upstream_that_misbehaves_costs_an_attempt_and_another_backend_answers(
    router, remote, stream, answers, outcome
):
    remote.answers = answers
    reply = router.chat(stream=stream)
    assert (reply.status, reply.backend) == (200, "spare")
    assert router.count("pointsman_attempts_total", backend="remote", outcome=outcome) == 1
    remote.answers = Answers(headers=STREAM, chunks=[EVENT]) if stream else Answers(body=ANSWER)
    asked_for_time = "retry-after" in answers.headers
    expected = "spare" if asked_for_time else "remote"
    assert router.chat(stream=stream).backend == expected, "and it is used again once it behaves, and wants to be"


def test_a_stream_that_is_cut_ends_with_an_error_the_client_can_see(router, remote):
    remote.answers = Answers(headers=STREAM, chunks=[EVENT, EVENT], cut=True)
    reply = router.chat(stream=True)
    assert reply.body.startswith(EVENT + EVENT)
    assert json.loads(reply.body.split(b"\n\n")[2].removeprefix(b"data: "))["error"]["code"] == "upstream_error"
    assert b"[DONE]" not in reply.body


DONE = b"data: [DONE]\n\n"


def broken(reply):
    """A stream that ends with a readable error and without [DONE], every event whole."""
    *events, last = reply.body.removesuffix(b"\n\n").split(b"\n\n")
    assert all(event + b"\n\n" == EVENT for event in events)
    return json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_error"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_stream_that_comes_byte_by_byte_is_the_same(router, remote, end):
    events = b"\n" + EVENT + b": still here\n\n" + EVENT + DONE
    sent = events.replace(b"\n", end)
    remote.answers = Answers(headers=STREAM, chunks=[sent[i : i + 1] for i in range(len(sent))])
    reply = router.chat(stream=True)
    assert (reply.backend, reply.body) == ("remote", sent)


def test_a_stream_that_is_cut_in_the_middle_of_an_event_ends_with_an_error_that_can_be_read(router, remote):
    remote.answers = Answers(headers=STREAM, chunks=[EVENT, EVENT[:20]], cut=True)
    assert broken(router.chat(stream=True))
    remote.answers = Answers(headers=STREAM, chunks=[EVENT, EVENT[:20]])
    assert broken(router.chat(stream=True))


def test_a_stream_that_is_cut_in_its_first_event_is_another_backends(router, remote):
    remote.answers = Answers(headers=STREAM, chunks=[EVENT[:20]], cut=True)
    assert router.chat(stream=True).backend == "spare"


def test_a_stream_without_a_length_is_whole_only_if_it_says_so(router, remote):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    remote.answers = Answers(raw=head + EVENT + EVENT)
    assert broken(router.chat(stream=True))
    remote.answers = Answers(raw=head + EVENT + DONE)
    assert router.chat(stream=True).body == EVENT + DONE


def test_a_stream_that_has_said_that_it_is_done_is_whole_whatever_comes_then(router, remote):
    remote.answers = Answers(headers=STREAM, chunks=[EVENT, DONE], cut=True)
    assert router.chat(stream=True).body == EVENT + DONE
    assert router.count("pointsman_requests_total", backend="remote", outcome="ok") == 1


@pytest.mark.parametrize("end", [DONE.rstrip(), DONE[:-1], EVENT[:-1]])
def test_a_last_event_that_lacks_only_the_empty_line_is_whole(router, remote, end):
    remote.answers = Answers(headers=STREAM, chunks=[EVENT, end])
    assert router.chat(stream=True).body == EVENT + end


def test_an_event_that_never_gets_whole_counts_as_a_pause(router, remote):
    remote.answers = Answers(headers=STREAM, chunks=[EVENT] + [b"data: "] + [b"x"] * 1_000_000)
    slow = iter(range(1_000_000))

    class Slow(list):
        def __iter__(self):
            for chunk in list.__iter__(self):
                time.sleep(0.05 if next(slow) else 0)
                yield chunk

    remote.answers.chunks = Slow(remote.answers.chunks)
    began = time.monotonic()
    assert broken(router.chat(stream=True))
    assert time.monotonic() - began < 5


def test_a_long_event_is_not_held(router, remote):
    event = b"data: " + b"x" * 1_000_000 + b"\n\n"
    remote.answers = Answers(headers=STREAM, chunks=[EVENT, event[:600_000], event[600_000:], DONE])
    assert router.chat(stream=True).body == EVENT + event + DONE


def test_no_message_or_log_line_repeats_the_key_or_what_the_upstream_said(router, remote, caplog):
    caplog.set_level("DEBUG")
    remote.answers = Answers(status=500, body=b"internal-detail-4711")
    reply = router.chat("my-prompt-4711", headers={"x-no-fallback": "true"})
    assert reply.status == 502
    for told in (reply.body.decode(), caplog.text, router.call("GET", "/decisions", admin=True).body.decode()):
        assert KEY not in told
        assert "4711" not in told


def test_an_upstream_that_is_not_there(start_router):
    router = start_router(CONFIG.format(prefix=""), env={"URL": "http://127.0.0.1:1", "KEY": KEY})
    reply = router.chat()
    assert (reply.status, reply.backend) == (200, "spare")
    assert router.count("pointsman_attempts_total", backend="remote", outcome="unreachable") == 1
    assert router.call("GET", "/readyz").json() == {"ready": True, "reachable": ["spare"], "unreachable": ["remote"]}


def test_a_url_or_tls_file_that_cannot_be_used_stops_the_start_and_names_the_backend(start_router, tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    fleet = CONFIG.format(prefix="").replace("timeouts:", "tls: {ca_file: ca.pem}\n    timeouts:")
    with pytest.raises(BackendError, match=r"^remote: .*ca\.pem holds no certificates"):
        start_router(fleet, env={"URL": "https://127.0.0.1:1", "KEY": KEY})
    with pytest.raises(BackendError, match=r"^remote: the URL holds a character"):
        start_router(CONFIG.format(prefix=""), env={"URL": "http://127.0.0.1:1/a b", "KEY": KEY})


def test_a_probe_that_fails_twice_takes_the_backend_out_and_one_that_succeeds_brings_it_back(start_router):
    statuses = [200]
    with upstream(lambda: statuses[0]) as remote:
        remote.answers = Answers(body=ANSWER)
        router = start_router(CONFIG.format(prefix=""), env={"URL": remote.url, "KEY": KEY}, probe_interval_s=0.05)
        assert router.chat().backend == "remote"
        for status, expected in ((500, "spare"), (200, "remote"), (401, "spare"), (404, "remote")):
            statuses[0] = status
            deadline = time.monotonic() + 5
            while (expected == "remote") != ("remote" in router.call("GET", "/readyz").json()["reachable"]):
                assert time.monotonic() < deadline
            reply = router.chat()
            assert reply.backend == expected
            assert reply.headers["x-pointsman-attempts"] == "1"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
def test_the_other_paths(router, remote, path):
    remote.answers = Answers(body=ANSWER if path.endswith("ons") else {"object": "list", "data": [], "usage": None})
    reply = router.call("POST", path, {"model": "chat", "prompt": "a", "input": "a"})
    assert (reply.status, reply.backend) == (200, "remote")
    assert remote.asked[0].path == path


@pytest.mark.parametrize("usage", [{"prompt_tokens": None}, {"prompt_tokens": 5.5, "completion_tokens": 2}, "none", []])
def test_a_count_of_a_strange_shape_counts_as_none_and_the_answer_is_good(router, remote, usage):
    """It has to be paid for, so it must not be thrown away and asked for again elsewhere."""
    remote.answers = Answers(body=ANSWER | {"usage": usage})
    assert router.chat().backend == "remote"
    assert router.count("pointsman_tokens_total", backend="remote", source="estimated", direction="out") == 256


def test_where_every_event_counts_the_last_one_holds(router, remote):
    """vLLM does so with `continuous_usage_stats`; events that come together are one piece."""
    events = [
        b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":%d}}\n\n' % count for count in (1, 2, 200)
    ]
    remote.answers = Answers(chunks=[b"".join(events), b"data: [DONE]\n\n"], headers=STREAM)
    router.chat(stream=True)
    assert router.count("pointsman_tokens_total", backend="remote", source="told", direction="out") == 200
