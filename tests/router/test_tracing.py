"""Traces, as a collector gets them: who called whom, what is told, and that a collector in trouble is nobody else's."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from collector import collector
from conftest import ROOT, run_command
from test_execution import at_rest, wait_until
from upstream import Answers, upstream

from backends.oip_codec import HEADER_LENGTH, encode_request
from backends.tensors import InferRequest, Tensor
from router.demo.processes import free_port
from router.telemetry import tracing

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
TWO = """
kind: Fleet
backends:
  - {{name: first, tier: edge, region: jp, clearance: restricted, protocol: fake, latency: {{prior_ms: 10}},
     script: {first}, models: {{chat: {{task: chat, quality: 0.3}}}}}}
  - {{name: second, tier: cloud, region: us, clearance: internal, protocol: fake, latency: {{prior_ms: 100}},
     script: {second}, models: {{chat: {{task: chat, upstream: large-model, quality: 0.9}}}}}}
---
kind: Policy
rules:
  - {{name: all, objective: {{latency: {{weight: 1}}}}, fallback: {{attempts: 3, retry_share: 1}}{more}}}
"""
HTTP = """
kind: Fleet
backends:
  - {{name: onprem, tier: onprem, region: jp, clearance: restricted, protocol: openai, url: "{one}",
     latency: {{prior_ms: 10}}, models: {{chat: {{task: chat}}}}, limits: {{max_in_flight: 64}}}}
  - {{name: cloud, tier: cloud, region: us, clearance: internal, protocol: openai, url: "{two}",
     latency: {{prior_ms: 100}}, models: {{chat: {{task: chat}}}}, api_key: {{env: CLOUD_KEY}}}}
  - {{name: tensors, tier: onprem, region: jp, clearance: restricted, protocol: oip, url: "{one}",
     models: {{t: {{task: text}}}}}}
---
kind: Policy
rules: [{{name: all, objective: {{latency: {{weight: 1}}}}, fallback: {{retry_share: 0}}}}]
"""
ANSWER = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2},
}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(tracing, "_EVERY_MS", 50.0)


@pytest.fixture
def found():
    with collector() as one:
        yield one


@pytest.fixture
def start(start_router, found):
    def start(first="[{}]", second="[{text: from the second}]", more="", text=None, **settings):
        config = TWO.format(first=first, second=second, more=more) if text is None else text
        return start_router(config, otlp_endpoint=found.url, **settings)

    return start


@pytest.fixture
def servers():
    with upstream() as one, upstream() as two:
        one.answers.body = two.answers.body = ANSWER
        yield one, two


@pytest.fixture
def behind_http(start_router, found, servers):
    text = HTTP.format(one=servers[0].url, two=servers[1].url)
    return start_router(text, env={"CLOUD_KEY": "sk-upstream-key-4711"}, otlp_endpoint=found.url)


def test_a_request_is_one_trace_of_its_span_and_its_attempts(start, found):
    router = start()
    reply = router.chat(headers={"x-request-id": "r-77"})
    server, (attempt,) = found.trace(1)
    assert (server.name, server.parent_id, server.error) == ("POST /v1/chat/completions", "", False)
    assert server.facts.pop("pointsman.cost_usd") == 0
    assert server.facts == {
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "url.path": "/v1/chat/completions",
        "url.scheme": "http", "http.response.status_code": 200, "pointsman.outcome": "ok", "pointsman.attempts": 1,
        "pointsman.decision.id": reply.headers["x-pointsman-decision"], "pointsman.request.id": "r-77",
        "pointsman.rule": "all", "pointsman.label": "internal", "pointsman.tenant": "anonymous",
        "pointsman.model": "chat", "pointsman.backend": "first", "pointsman.tier": "edge",
    }  # fmt: skip
    assert (attempt.name, attempt.error) == ("chat chat", False)
    assert attempt.facts == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "fake", "gen_ai.request.model": "chat",
        "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": reply.json()["usage"]["completion_tokens"],
        "pointsman.model": "chat", "pointsman.backend": "first", "pointsman.tier": "edge",
        "pointsman.attempt.kind": "first", "pointsman.attempt.number": 1, "pointsman.attempt.outcome": "ok",
    }  # fmt: skip
    assert server.resource["service.name"] == "pointsman"
    assert server.resource["service.version"]
    assert re.fullmatch(r"main-[0-9a-f]{8}", server.resource["service.instance.id"])


def test_every_attempt_has_a_span_that_says_how_it_ended(start, found):
    router = start(first="[{fail: status_500}]")
    assert router.chat().backend == "second"
    server, attempts = found.trace(2)
    assert [(a.facts["pointsman.backend"], a.facts["pointsman.attempt.kind"]) for a in attempts] == [
        ("first", "first"), ("second", "fallback"),
    ]  # fmt: skip
    assert (attempts[0].error, attempts[0].facts["error.type"]) == (True, "failed")
    assert (attempts[1].error, attempts[1].name) == (False, "chat large-model"), "as the backend is asked"
    assert (server.error, server.facts["pointsman.attempts"]) == (False, 2)


def test_a_retry_is_told_as_one(start, found):
    router = start(first="[{fail: status_500}, {}]", second="[{fail: status_500}]")
    assert router.chat().backend == "first"
    _, attempts = found.trace(3)
    assert [a.facts["pointsman.attempt.kind"] for a in attempts] == ["first", "fallback", "retry"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_hedge_that_wins_and_the_attempt_that_is_given_up(start, found, stream):
    router = start(first="[{latency_ms: 3000}]", more=", strategy: {hedge: {max_extra_load: 1}}")
    assert router.chat(stream=stream).backend == "second"
    server, attempts = found.trace(2)
    kinds = [(a.facts["pointsman.attempt.kind"], a.facts["pointsman.attempt.outcome"], a.error) for a in attempts]
    assert kinds == [("first", "cancelled", False), ("hedge", "ok", False)]
    assert server.facts["pointsman.backend"] == "second"


def test_a_cascade_shows_its_escalation(start, found):
    router = start(more=", strategy: {cascade: {escalate_below_confidence: 0.8}}")
    assert router.chat().backend == "second"
    _, attempts = found.trace(2)
    assert [a.facts["pointsman.attempt.kind"] for a in attempts] == ["first", "escalation"]


def test_a_copy_to_a_backend_on_trial_is_part_of_the_trace(start, found):
    router = start(more=", shadow: {backend: second}")
    router.chat()
    spans = found.wait(3)
    assert len({span.trace_id for span in spans}) == 1
    told = {(s.facts["pointsman.backend"], s.facts["pointsman.attempt.kind"]) for s in spans if s.kind == "CLIENT"}
    assert told == {("first", "first"), ("second", "shadow")}


def test_a_stream_is_traced_to_its_last_byte(start, found):
    router = start(first="[{text: one two three four, chunks: 4, chunk_delay_ms: 50, latency_ms: 60}]")
    assert router.chat(stream=True).status == 200
    server, (attempt,) = found.trace(1)
    first = attempt.facts["gen_ai.response.time_to_first_chunk"]
    assert 0.05 <= first < 0.15 < attempt.seconds, "the first chunk, and all four"
    assert first <= server.facts["pointsman.time_to_first_token"] <= server.seconds
    assert attempt.facts["gen_ai.request.stream"] is True


def test_usage_that_a_stream_tells_at_its_end_is_in_its_span(behind_http, found, servers):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}\n\n'
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
    servers[0].answers = Answers(
        chunks=[event, usage, b"data: [DONE]\n\n"], headers={"content-type": "text/event-stream"}
    )
    assert behind_http.chat(stream=True).status == 200
    _, (attempt,) = found.trace(1)
    assert attempt.facts["gen_ai.usage.input_tokens"] == 9
    assert attempt.facts["gen_ai.usage.output_tokens"] == 4
    assert attempt.facts["server.address"] == "127.0.0.1"
    assert attempt.facts["server.port"] == int(servers[0].url.rsplit(":", 1)[1])


def test_a_stream_that_breaks_is_an_error_of_both(start, found):
    router = start(first="[{break_after_chunks: 1, chunks: 3}]")
    router.chat(stream=True)
    server, (attempt,) = found.trace(1)
    assert (server.error, server.facts["error.type"]) == (True, "stream_broken")
    assert (attempt.error, attempt.facts["error.type"]) == (True, "broken")


def test_a_client_that_leaves_ends_the_trace(start, found):
    router = start(first="[{latency_ms: 5000}]")
    connection = http.client.HTTPConnection("127.0.0.1", router.port)
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hello"}]})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    wait_until(lambda: len(router.backend("first").calls) == 1)
    connection.close()
    server, (attempt,) = found.trace(1)
    assert (server.error, server.facts["error.type"]) == (True, "cancelled")
    assert "http.response.status_code" not in server.facts
    assert attempt.facts["pointsman.attempt.outcome"] == "cancelled"


def test_refusals_and_bad_requests_have_spans_that_are_no_errors(start, found):
    router = start()
    assert router.call("POST", "/v1/chat/completions", b"{").status == 400
    assert router.call("POST", "/v1/chat/completions", {"model": "invented-4711", "messages": []}).status in (400, 404)
    spans = found.wait(2)
    assert {span.facts["http.response.status_code"] for span in spans} <= {400, 404}
    assert not any(span.error or "error.type" in span.facts for span in spans)


def test_failures_of_every_backend_are_an_error(start, found):
    router = start(first="[{fail: connect}]", second="[{fail: status_500}]")
    assert router.chat(headers={"x-no-fallback": "true"}).status == 502
    wait_until(lambda: any(span.kind == "SERVER" for span in found.spans))
    server = next(span for span in found.spans if span.kind == "SERVER")
    assert (server.error, server.facts["error.type"]) == (True, "upstream_error")


# --- context in and out -------------------------------------------------------------------------------------------


def test_the_callers_trace_goes_on(start, found):
    start().chat(headers={"traceparent": TRACEPARENT})
    server, (attempt,) = found.trace(1)
    assert (server.trace_id, server.parent_id) == (TRACE, PARENT)
    assert attempt.trace_id == TRACE


def test_each_backend_gets_the_context_of_its_own_attempt(behind_http, found, servers):
    servers[0].answers = Answers(status=500, body={})
    behind_http.chat(headers={"traceparent": TRACEPARENT, "tracestate": "vendor=abc,other=1"})
    _, attempts = found.trace(2)
    for attempt, asked in zip(attempts, (servers[0].asked[0], servers[1].asked[0]), strict=True):
        version, trace_id, span_id, flags = asked.headers["traceparent"].split("-")
        assert (version, trace_id, span_id) == ("00", TRACE, attempt.span_id)
        assert int(flags, 16) & 1
    assert servers[0].asked[0].headers["tracestate"] == "vendor=abc,other=1"
    assert "tracestate" not in servers[1].asked[0].headers, "the caller's text is nothing for a cloud"
    assert all(span.state == "" for span in found.spans), "nor for the collector"


def test_a_tensor_model_gets_it_too(behind_http, found, servers):
    tensor = Tensor.from_array("x", np.array([1.0], dtype=np.float32))
    parts, length = encode_request(InferRequest((tensor,), id="plain"))
    headers = {HEADER_LENGTH: str(length), "content-type": "application/octet-stream"}
    servers[0].answers = Answers(
        body={"model_name": "t", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [2.0]}]}
    )
    assert behind_http.call("POST", "/v2/models/t/infer", b"".join(parts), headers).status == 200
    server, (attempt,) = found.trace(1)
    assert (server.name, server.facts["url.path"]) == ("POST /v2/models/{model}/infer", "/v2/models/{model}/infer")
    assert (attempt.name, attempt.facts["gen_ai.provider.name"]) == ("infer t", "oip")
    assert servers[0].asked[0].headers["traceparent"].split("-")[2] == attempt.span_id


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "nonsense"},
        {"traceparent": f"ff-{TRACE}-{PARENT}-01"},
        {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
        {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
        {"traceparent": f"00-{TRACE.upper()}-{PARENT}-01"},
        {"traceparent": f"00-{TRACE}-{PARENT}-01-more"},
        {"traceparent": "x" * 5000},
        {"tracestate": "vendor=alone"},
    ],
)
def test_a_context_that_is_malformed_counts_as_none(behind_http, found, servers, headers):
    assert behind_http.chat(headers=headers).status == 200
    server, _ = found.trace(1)
    assert server.parent_id == ""
    assert server.trace_id != TRACE
    assert "tracestate" not in servers[0].asked[0].headers


def test_two_parents_are_none(start, found):
    router = start()
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=10)
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hello"}]}).encode()
    connection.putrequest("POST", "/v1/chat/completions")
    for name, value in (("content-type", "application/json"), ("content-length", str(len(body)))):
        connection.putheader(name, value)
    connection.putheader("traceparent", TRACEPARENT)
    connection.putheader("traceparent", TRACEPARENT.replace("4bf9", "4bfa"))
    connection.endheaders(body)
    assert connection.getresponse().status == 200
    server, _ = found.trace(1)
    assert server.parent_id == ""


@pytest.mark.parametrize("state", ["no equals sign", "a=1," * 200, "key=" + "v" * 600, "社=1"])
def test_a_state_that_is_malformed_goes_nowhere(behind_http, found, servers, state):
    headers = {"traceparent": TRACEPARENT, "tracestate": state.encode().decode("latin-1")}
    assert behind_http.chat(headers=headers).status == 200
    server, _ = found.trace(1)
    assert server.trace_id == TRACE
    assert "tracestate" not in servers[0].asked[0].headers


def test_without_tracing_nothing_is_forwarded(start_router, servers):
    router = start_router(HTTP.format(one=servers[0].url, two=servers[1].url), env={"CLOUD_KEY": "k"})
    router.chat(headers={"traceparent": TRACEPARENT, "tracestate": "a=1"})
    assert not {"traceparent", "tracestate"} & servers[0].asked[0].headers.keys()


# --- sampling -----------------------------------------------------------------------------------------------------


def test_a_caller_that_does_not_sample_is_not_traced_and_its_context_goes_on(behind_http, found, servers):
    behind_http.chat(headers={"traceparent": TRACEPARENT[:-2] + "00"})
    _, trace_id, span_id, flags = servers[0].asked[0].headers["traceparent"].split("-")
    assert trace_id == TRACE
    assert span_id != PARENT
    assert int(flags, 16) & 1 == 0
    behind_http.chat()
    assert {span.trace_id for span in found.wait(2)} != {TRACE}


def test_a_share_of_none_traces_what_a_caller_has_sampled_and_nothing_else(start, found):
    router = start(trace_share=0.0)
    for _ in range(20):
        router.chat()
    router.chat(headers={"traceparent": TRACEPARENT})
    assert {span.trace_id for span in found.wait(2)} == {TRACE}


def test_a_share_is_a_share(start, found):
    router = start(trace_share=0.3)
    for _ in range(200):
        assert router.chat().status == 200
    router.stop()
    router.join()
    assert 30 <= len({span.trace_id for span in found.spans}) <= 90


def test_the_trace_of_a_request_is_known_where_it_is_sampled(start, found):
    """For exemplars in metrics, and for log lines."""
    known = []
    router = start(first="[{latency_ms: 60}]", trace_share=0.0)
    for headers in ({"traceparent": TRACEPARENT}, {}):
        before = len(router.backend("first").calls)
        connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=10)
        body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hello"}]})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json", **headers})
        wait_until(lambda before=before: len(router.backend("first").calls) > before)
        known += [exchange.trail.trace_id for exchange in tuple(router.service.exchanges)]
        assert connection.getresponse().status == 200
        connection.close()
        wait_until(lambda: not router.service.exchanges)
    assert known == [TRACE, None]


# --- a collector in trouble ---------------------------------------------------------------------------------------


def outages(caplog):
    return [record for record in caplog.records if "the collector of traces" in record.getMessage()]


def test_a_collector_that_is_down_is_told_once_and_holds_nothing_up(start_router, caplog):
    router = start_router(
        TWO.format(first="[{}]", second="[{}]", more=""), otlp_endpoint=f"http://127.0.0.1:{free_port()}"
    )
    began = time.monotonic()
    for _ in range(100):
        assert router.chat().status == 200
    assert time.monotonic() - began < 3
    wait_until(lambda: len(outages(caplog)) == 1, 10)
    assert "does not answer" in outages(caplog)[0].getMessage()
    began = time.monotonic()
    router.stop()
    router.join()
    assert time.monotonic() - began < 5
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_stop(start, found):
    found.go.clear()
    router = start()
    router.chat()
    wait_until(lambda: found.headers)
    began = time.monotonic()
    for _ in range(100):
        assert router.chat().status == 200
    assert time.monotonic() - began < 3
    began = time.monotonic()
    router.stop()
    router.join()
    assert time.monotonic() - began < 5


def test_a_collector_that_fails_is_told_once_an_outage(start, found, caplog):
    router = start()
    for outage in range(2):
        found.status = 500
        for _ in range(3):
            asked = len(found.headers)
            router.chat()
            wait_until(lambda asked=asked: len(found.headers) > asked)
        wait_until(lambda outage=outage: len(outages(caplog)) == 2 * outage + 1)
        found.status = 200
        router.chat()
        wait_until(lambda outage=outage: len(outages(caplog)) == 2 * outage + 2)
    assert "answers 500" in outages(caplog)[0].getMessage()
    assert "were lost" in outages(caplog)[1].getMessage()


def test_what_waits_for_the_collector_is_bounded(start, found, monkeypatch):
    monkeypatch.setattr(tracing, "QUEUE", 20)
    monkeypatch.setattr(tracing, "_BATCH", 10)
    found.go.clear()
    router = start()
    router.chat()
    wait_until(lambda: found.headers)
    for _ in range(100):
        assert router.chat().status == 200
    found.go.set()
    router.stop()
    router.join()
    assert len(found.spans) <= 40, "of 202"


# --- what must not be in it ---------------------------------------------------------------------------------------


def test_no_payload_and_no_key_is_exported(start_router, found, servers):
    secrets = [
        "社外秘カナリア",
        "canary-prompt-4711",
        "sk-tenant-key-0815-0815",
        "sk-upstream-key-4711",
        "canary-answer",
    ]
    secrets += ["canary-model", "canary-session", "canary-state", "canary-header", "CANARYMETHOD"]
    message = {"role": "assistant", "content": "canary-answer"}
    servers[0].answers.body = {"model": "canary-answer", "choices": [{"index": 0, "message": message}]}
    servers[1].answers = Answers(status=500, body={"error": {"message": "canary-answer"}})
    text = HTTP.format(one=servers[0].url, two=servers[1].url)
    text += "---\nkind: Tenants\ntenants: [{name: acme, keys: [{env: TENANT_KEY}]}]\n"
    env = {"CLOUD_KEY": "sk-upstream-key-4711", "TENANT_KEY": "sk-tenant-key-0815-0815"}
    router = start_router(text, env=env, otlp_endpoint=found.url)
    headers = {
        "authorization": "Bearer sk-tenant-key-0815-0815", "x-session-id": "canary-session", "x-other": "canary-header",
        "traceparent": TRACEPARENT, "tracestate": "v=canary-state",
    }  # fmt: skip
    prompt = "社外秘カナリア canary-prompt-4711"
    for stream in (False, True):
        router.chat(prompt, headers, stream=stream)
    router.chat(prompt, headers, model="canary-model")
    router.chat(prompt, {**headers, "authorization": "Bearer canary-header"})
    router.call("POST", "/v2/models/canary-model/infer", {"inputs": [{"name": prompt}]}, headers)
    router.call("CANARYMETHOD", "/v1/chat/completions", b"", headers)
    wait_until(lambda: at_rest(router))
    router.stop()
    router.join()
    exported = b"".join(found.raw)
    assert sum(span.kind == "SERVER" for span in found.spans) >= 5
    assert b"acme" in exported, "names from the configuration are"
    for secret in secrets:
        assert secret.encode() not in exported, secret
        assert secret not in repr(found.headers), secret


# --- off, and not installed ---------------------------------------------------------------------------------------

SERVE = "import sys; from router.cli import main; {before}; sys.exit(main(sys.argv[1:]))"


def write(tmp_path):
    text = TWO.format(first="[{}]", second="[{}]", more="").replace("kind: ", "apiVersion: pointsman/v1\nkind: ")
    (tmp_path / "all.yaml").write_text(text)
    return str(tmp_path)


def test_without_the_flag_nothing_of_it_is_imported(tmp_path):
    """Whatever the environment says."""
    program = """
import json, sys, threading, urllib.request, os, signal
from router.cli import main
def ask():
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hello"}]}).encode()
    head = {"content-type": "application/json", "traceparent": "TRACEPARENT"}
    request = urllib.request.Request("http://127.0.0.1:PORT/v1/chat/completions", body, head)
    for _ in range(200):
        try:
            print("answered", urllib.request.urlopen(request).status)
            break
        except OSError:
            threading.Event().wait(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=ask).start()
status = main(["serve", "FOLDER", "--engine", "local", "--port", "PORT", "--admin-port", "ADMIN"])
print("imported", [m for m in sys.modules if m.startswith(("opentelemetry", "requests", "router.telemetry.tracing"))])
"""
    for name, value in (
        ("TRACEPARENT", TRACEPARENT), ("FOLDER", write(tmp_path)), ("PORT", free_port()), ("ADMIN", free_port()),
    ):  # fmt: skip
        program = program.replace(name, str(value))
    env = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "answered 200" in done.stdout, done.stderr
    assert "imported []" in done.stdout


def test_where_it_is_not_installed_serve_says_what_to_install(tmp_path):
    before = "sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None"
    done = subprocess.run(
        [sys.executable, "-c", SERVE.format(before=before), "serve", write(tmp_path), "--otlp-endpoint", "http://x:4318"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'pointsman[tracing]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--otlp-endpoint", "localhost:4318"),
        ("--otlp-endpoint", "grpc://localhost:4317"),
        ("--otlp-endpoint", "http://localhost:port"),
        ("--otlp-endpoint", "http://"),
        ("--trace-share", "1.5"),
        ("--trace-share", "nan"),
        ("--trace-share", "half"),
        ("--log-level", "verbose"),
        ("--log-format", "xml"),
    ],
)
def test_flags_that_cannot_be_are_misuse(capsys, tmp_path, flags):
    status, _, err = run_command(capsys, "serve", write(tmp_path), *flags)
    assert status == 2
    assert flags[0] in err


def test_the_collectors_key_comes_from_the_environment_and_is_told_nowhere(start_router, found, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=sk-collector-4711")
    caplog.set_level(logging.DEBUG)
    router = start_router(TWO.format(first="[{}]", second="[{}]", more=""), otlp_endpoint=found.url)
    router.chat()
    found.trace(1)
    assert found.headers[0]["api-key"] == "sk-collector-4711"
    assert "sk-collector-4711" not in caplog.text


def test_exemplars_of_the_metrics_lead_to_the_trace(start):
    router = start()
    router.chat(headers={"traceparent": TRACEPARENT})
    router.chat(headers={"traceparent": TRACEPARENT.replace("-01", "-00").replace("4bf9", "5cf0")})  # not sampled
    accept = {"accept": "application/openmetrics-text;version=1.0.0"}
    text = router.call("GET", "/metrics", headers=accept, admin=True).body.decode()
    shown = [
        line for line in text.splitlines() if line.startswith("pointsman_request_seconds_bucket") and " # " in line
    ]
    assert [re.search(r'trace_id="(\w+)"', line)[1] for line in shown] == [TRACE]
