"""One inference request, from its headers to its last byte. Whatever happens to it is counted once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from backends.calls import Call, Chunks, Usage
from backends.errors import BackendError, RequestRejected
from policies.compile import CompiledPolicy
from policies.tenants import NOBODY, Tenant
from policies.types import RefusalCode
from router.attempts import Result, Step
from router.billing import Bill, Counted
from router.decisionlog.record import UNKNOWN_MODEL, Decided, Outcome, trace
from router.errors import ApiError, as_api_error, not_allowed
from router.hints import NO_HINTS, Hints, parse_hints
from router.http.request import JSON, Body, ClientGone, Inbound, lines
from router.live import Live
from router.requests import Masked
from router.restore import RestoredStream, restore_body
from router.resume import ResumedStream
from router.service import Service
from router.telemetry.accounts import Ended, EndedKey, slo_met
from router.wire import oip, openai
from router.wire.parsed import Parsed

_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
"""What a notice may hold as it is in a header; everything else, Japanese included, is percent-encoded UTF-8."""
OUTCOMES: dict[str, str] = {
    RefusalCode.MODEL_NOT_FOUND: "not_found",
    RefusalCode.POLICY_NO_BACKEND: "refused",
    RefusalCode.MODEL_NOT_ALLOWED: "refused",
    RefusalCode.USAGE_NOT_ALLOWED: "refused",
    "not_permitted": "refused",
    RefusalCode.UNAUTHORIZED: "unauthorized",
    "identity_unavailable": "unavailable",
    "shutting_down": "unavailable",
    RefusalCode.OVERLOADED: "overloaded",
    RefusalCode.BACKENDS_UNAVAILABLE: "unavailable",
    RefusalCode.DEADLINE_EXCEEDED: "deadline",
    RefusalCode.RATE_LIMITED: "rate_limited",
    RefusalCode.BUDGET_EXHAUSTED: "budget_exhausted",
    "upstream_error": "upstream_error",
    "internal_error": "internal",
}
"""An error's code as the outcome of a request in the metrics; every other code is the caller's: client_error."""


@dataclass(frozen=True, slots=True)
class Wire:
    """What differs between the protocols that clients speak."""

    parse: Callable[[dict[bytes, bytes], Body, CompiledPolicy], Parsed]  # headers, body, policy; raises ApiError
    render_error: Callable[[ApiError], bytes]


class Exchange:
    """A request on its way through: what is known so far, for headers, metrics and the record however it ends.

    It goes by one configuration to its end: the one that is live when its body has come in.
    """

    def __init__(self, service: Service, request: Inbound, wire: Wire) -> None:
        self._service, self._live, self._wire, self._request = service, service.live, wire, request
        self._used: Live | None = None  # kept open for it
        self._arrived = time.monotonic()
        self._tenant: Tenant = NOBODY
        self._parsed: Parsed | None = None
        self._hints: Hints = NO_HINTS
        self._decided: Decided | None = None
        self._masked: Masked | None = None
        self._result: Result | None = None
        self._steps: list[Step] = []
        self._ended = False
        self._bill = Bill()
        self._usage: Usage | None = None  # as the backend counted
        self._events = 0  # of a stream, seen so far
        self._read = self._arrived  # when its body had come in
        self._began: float | None = None  # when the first byte of a streamed answer left
        self._ended_as: EndedKey | None = None  # how it ended, once that is counted

    async def run(self) -> None:
        self._service.exchanges.add(self)
        outcome = "internal"
        try:
            await self._answer()
            outcome = "ok"
        except ClientGone:
            outcome = "cancelled"
        except (Exception, asyncio.CancelledError) as error:
            outcome = self._failed(error)
        finally:
            self._service.exchanges.discard(self)
            result = self._result
            if result is not None:
                result.lease.release()
                if self._began and self._decided is not None and not self._paid:
                    self._service.billing.broke_off(self._live, self._decided, result, self._bill, self._counted())
            self._conclude(outcome)
            if self._used is not None:
                self._used.leave()

    def end(self) -> None:
        """The router stops: whatever is not answered yet is told so."""
        if self._request.task is not None and not self._ended:
            self._ended = True
            self._request.task.cancel()

    def _failed(self, error: BaseException) -> str:
        """Tell the client, as far as that can be done; the outcome for the metrics."""
        request = self._request
        if isinstance(error, asyncio.CancelledError):
            if request.task is None or not (request.gone or self._ended):
                raise error
            request.task.uncancel()
            if request.gone:
                return "cancelled"
            error = _shutting_down()
        assert isinstance(error, Exception)
        failure = as_api_error(error)
        if self._began is not None:
            self._count("stream_broken")
            request.send(openai.stream_error(failure))
            request.end()
            return "stream_broken"
        outcome = OUTCOMES.get(failure.code, "client_error")
        self._count(outcome)
        request.respond(
            failure.status, self._wire.render_error(failure), f"{JSON}{lines(failure.headers)}{self._head()}"
        )
        return outcome

    def _counted(self) -> Counted:
        """The tokens of the answer. Of a stream that nobody counted, what was seen: servers send about one in an
        event."""
        seen = Usage(self._decided.request.tokens_in, self._events) if self._events and self._decided else None
        return Counted(self._usage, seen)

    @property
    def _paid(self) -> bool:
        """Whether the answer is on the bill."""
        return any(charge.purpose == "answer" for charge in self._bill.charges)

    async def _answer(self) -> None:
        http, service = self._request, self._service
        if service.ended:
            raise _shutting_down()
        if http.method != "POST":
            raise not_allowed("POST")
        self._tenant = await service.tenant(self._live, http.headers)  # before the body: a stranger's is not read
        fields: dict[bytes, bytes] = dict(http.headers)
        _check_content_type(fields, http.path)
        settings = service.settings
        body = await http.body(settings.max_body_bytes, settings.body_s)
        began = self._read = time.monotonic()  # what a client takes to send does not count against the backends
        if service.live is not self._live:  # a slow body must not make an old policy, or an old key, last
            self._live = service.live
            self._tenant = await service.tenant(self._live, http.headers)
        live = self._used = self._live.enter()
        parsed = self._parsed = self._wire.parse(fields, body, live.policy)
        hints = self._hints = parse_hints(http.headers, live.policy)
        decided, self._masked = await service.decide(live, parsed, hints, len(body), self._tenant.name, began)
        self._decided = decided
        if decided.decision.refusal is not None:
            raise ApiError.from_refusal(decided.decision.refusal, decided.decision.notices, decided.label.why)
        call = self._call(parsed, decided, body)
        result = self._result = await service.execute(live, decided, call, self._steps, self._bill, began)
        if result.answer.chunks is not None:
            await self._stream(decided, result, call)
            self._count("ok")
            http.end()
        else:
            body, head = self._whole(decided, parsed, result)
            self._count("ok")
            http.respond(200, body, head)

    def _call(self, parsed: Parsed, decided: Decided, body: Body) -> Call:
        request = decided.request
        if parsed.infer is not None:
            return Call(parsed.model, "", b"", parsed.stream, parsed.infer, request.id, label=request.label)
        label = request.label
        sent = bytes(body)  # no copy: it is that already
        if self._masked is not None:  # only then has anything been removed, and only then may less than the label count
            sent, label = msgspec.json.encode(self._masked.content), decided.decision.sent_label
        twice = openai.repeatable(parsed.content)
        return Call(parsed.model, parsed.path, sent, parsed.stream, None, request.id, twice, label)

    def _whole(self, decided: Decided, parsed: Parsed, result: Result) -> tuple[bytes, str]:
        answer, head = result.answer, JSON
        if answer.infer is not None and parsed.infer is not None:
            body, headers = oip.render(answer.infer, parsed.infer, parsed.model)
            head = lines(headers)
        else:
            body = answer.body or b""
        if self._masked is not None:
            body, unrestored = restore_body(body, self._masked.pseudonyms)
            self._service.metrics.unrestored.inc(unrestored)
        self._usage = answer.usage
        self._service.billing.finished(self._live, decided, result, self._bill, Counted(answer.usage))
        return body, head + self._head(self._bill.usd)

    async def _stream(self, decided: Decided, result: Result, call: Call) -> None:
        """Everything but the end of a streamed answer: the caller sends that once nothing can fail any more."""
        chunks, target = result.answer.chunks, result.candidate.target
        assert chunks is not None
        try:
            estimate = self._service.billing.expected_usd(decided, result.candidate, self._bill)
            http, idle_s = self._request, self._service.settings.client_idle_s
            http.begin(f"content-type: text/event-stream\r\ncache-control: no-cache\r\n{self._head(estimate)}")
            now = self._began = time.monotonic()
            self._live.state.observe_ttft(target, (result.began_at - result.started) * 1000, now)
            if decided.decision.resume:
                chunks = ResumedStream(chunks, call, self._resume)
            if self._masked is not None:
                chunks = RestoredStream(chunks, self._masked.pseudonyms)
            async for chunk in chunks:
                self._events += openai.pieces_in(chunk)
                if b'"usage"' in chunk:
                    self._usage = openai.usage_in(chunk) or self._usage
                http.send(chunk)
                if http.slow:
                    await http.drained(idle_s)
            if isinstance(chunks, RestoredStream):
                self._service.metrics.unrestored.inc(chunks.unrestored)
            result = self._result or result  # another, where it was gone on with
            self._service.billing.finished(self._live, decided, result, self._bill, self._counted())
        except BackendError:
            self._live.stream_broke(self._result or result)
            raise
        finally:
            await chunks.aclose()

    async def _resume(self, call: Call) -> Chunks | None:
        """The stream has broken: one of a backend that has not been asked yet."""
        broken, decided = self._result, self._decided
        assert broken is not None and decided is not None
        asked = {step.backend for step in self._steps}
        # What a backend has said may be as sensitive as what it may see, whatever the request's label.
        least = broken.candidate.target.clearance
        rest = tuple(
            c for c in decided.decision.attempts if c.target.backend not in asked and c.target.clearance >= least
        )
        if not rest:
            return None
        decision = replace(decided.decision, attempts=rest, strategy=None)
        try:
            resumed = replace(decided, decision=decision)
            result = await self._service.resume(self._live, resumed, call, self._steps, self._bill)
        except (ApiError, RequestRejected):
            return None
        self._live.stream_broke(broken)
        broken.step.outcome = "broken"
        self._service.billing.broke_off(self._live, decided, broken, self._bill, self._counted())
        self._events, self._usage = 0, None
        broken.lease.release()
        self._result = result
        return result.answer.chunks

    def _head(self, cost: float | None = None) -> str:
        """What every answer says of its decision, as headers."""
        decided, result = self._decided, self._result
        if decided is None:
            known = self._hints.request_id
            return "x-pointsman-schema: 1\r\n" + (f"x-request-id: {known}\r\n" if known else "")
        decision = decided.decision
        head = (
            f"x-pointsman-schema: 1\r\nx-request-id: {decision.request_id}\r\nx-pointsman-decision: {decided.id}\r\n"
            f"x-pointsman-rule: {decision.rule}\r\nx-pointsman-label: {decided.policy.levels[decision.label]}\r\n"
        )
        if self._hints.trace:
            head += f"x-pointsman-trace: {trace(decided)}\r\n"
        for notice in decision.notices:
            head += f"x-pointsman-notice: {quote(notice, safe=_PLAIN)}\r\n"
        if result is not None:
            target = result.candidate.target
            head += (
                f"x-pointsman-backend: {target.backend}\r\nx-pointsman-tier: {target.tier}\r\n"
                f"x-pointsman-attempts: {result.attempts}\r\n"
            )
        return head if cost is None else f"{head}x-pointsman-cost-usd: {cost:.9f}\r\n"

    def _count(self, outcome: str) -> None:
        """Count how it ends, once, before the last byte of the answer leaves: so that a process that is killed has
        counted every request that was answered."""
        if self._ended_as is None:
            self._ended_as = self._key(outcome)
            self._service.accounts.count(self._ended_as)

    def _key(self, outcome: str) -> EndedKey:
        target = self._result.candidate.target if self._result is not None else None
        parsed, task, model, route = self._parsed, "", "", ""
        if parsed is not None:
            policy = self._live.policy
            task, route = parsed.task, parsed.path if parsed.infer is None else oip.ROUTE
            model = parsed.model if parsed.model in policy.model_names else UNKNOWN_MODEL
        return EndedKey(
            route,
            task,
            model,
            self._tenant.name,
            self._decided.decision.rule if self._decided is not None else "",
            target.backend if target is not None else "",
            target.tier if target is not None else "",
            outcome,
        )

    def _conclude(self, outcome: str) -> None:
        """All that is told of it besides, once it is over."""
        self._count(outcome)
        key, now = self._ended_as, time.monotonic()
        assert key is not None, "it has just been counted"
        outcome = key.outcome
        result, decided, service = self._result, self._decided, self._service
        took = now - self._arrived
        baseline, met = None, None
        if decided is not None and outcome == "ok":
            baseline = service.billing.baseline_usd(decided, self._bill)
        if decided is not None:
            ttft_ms = (self._began - self._read) * 1000 if self._began is not None else None
            met = slo_met(outcome, decided.decision, (now - self._read) * 1000, ttft_ms)
        ended = Ended(took, self._overhead_s(now), *self._token_times(now), met, self._bill.charges, baseline)
        service.accounts.ended(key, ended)
        if decided is None or self._parsed is None:
            return
        usage = self._usage
        concluded = Outcome(
            outcome=outcome,
            backend=result.candidate.target.backend if result is not None else None,
            attempts=result.attempts if result is not None else 0,
            steps=[one.told() for one in self._steps] if len(self._steps) > 1 else None,
            ms=took * 1000,
            ttft_ms=(self._began - self._arrived) * 1000 if self._began is not None else None,
            tokens_in=usage.tokens_in if usage else None,
            tokens_out=usage.tokens_out if usage else None,
            cost_usd=self._bill.usd if self._bill.charges else None,
            charges=self._bill.charges or None,
            baseline_usd=baseline,
            slo_met=met,
        )
        service.concluded(self._live, decided, concluded, self._parsed, self._hints)

    def _overhead_s(self, now: float) -> float | None:
        """What the request took here: until its first attempt, and from its answer on; of a stream, to its first
        byte."""
        if self._result is None or not self._steps:
            return None
        return self._steps[0].began - self._read + (self._began or now) - self._result.began_at

    def _token_times(self, now: float) -> tuple[float | None, float | None]:
        """Of a stream: seconds to its first byte, and from token to token."""
        if self._began is None:
            return None, None
        tokens = self._usage.tokens_out if self._usage else self._events
        return self._began - self._arrived, (now - self._began) / (tokens - 1) if tokens > 1 else None


def _shutting_down() -> ApiError:
    return ApiError("shutting_down", "the router stops", "try again", headers=(("retry-after", "1"),))


def _check_content_type(fields: dict[bytes, bytes], path: str) -> None:
    if fields.get(b"content-type") == b"application/json" and b"content-encoding" not in fields:
        return
    kind = fields.get(b"content-type", b"").split(b";")[0].strip().lower()
    openai_path = path.startswith("/v1")
    allowed = ("application/json",) if openai_path else ("", "application/json", "application/octet-stream")
    if kind.decode("latin-1") not in allowed:
        raise ApiError(
            "unsupported_media_type",
            "the body's content-type is not one that this path takes",
            f"send content-type: {' or '.join(filter(None, allowed))}",
        )
    if openai_path and fields.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
        raise ApiError("unsupported_media_type", "this path takes no content-encoding", "send the body as it is")
