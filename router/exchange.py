"""One inference request, from its headers to its last byte. Whatever happens to it is counted once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from backends.calls import Answer, Call, Chunks
from backends.errors import BackendError, RequestRejected
from policies.compile import CompiledPolicy
from policies.outcomes import REFUSED
from router.attempts import Result
from router.billing import Counted
from router.decisionlog.record import Decided, trace
from router.errors import ApiError, as_api_error, not_allowed
from router.hints import parse_hints
from router.http.request import JSON, Body, ClientGone, Inbound, lines
from router.live import Live
from router.progress import Progress
from router.restore import RestoredStream, restore_body
from router.resume import ResumedStream
from router.service import Service
from router.telemetry.accounts import Account, Added
from router.telemetry.logs import tell
from router.telemetry.trail import CURRENT, Trail
from router.wire import oip, openai
from router.wire.parsed import Parsed

log = logging.getLogger("pointsman")

_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
"""What a notice may hold as it is in a header; everything else, Japanese included, is percent-encoded UTF-8."""
OUTCOMES: dict[str, str] = {
    **REFUSED,
    "not_permitted": "refused",
    "identity_unavailable": "unavailable",
    "shutting_down": "unavailable",
    "upstream_error": "upstream_error",
    "internal_error": "internal",
}
"""An error's code as the outcome of a request in the metrics; every other code is the caller's: client_error."""


@dataclass(frozen=True, slots=True)
class Wire:
    """What differs between the protocols that clients speak."""

    parse: Callable[[dict[bytes, bytes], Body, CompiledPolicy], Parsed]  # headers, body, policy; raises ApiError
    render_error: Callable[[ApiError], bytes]
    route: str


class Exchange:
    """A request on its way through: what is known so far, for headers, metrics and the record however it ends.

    It goes by one configuration to its end: the one that is live when its body has come in.
    """

    def __init__(self, service: Service, request: Inbound, wire: Wire) -> None:
        self._service, self._live, self._wire, self._request = service, service.live, wire, request
        self._used: Live | None = None  # kept open for it
        now = time.monotonic()
        self._at = Progress(wire.route, now, now)
        self.trail = Trail()
        self._told_to_end = False
        self._account: Account | None = None  # of those that ended like it, once it is counted
        self._over = 0.0  # when it was

    async def run(self) -> None:
        self._service.exchanges.add(self)
        CURRENT.set(self.trail)
        if self._service.tracing is not None:
            http = self._request
            self.trail.span = self._service.tracing.begin(http.method, self._wire.route, http.headers)
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
            result = self._at.result
            if result is not None:
                if result.lease.span is not None:
                    result.lease.span.streamed(outcome, self._at.usage)
                result.lease.release()
                decided = self._at.decided
                if self._at.broke_off and decided is not None:
                    self._at.bill.broke_off(self._live, decided, result, self._at.counted())
            self._conclude(outcome)
            if self._used is not None:
                self._used.leave()

    @property
    def decided(self) -> Decided | None:
        return self._at.decided

    def end(self) -> None:
        """The router stops: whatever is not answered yet is told so."""
        if self._request.task is not None and not self._told_to_end:
            self._told_to_end = True
            self._request.task.cancel()

    def _failed(self, error: BaseException) -> str:
        """Tell the client, as far as that can be done; the outcome for the metrics."""
        request = self._request
        if isinstance(error, asyncio.CancelledError):
            if request.task is None or not (request.gone or self._told_to_end):
                raise error
            request.task.uncancel()
            if request.gone:
                return "cancelled"
            error = _shutting_down()
        assert isinstance(error, Exception)
        failure = as_api_error(error)
        if self._at.first_byte is not None:
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

    async def _answer(self) -> None:
        http, service = self._request, self._service
        if service.ended:
            raise _shutting_down()
        if http.method != "POST":
            raise not_allowed("POST")
        self._at.tenant = await service.tenant(self._live, http.headers)  # before the body: a stranger's is not read
        fields: dict[bytes, bytes] = dict(http.headers)
        _check_content_type(fields, http.path)
        settings = service.settings
        body = await http.body(settings.max_body_bytes, settings.body_s)
        began = self._at.read = time.monotonic()  # what a client takes to send does not count against the backends
        if service.live is not self._live:  # a slow body must not make an old policy, or an old key, last
            self._live = service.live
            self._at.tenant = await service.tenant(self._live, http.headers)
        live = self._used = self._live.enter()
        parsed = self._at.parsed = self._wire.parse(fields, body, live.policy)
        hints = self._at.hints = parse_hints(http.headers, live.policy)
        self.trail.request_id = hints.request_id
        decided, self._at.masked = await service.decide(live, parsed, hints, len(body), self._at.tenant.name, began)
        self._at.decided = decided
        self.trail.request_id, self.trail.decision = decided.decision.request_id, decided.id
        if decided.decision.refusal is not None:
            raise ApiError.from_refusal(decided.decision.refusal, decided.decision.notices, decided.label.why)
        call = self._call(parsed, decided, body)
        result = self._at.result = await service.execute(live, decided, call, self._at.steps, self._at.bill, began)
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
        masked = self._at.masked
        if masked is not None:  # only then has anything been removed, and only then may less than the label count
            sent, label = msgspec.json.encode(masked.content), decided.decision.sent_label
        twice = openai.repeatable(parsed.content)
        return Call(parsed.model, parsed.path, sent, parsed.stream, None, request.id, twice, label)

    def _whole(self, decided: Decided, parsed: Parsed, result: Result) -> tuple[bytes, str]:
        answer, bill = result.answer, self._at.bill
        counted = Counted(answer.usage)
        self._at.usage = answer.usage
        try:
            body, head = self._rendered(parsed, answer)
        except BaseException:  # it has to be paid for, though nobody can use it
            bill.broke_off(self._live, decided, result, counted)
            raise
        bill.finished(self._live, decided, result, counted)
        return body, head + self._head(bill.usd)

    def _rendered(self, parsed: Parsed, answer: Answer) -> tuple[bytes, str]:
        head = JSON
        if answer.infer is not None and parsed.infer is not None:
            body, headers = oip.render(answer.infer, parsed.infer, parsed.model)
            head = lines(headers)
        else:
            body = answer.body or b""
        if self._at.masked is not None:
            body, unrestored = restore_body(body, self._at.masked.pseudonyms)
            self._service.metrics.unrestored.inc(unrestored)
        return body, head

    async def _stream(self, decided: Decided, result: Result, call: Call) -> None:
        """Everything but the end of a streamed answer: the caller sends that once nothing can fail any more."""
        chunks, target = result.answer.chunks, result.candidate.target
        assert chunks is not None
        try:
            estimate = self._at.bill.expected_usd(decided, result.candidate)
            http, idle_s = self._request, self._service.settings.client_idle_s
            http.begin(f"content-type: text/event-stream\r\ncache-control: no-cache\r\n{self._head(estimate)}")
            now = self._at.first_byte = time.monotonic()
            self._at.relayed_s = self._at.since_backends(result, now)
            self._live.state.observe_ttft(target, (result.began_at - result.started) * 1000, now)
            if decided.decision.resume:
                chunks = ResumedStream(chunks, call, self._resume)
            if self._at.masked is not None:
                chunks = RestoredStream(chunks, self._at.masked.pseudonyms)
            async for chunk in chunks:
                self._at.events += openai.pieces_in(chunk)
                if b'"usage"' in chunk:
                    self._at.usage = openai.usage_in(chunk) or self._at.usage
                http.send(chunk)
                if http.slow:
                    self._at.held_up = True
                    await http.drained(idle_s)
            if isinstance(chunks, RestoredStream):
                self._service.metrics.unrestored.inc(chunks.unrestored)
            result = self._at.result or result  # another, where it was gone on with
            self._at.bill.finished(self._live, decided, result, self._at.counted(), held_up=self._at.held_up)
        except BackendError as error:
            self._live.stream_broke(self._at.result or result)
            log.warning("the stream of request %s broke: %s", call.request_id, error)
            raise
        finally:
            await chunks.aclose()

    async def _resume(self, call: Call) -> Chunks | None:
        """The stream has broken: one of a backend that has not been asked yet."""
        broken, decided, ended = self._at.result, self._at.decided, time.monotonic()
        assert broken is not None and decided is not None
        asked = {step.backend for step in self._at.steps}
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
            result = await self._service.resume(self._live, resumed, call, self._at.steps, self._at.bill)
        except (ApiError, RequestRejected):
            return None
        self._live.stream_broke(broken)
        broken.step.outcome = "broken"
        counted = self._at.counted()
        self._at.bill.broke_off(self._live, decided, broken, counted, ended=ended)
        self._at.before += counted.tokens_out
        self._at.events, self._at.usage = 0, None
        broken.lease.release()
        self._at.result = result
        return result.answer.chunks

    def _head(self, cost: float | None = None) -> str:
        """What every answer says of its decision, as headers."""
        decided, result = self._at.decided, self._at.result
        if decided is None:
            known = self._at.hints.request_id
            return "x-pointsman-schema: 1\r\n" + (f"x-request-id: {known}\r\n" if known else "")
        decision = decided.decision
        head = (
            f"x-pointsman-schema: 1\r\nx-request-id: {decision.request_id}\r\nx-pointsman-decision: {decided.id}\r\n"
            f"x-pointsman-rule: {decision.rule}\r\nx-pointsman-label: {decided.policy.levels[decision.label]}\r\n"
        )
        if self._at.hints.trace:
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

    def _count(self, outcome: str) -> Account:
        """Count how it ends, once, before the last byte of the answer leaves: so that a process that is killed has
        counted every request that was answered."""
        if self._account is None:
            self._account = self._service.accounts.count(self._at.key(outcome, self._live.policy))
        return self._account

    def _conclude(self, outcome: str) -> None:
        """It is over: free what it has reserved, end its span. The rest is told a moment later."""
        account, at = self._account or self._count(outcome), self._at
        self._over = now = time.monotonic()
        if at.decided is not None and at.decided.decision.quotas:
            self._live.ledger.release(at.decided.id)
        span = self.trail.span
        if (span is not None and span.trace_id is not None) or log.isEnabledFor(logging.INFO):
            ended = at.ended(account.key, self._request.status, now)  # a span that is not sampled has nothing to tell
            if span is not None:
                span.end(ended)
            tell(ended, self.trail)
        self._service.endings.put(self)

    def tell(self) -> None:
        """Metrics and the record."""
        at, service, account, now = self._at, self._service, self._account, self._over
        assert account is not None
        outcome = at.outcome(account.key.outcome, now)
        service.accounts.ended(account, Added(outcome, at.overhead_s(now), at.per_token_s(now)), self.trail.trace_id)
        if at.decided is not None and at.parsed is not None:
            service.concluded(self._live, at.decided, outcome, at.parsed, self._request.headers)


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
