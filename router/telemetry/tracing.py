"""Traces, as OpenTelemetry over OTLP/HTTP: a SERVER span for each inference request, a CLIENT span for each attempt.

Imported only where traces are wanted. Names of attributes are those of OpenTelemetry's conventions for HTTP (stable)
and GenAI (in development), and `pointsman.*`. Their values are names from the configuration, our own words, ids and
numbers. What a caller made up stays out, but for the request id: it could be anything.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from msgspec.structs import replace
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from backends.calls import Answer, Call, Usage
from policies.schema import Backend as BackendSpec
from policies.types import Target
from router import __version__
from router.attempts import Step
from router.decisionlog.record import shown_model
from router.identity import RawHeaders
from router.telemetry.accounts import OPERATIONS
from router.telemetry.trail import Ended
from router.wire.openai import TASKS

log = logging.getLogger("pointsman")

QUEUE = 8192
"""Spans that wait for the collector. What comes on top of them pushes the oldest out."""
_BATCH = 512
_EVERY_MS = 1000.0
_EXPORT_S = 5.0
"""For one batch, everything included."""
_LAST_S = 2.0
"""For what is left when the router stops."""
_MAX_STATE = 512
_MAX_KNOWN = 1024
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_PORTS = {"http": 80, "https": 443}
_OURS = frozenset({"stream_broken", "cancelled", "internal"})
"""Outcomes that are errors of the exchange whatever the status was."""
_ROOT = Context()
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans and exports them. What the collector does not take is dropped, and holds nobody up."""

    def __init__(self, endpoint: str, share: float, instance: str) -> None:
        """`endpoint` is the collector's base URL; `share` of the requests without a sampling decision of their caller
        are sampled; `instance` names this process."""
        # The SDK's own lines repeat what a collector said, what callers sent, or OTEL_EXPORTER_OTLP_HEADERS with its
        # keys, and come for each batch. What matters is said by `_Exporter`, once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = _Exporter(endpoint)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create(
                {"service.name": "pointsman", "service.version": __version__, "service.instance.id": instance}
            ),
            shutdown_on_exit=False,  # it would wait for the collector half a minute
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=QUEUE,
                schedule_delay_millis=_EVERY_MS,
                max_export_batch_size=_BATCH,
                export_timeout_millis=_EXPORT_S * 1000,
            )
        )
        self.tracer = self._provider.get_tracer("pointsman", __version__)
        self._known: dict[tuple[object, ...], tuple[str, Mapping[str, Any]]] = {}

    def begin(self, method: str, route: str, headers: RawHeaders) -> RequestSpan:
        parent, state = _parent(headers)
        known = method in _METHODS
        span = self.tracer.start_span(f"{method if known else 'HTTP'} {route}", parent, SpanKind.SERVER)
        if span.is_recording():
            span.set_attributes(
                {
                    "http.request.method": method if known else "_OTHER",
                    "http.route": route,
                    "url.path": route,
                    "url.scheme": "http",
                }
            )
        return RequestSpan(self, span, state)

    def known(self, spec: BackendSpec, target: Target, path: str) -> tuple[str, Mapping[str, Any]]:
        """The name of attempts on this target, and what is the same for all of them."""
        model = spec.models[target.model].upstream or target.model
        key = (spec.name, spec.tier, spec.protocol, spec.url, target.model, model, path)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MAX_KNOWN:  # reloads
                self._known.clear()
            found = self._known[key] = _facts(spec, target, model, path)
        return found

    async def aclose(self) -> None:
        """Export what is left, for two seconds at most."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        # Not in the loop's own threads: whoever closes the loop waits for those.
        threading.Thread(target=shut_down, name="pointsman-traces-end", daemon=True).start()
        try:
            async with asyncio.timeout(_LAST_S):
                await done.wait()
        except TimeoutError:
            self._exporter.give_up()


class RequestSpan:
    """The SERVER span of a request."""

    __slots__ = ("_context", "_sampled", "_span", "_state", "_tracing", "trace_id")

    def __init__(self, tracing: Tracing, span: trace.Span, state: str) -> None:
        self._tracing, self._span, self._state = tracing, span, state
        self._context: Context | None = None
        self._sampled = span.is_recording()
        self.trace_id = f"{span.get_span_context().trace_id:032x}" if self._sampled else None

    def attempt(
        self, spec: BackendSpec, target: Target, call: Call, step: Step, number: int, copied: bool
    ) -> AttemptSpan:
        """Of an attempt that begins, of a request that is sampled."""
        if self._context is None:
            self._context = trace.set_span_in_context(self._span, _ROOT)
        name, facts = self._tracing.known(spec, target, call.path)
        facts = {
            **facts,
            "pointsman.attempt.kind": "shadow" if copied else step.kind,
            "pointsman.attempt.number": number,
        }
        if call.stream:
            facts["gen_ai.request.stream"] = True
        span = self._tracing.tracer.start_span(name, self._context, SpanKind.CLIENT, facts)
        return AttemptSpan(span, self._passed_on(target.tier), step)

    def carried(self, call: Call, tier: str) -> Call:
        """Of a request that is not sampled: the call with the request's own context, which says so."""
        return _carried(call, self._span, self._passed_on(tier))

    def _passed_on(self, tier: str) -> str:
        return self._state if tier != "cloud" else ""

    def end(self, ended: Ended) -> None:
        span, decided = self._span, ended.decided
        if self._sampled:
            facts: dict[str, Any] = {"pointsman.outcome": ended.outcome, "pointsman.attempts": ended.attempts}
            if ended.status:
                facts["http.response.status_code"] = ended.status
            if ended.status >= 500 or ended.outcome in _OURS:
                facts["error.type"] = ended.outcome
                span.set_status(Status(StatusCode.ERROR))
            if decided is not None:
                decision, policy = decided.decision, decided.policy
                facts |= {
                    "pointsman.decision.id": decided.id,
                    "pointsman.request.id": decision.request_id,
                    "pointsman.rule": decision.rule,
                    "pointsman.label": policy.levels[decision.label],
                    "pointsman.tenant": decided.request.tenant,
                    "pointsman.model": shown_model(decided.request, policy),
                }
            for name, value in (
                ("pointsman.backend", ended.backend or None),
                ("pointsman.tier", ended.tier or None),
                ("pointsman.time_to_first_token", ended.ttft_s),  # in seconds, as the conventions have it
                ("pointsman.cost_usd", ended.cost_usd),
            ):
                if value is not None:
                    facts[name] = value
            span.set_attributes(facts)
        span.end()


class AttemptSpan:
    """The CLIENT span of one attempt, until the last byte of its answer."""

    __slots__ = ("_ended", "_span", "_state", "_step", "_usage", "outcome")

    def __init__(self, span: trace.Span, state: str, step: Step) -> None:
        self._span, self._state, self._step = span, state, step
        self._usage: Usage | None = None
        self._ended = False
        self.outcome = ""  # where it is another than the step's

    def carried(self, call: Call) -> Call:
        """The call with this attempt's context, for the backend to go on with."""
        return _carried(call, self._span, self._state)

    def answered(self, answer: Answer, seconds: float) -> None:
        """A whole answer is the end of it; of a stream, the first event is there."""
        self._usage = answer.usage
        if answer.chunks is None:
            self.end()
        else:
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", seconds)

    def streamed(self, outcome: str, usage: Usage | None) -> None:
        """How the request ended whose answer this was. A whole answer has ended before."""
        self._usage = usage or self._usage
        self.outcome = {"stream_broken": "broken", "cancelled": "cancelled"}.get(outcome, "")

    def end(self) -> None:
        """May be called twice."""
        if self._ended:
            return
        self._ended = True
        span, outcome = self._span, self.outcome or self._step.outcome
        facts: dict[str, Any] = {"pointsman.attempt.outcome": outcome}
        if self._usage is not None:
            facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"] = self._usage
        if outcome not in ("ok", "cancelled"):  # who is not needed any more has not failed
            facts["error.type"] = outcome
            span.set_status(Status(StatusCode.ERROR))
        span.set_attributes(facts)
        span.end()


class _Exporter(SpanExporter):
    """OpenTelemetry's, which says in one line that the collector takes nothing, and in one that it does again."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._where = f"{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"  # without a password
        session = requests.Session()
        session.hooks["response"].append(self._heard)
        self._status: int | None = None
        self._inner = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S, session=session)
        self._lost = 0

    def _heard(self, response: requests.Response, **_: object) -> None:
        self._status = response.status_code

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._status = None
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                log.warning("the collector of traces at %s takes spans again; %d were lost", self._where, self._lost)
            self._lost = 0
            return result
        if not self._lost:
            why = "does not answer" if self._status is None else f"answers {self._status}"
            log.warning(
                "the collector of traces at %s %s: spans are dropped until it takes them; see --otlp-endpoint",
                self._where,
                why,
            )
        self._lost += len(spans)
        return result

    def give_up(self) -> None:
        """The router ends: no more attempts."""
        log.warning("the collector of traces at %s did not take the last spans in time: they are lost", self._where)
        self.shutdown()

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]


def _parent(headers: RawHeaders) -> tuple[Context, str]:
    """The caller's trace context, and its `tracestate`. What is not well-formed counts as not there.

    The state is kept apart: it goes on to backends, but it is the caller's text, and so nothing for the collector."""
    found = [value for name, value in headers if name == b"traceparent"]
    if len(found) != 1:
        return _ROOT, ""
    context = _PROPAGATOR.extract({"traceparent": found[0].decode("latin-1")}, _ROOT)
    states = [value.decode("latin-1") for name, value in headers if name == b"tracestate"]
    if context is _ROOT or not states or sum(map(len, states)) > _MAX_STATE:
        return context, ""
    return context, TraceState.from_header(states).to_header()


def _carried(call: Call, span: trace.Span, state: str) -> Call:
    context = span.get_span_context()
    if not context.is_valid:  # OTEL_SDK_DISABLED
        return call
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return replace(
        call, trace=(("traceparent", parent), ("tracestate", state)) if state else (("traceparent", parent),)
    )


def _facts(spec: BackendSpec, target: Target, model: str, path: str) -> tuple[str, Mapping[str, Any]]:
    operation = OPERATIONS.get(TASKS.get(path, ""), "infer")  # of tensors: the conventions have no name
    facts: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": spec.protocol,  # who it really is, we do not know: an OpenAI API is spoken by many
        "gen_ai.request.model": model,
        "pointsman.model": target.model,
        "pointsman.backend": target.backend,
        "pointsman.tier": target.tier,
    }
    if spec.url:
        parts = urlsplit(spec.url)
        if parts.hostname:
            facts["server.address"] = parts.hostname
            facts["server.port"] = parts.port or _PORTS.get(parts.scheme, 0)
    return f"{operation} {model}", facts
