"""A collector of traces on loopback: reads OTLP/HTTP with OpenTelemetry's own classes, and misbehaves when told."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Span:
    """As it was exported."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str  # W3C tracestate
    facts: dict[str, Any]
    error: bool
    seconds: float
    resource: dict[str, Any] = field(repr=False)


class Collector:
    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.go = threading.Event()  # it answers while this is set
        self.go.set()

    @property
    def spans(self) -> list[Span]:
        return [span for raw in self.raw for span in _spans(raw)]

    def wait(self, count: int, within_s: float = 10.0) -> list[Span]:
        """Exactly so many spans, once they have come."""
        deadline = time.monotonic() + within_s
        while len(self.spans) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(self.spans) == count, self.spans
        return self.spans

    def trace(self, attempts: int) -> tuple[Span, list[Span]]:
        """The only trace there is: the request's span, and those of its attempts in the order that they began."""
        spans = self.wait(attempts + 1)
        assert len({span.trace_id for span in spans}) == 1
        server = next(span for span in spans if span.kind == "SERVER")
        clients = [span for span in spans if span.kind == "CLIENT"]
        assert len(clients) == attempts
        assert {span.parent_id for span in clients} <= {server.span_id}
        return server, sorted(clients, key=lambda span: span.facts["pointsman.attempt.number"])


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None: ...

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            found.go.wait(60)
            if found.status == 200:
                found.raw.append(body)
            self.send_response(found.status)
            self.send_header("content-length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    found = Collector(server.server_port)
    try:
        yield found
    finally:
        found.go.set()
        server.shutdown()
        server.server_close()


def _spans(raw: bytes) -> Iterator[Span]:
    for of_resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
        resource = _facts(of_resource.resource.attributes)
        for span in (span for scope in of_resource.scope_spans for span in scope.spans):
            yield Span(
                span.name,
                span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.trace_state,
                _facts(span.attributes),
                span.status.code == span.status.STATUS_CODE_ERROR,
                (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                resource,
            )


def _facts(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
