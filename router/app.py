"""The data API: one bare ASGI app for both wires. Reads, decides, executes, answers; every path ends in a metric."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from backends.calls import Call, Usage
from backends.errors import BackendError
from policies.compile import CompiledPolicy
from policies.tenants import ANYONE, Tenant
from policies.types import RefusalCode
from router.asgi import (
    ClientGone,
    Departure,
    Headers,
    Receive,
    Scope,
    Send,
    begin_stream,
    read_body,
    respond,
    send_chunk,
)
from router.decisionlog.record import Decided, Outcome, trace
from router.errors import ApiError, as_api_error
from router.execute import Result
from router.hints import NO_HINTS, Hints, parse_hints
from router.live import Live
from router.requests import Masked
from router.restore import RestoredStream, restore_body
from router.service import Service
from router.wire import oip, openai
from router.wire.parsed import Parsed

_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
"""What a notice may hold as it is in a header; everything else, Japanese included, is percent-encoded UTF-8."""
JSON = ("content-type", "application/json")
_OUTCOMES: dict[str, str] = {
    RefusalCode.MODEL_NOT_FOUND: "not_found",
    RefusalCode.POLICY_NO_BACKEND: "refused",
    RefusalCode.MODEL_NOT_ALLOWED: "refused",
    RefusalCode.USAGE_NOT_ALLOWED: "refused",
    "not_permitted": "refused",
    RefusalCode.UNAUTHORIZED: "unauthorized",
    "identity_unavailable": "unavailable",
    RefusalCode.OVERLOADED: "overloaded",
    RefusalCode.BACKENDS_UNAVAILABLE: "unavailable",
    RefusalCode.DEADLINE_EXCEEDED: "deadline",
    RefusalCode.RATE_LIMITED: "rate_limited",
    RefusalCode.BUDGET_EXHAUSTED: "budget_exhausted",
    "upstream_error": "upstream_error",
    "internal_error": "internal",
}
"""An error's code as the outcome of a request in the metrics; every other code is the caller's: client_error."""


Parse = Callable[[CompiledPolicy, dict[bytes, bytes], bytes], Parsed]
"""(policy, headers, body) -> the call; raises ApiError."""


@dataclass(slots=True)
class Exchange:
    """One request on its way through: what is known so far, for headers and metrics however it ends."""

    live: Live  # the configuration that it goes by, from its first byte to its last
    arrived: float
    tenant: Tenant = ANYONE
    parsed: Parsed | None = None
    hints: Hints = NO_HINTS
    decided: Decided | None = None
    masked: Masked | None = None
    result: Result | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    began: float | None = None  # when the first byte of a streamed answer left


class DataApp:
    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        if path in openai.TASKS:
            await self._run(scope, receive, send, method, openai.render_error, lambda _p, _h, b: openai.parse(path, b))
        elif path.startswith("/v2"):
            await self._v2(scope, receive, send, path, method)
        else:
            await self._plain(scope, send, path, method)

    async def _tenant(self, live: Live, scope: Scope) -> Tenant:
        try:
            return await live.identity.tenant(scope["headers"])
        except ApiError as error:
            reason = {"bad_request": "malformed", "identity_unavailable": "unavailable"}.get(error.code, "")
            self.service.metrics.unauthorized.labels(reason or getattr(error, "reason", "")).inc()
            raise

    # --- inference ----------------------------------------------------------------------------------------------

    async def _run(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        method: str,
        render_error: Callable[[ApiError], bytes],
        parse: Parse,
    ) -> None:
        """One inference request, from its headers to its last byte. Whatever happens is counted once."""
        with self.service.live.used() as live:
            exchange = Exchange(live, time.monotonic())
            await self._run_one(exchange, scope, receive, send, method, render_error, parse)

    async def _run_one(
        self,
        exchange: Exchange,
        scope: Scope,
        receive: Receive,
        send: Send,
        method: str,
        render_error: Callable[[ApiError], bytes],
        parse: Parse,
    ) -> None:
        outcome = "internal"
        try:
            await self._answer(exchange, scope, receive, send, method, parse)
            outcome = "ok"
        except ClientGone:
            outcome = "cancelled"
        except Exception as error:
            failure = as_api_error(error)
            outcome = _OUTCOMES.get(failure.code, "client_error")
            if exchange.began is not None:
                outcome = "stream_broken"
                await send_chunk(send, openai.stream_error(failure), last=True)
            else:
                headers = (JSON, *failure.headers, *self._headers(exchange, None))
                await respond(send, failure.status, render_error(failure), headers)
        finally:
            if exchange.result is not None:
                exchange.result.lease.release()
            self._count(exchange, outcome)

    async def _answer(
        self,
        exchange: Exchange,
        scope: Scope,
        receive: Receive,
        send: Send,
        method: str,
        parse: Parse,
    ) -> None:
        if method != "POST":
            raise _not_allowed("POST")
        service, live = self.service, exchange.live
        exchange.tenant = await self._tenant(live, scope)  # before the body: a stranger's is not even read
        fields: dict[bytes, bytes] = dict(scope["headers"])
        _check_content_type(fields.get(b"content-type", b""), scope["path"])
        body = await read_body(receive, fields.get(b"content-length"), service.settings.max_body_bytes)
        parsed = exchange.parsed = parse(live.policy, fields, body)
        hints = exchange.hints = parse_hints(scope["headers"], live.policy)
        decided, masked = await service.decide(live, parsed, hints, len(body), exchange.tenant.name)
        exchange.decided, exchange.masked = decided, masked
        request = decided.request
        if decided.decision.refusal is not None:
            raise ApiError.from_refusal(decided.decision.refusal, decided.decision.notices)
        path, payload = (parsed.path, body) if parsed.infer is None else ("", b"")
        sent_label = request.label
        if masked is not None:  # only then has anything been removed, and only then may less than the label count
            payload, sent_label = msgspec.json.encode(masked.content), decided.decision.sent_label
        call = Call(parsed.model, path, payload, parsed.stream, parsed.infer, request.id, sent_label)
        async with Departure(receive) as departure:
            result = exchange.result = await service.execute(live, decided, call)
            if result.answer.chunks is not None:
                await self._stream(exchange, decided, result, send)
                departure.dismiss()
                await send_chunk(send, b"", last=True)
            else:
                body, headers = self._whole(exchange, decided, parsed, result)
                departure.dismiss()
                await respond(send, 200, body, headers)

    def _whole(self, exchange: Exchange, decided: Decided, parsed: Parsed, result: Result) -> tuple[bytes, Headers]:
        answer = result.answer
        headers: Headers = (JSON,)
        if answer.infer is not None and parsed.infer is not None:
            body, headers = oip.render(answer.infer, parsed.infer, parsed.model)
        else:
            body = answer.body or b""
        if exchange.masked is not None:
            body, unrestored = restore_body(body, exchange.masked.pseudonyms)
            self.service.metrics.unrestored.inc(unrestored)
        exchange.usage = answer.usage
        exchange.cost_usd = self.service.finished(exchange.live, decided, result, answer.usage)
        return body, (*headers, *self._headers(exchange, exchange.cost_usd))

    async def _stream(self, exchange: Exchange, decided: Decided, result: Result, send: Send) -> None:
        """Everything but the end of a streamed answer: the caller sends that once nothing can fail any more."""
        chunks, request = result.answer.chunks, decided.request
        assert chunks is not None
        try:
            estimate = self.service.cost(result, request, None)
            headers = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
            await begin_stream(send, (*headers, *self._headers(exchange, estimate)))
            now = exchange.began = time.monotonic()
            first_byte = self.service.metrics.first_byte_seconds.labels(request.task, result.candidate.target.tier)
            first_byte.observe(now - exchange.arrived)
            exchange.live.state.observe_ttft(result.candidate.target, (now - result.started) * 1000)
            if exchange.masked is not None:
                chunks = RestoredStream(chunks, exchange.masked.pseudonyms)
            async for chunk in chunks:
                await send_chunk(send, chunk)
            if isinstance(chunks, RestoredStream):
                self.service.metrics.unrestored.inc(chunks.unrestored)
            exchange.cost_usd = self.service.finished(exchange.live, decided, result, None)
        except BackendError:
            exchange.live.executor.stream_broke(result)
            raise
        finally:
            await chunks.aclose()

    def _headers(self, exchange: Exchange, cost: float | None) -> list[tuple[str, str]]:
        """What every answer says of its decision."""
        headers = [("x-pointsman-schema", "1")]
        if exchange.decided is not None:
            decision = exchange.decided.decision
            headers += [
                ("x-request-id", decision.request_id),
                ("x-pointsman-decision", exchange.decided.id),
                ("x-pointsman-rule", decision.rule),
                ("x-pointsman-label", exchange.live.policy.levels[decision.label]),
            ]
            if exchange.hints.trace:
                headers.append(("x-pointsman-trace", trace(exchange.decided)))
            headers += [("x-pointsman-notice", quote(notice, safe=_PLAIN)) for notice in decision.notices]
        if exchange.result is not None:
            target = exchange.result.candidate.target
            headers += [
                ("x-pointsman-backend", target.backend),
                ("x-pointsman-tier", target.tier),
                ("x-pointsman-attempts", str(exchange.result.attempts)),
            ]
        if cost is not None:
            headers.append(("x-pointsman-cost-usd", f"{cost:.9f}"))
        return headers

    def _count(self, exchange: Exchange, outcome: str) -> None:
        metrics = self.service.metrics
        target = exchange.result.candidate.target if exchange.result is not None else None
        rule = exchange.decided.decision.rule if exchange.decided is not None else ""
        task = exchange.parsed.task if exchange.parsed is not None else ""
        backend, tier = (target.backend, target.tier) if target is not None else ("", "")
        metrics.requests.labels(task, rule, backend, tier, outcome).inc()
        took = time.monotonic() - exchange.arrived
        if outcome == "ok":
            metrics.request_seconds.labels(task, tier).observe(took)
        if exchange.decided is not None and exchange.parsed is not None:
            ttft = (exchange.began - exchange.arrived) * 1000 if exchange.began is not None else None
            usage = exchange.usage
            concluded = Outcome(
                outcome, backend or None, exchange.result.attempts if exchange.result is not None else 0,
                took * 1000, ttft, usage.tokens_in if usage else None, usage.tokens_out if usage else None,
                exchange.cost_usd,
            )  # fmt: skip
            self.service.concluded(exchange.live, exchange.decided, concluded, exchange.parsed, exchange.hints)

    # --- everything else ----------------------------------------------------------------------------------------

    async def _v2(self, scope: Scope, receive: Receive, send: Send, path: str, method: str) -> None:
        model = oip.match_model(path)
        service = self.service
        if model is not None and model[1] == "infer":
            name, limit = model[0], service.settings.max_body_bytes
            await self._run(
                scope, receive, send, method, oip.render_error,
                lambda policy, headers, body: oip.parse(name, headers, body, policy, limit),
            )  # fmt: skip
            return

        live = service.live

        async def answer() -> tuple[int, Any]:
            if path == "/v2/health/live":
                return 200, {"live": True}
            if path == "/v2/health/ready":
                ready = bool(service.readiness()["ready"])
                return (200 if ready else 503), {"ready": ready}
            tenant = await self._tenant(live, scope)
            if model is not None and not tenant.may_use(model[0]):
                raise ApiError(RefusalCode.MODEL_NOT_FOUND, "no backend serves a tensor model of this name")
            if model is not None and model[1] == "ready":
                ready = service.model_ready(model[0])
                return (200 if ready else 503), {"name": model[0], "ready": ready}
            if model is not None:
                metadata = await live.metadata(model[0])
                if metadata is None:
                    raise ApiError(RefusalCode.MODEL_NOT_FOUND, "no backend serves a tensor model of this name")
                return 200, oip.render_metadata(model[0], metadata)
            if path in ("/v2", "/v2/"):
                return 200, oip.SERVER
            raise _no_such_path()

        await self._get(send, method, oip.render_error, answer)

    async def _plain(self, scope: Scope, send: Send, path: str, method: str) -> None:
        live = self.service.live

        async def models() -> list[dict[str, Any]]:
            tenant = await self._tenant(live, scope)
            return [model for model in openai.models(live.policy) if tenant.may_use(model["id"])]

        async def answer() -> tuple[int, Any]:
            if path == "/v1/models":
                return 200, {"object": "list", "data": await models()}
            if path.startswith("/v1/models/"):
                for model in await models():
                    if model["id"] == path.removeprefix("/v1/models/"):
                        return 200, model
                raise ApiError(RefusalCode.MODEL_NOT_FOUND, "no backend serves a model of this name")
            if path == "/healthz":
                return 200, {"status": "alive"}
            if path == "/readyz":
                readiness = self.service.readiness()
                if live.policy.tenants is not None:  # which backends there are is not for everybody
                    readiness = {"ready": readiness["ready"]}
                return (200 if readiness["ready"] else 503), readiness
            raise _no_such_path()

        await self._get(send, method, openai.render_error, answer)

    async def _get(
        self,
        send: Send,
        method: str,
        render_error: Callable[[ApiError], bytes],
        answer: Callable[[], Awaitable[tuple[int, Any]]],
    ) -> None:
        try:
            if method not in ("GET", "HEAD"):
                raise _not_allowed("GET")
            status, content = await answer()
            body = msgspec.json.encode(content)
            await respond(send, status, body, (JSON,))  # of HEAD, the server leaves the body out
        except Exception as error:
            failure = as_api_error(error)
            await respond(send, failure.status, render_error(failure), (JSON, *failure.headers))


def _not_allowed(method: str) -> ApiError:
    return ApiError("method_not_allowed", f"this path takes {method}", headers=(("allow", method),))


def _no_such_path() -> ApiError:
    paths = (*openai.TASKS, "/v1/models", "/v2/models/<model>/infer")
    return ApiError("not_found", "no such path", f"there are: {', '.join(paths)}")


def _check_content_type(value: bytes, path: str) -> None:
    kind = value.split(b";")[0].strip().lower()
    allowed = ("application/json",) if path.startswith("/v1") else ("", "application/json", "application/octet-stream")
    if kind.decode("latin-1") not in allowed:
        raise ApiError(
            "unsupported_media_type",
            "the body's content-type is not one that this path takes",
            f"send content-type: {' or '.join(filter(None, allowed))}",
        )
