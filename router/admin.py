"""The admin API: metrics, health, decisions and explanations. On a port of its own, which callers never see."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from msgspec.structs import replace
from pydantic import ValidationError

from backends.jsonbody import NotJson, decode
from policies.decide import decide
from policies.explain import as_dict, why
from policies.facts import request_from
from policies.schema import HttpRequest, RequestFacts
from router.decisionlog.record import UNKNOWN_MODEL, shown_model
from router.errors import ApiError, as_api_error, bad_request
from router.http.request import JSON, ClientGone, Inbound, lines
from router.identity import Guardian
from router.orders import DRAIN, LOG_LEVEL
from router.recent import Remembered
from router.requests import from_http
from router.service import Service
from router.settings import is_loopback
from router.telemetry import logs
from router.wire.openai import render_error

_EXPLAIN_HINT = 'send facts such as {"model": …, "label": …}, or path, headers and body'
_OPEN = frozenset({"healthz", "readyz", "servez"})
"""What needs no token: whoever starts and stops the router must see whether it lives."""
_PATHS = (
    "GET /metrics, /healthz, /readyz, /servez, /policy, /decisions, /decisions/<id>, /log-level; POST /explain, "
    "/reload, /drain; PUT /log-level"
)


class AdminApp:
    def __init__(self, service: Service) -> None:
        self.service = service
        self._guardian = Guardian(service.settings.admin_tokens)
        self._open = _OPEN | ({"metrics"} if is_loopback(service.settings.admin_host) else frozenset())

    async def __call__(self, http: Inbound) -> None:
        try:
            if http.path.strip("/") not in self._open:
                self._guardian.check(http.headers)
            method = "GET" if http.method == "HEAD" else http.method
            if http.path == "/metrics" and method == "GET":
                accept = next((value for name, value in http.headers if name == b"accept"), b"").decode("latin-1")
                body, content_type = self.service.exposition(accept)
                http.respond(200, body, f"content-type: {content_type}\r\n")
                return
            status, content = await self._content(http, method)
            http.respond(status, msgspec.json.encode(content), JSON)
        except ClientGone:
            return
        except Exception as error:
            failure = as_api_error(error)
            http.respond(failure.status, render_error(failure), JSON + lines(failure.headers))

    async def _content(self, http: Inbound, method: str) -> tuple[int, Any]:
        service = self.service
        match method, http.path.rstrip("/").split("/")[1:]:
            case "GET", ["healthz"]:
                return 200, {"status": "alive"}
            case "GET", ["readyz"]:
                readiness = service.readiness()
                return (200 if readiness["ready"] else 503), readiness
            case "GET", ["servez"]:
                return (200 if service.serving else 503), {"serving": service.serving}
            case "GET", ["policy"]:
                policy = service.policy
                return 200, {"digest": policy.digest, "rules": [r.name for r in policy.rules], "levels": policy.levels}
            case "GET", ["decisions"]:
                service.endings.settle()
                return 200, {"decisions": [self._shown(one) for one in reversed(service.recent.latest())]}
            case "GET", ["decisions", decision_id]:
                service.endings.settle()
                found = service.recent.get(decision_id)
                if found is None:
                    raise ApiError("not_found", "no such decision among the latest ones of this replica")
                return 200, self._shown(found)
            case "POST", ["reload"]:
                result = await service.reload_everywhere()
                status = 409 if result.outcome == "refused" else 200
                return status, {"outcome": result.outcome, "policy": result.policy, "problems": result.problems}
            case "POST", ["drain"]:
                left = await service.orders.on_this_node(DRAIN)
                return 200, {"in_progress": sum(one["in_progress"] for one in left), "replicas": len(left)}
            case "POST", ["explain"]:
                return 200, await self._explain(await self._fields(http))
            case "GET", ["log-level"]:
                return 200, {"level": logs.level()}
            case "PUT", ["log-level"]:
                return 200, {"level": await self._log_level(await self._fields(http))}
        raise ApiError("not_found", "no such path on the admin port", f"there are: {_PATHS}")

    def _shown(self, seen: Remembered) -> dict[str, Any]:
        decided = seen.decided
        request, levels = decided.request, decided.policy.levels
        model = shown_model(request, decided.policy)
        decision = as_dict(decided.decision, decided.policy)
        if model == UNKNOWN_MODEL and decision["refusal"]:
            decision["refusal"]["message"] = "no backend serves the model"  # what the caller is told repeats its name
        before = decided.label.declassified_from
        return {
            "id": decided.id,
            "at": decided.snapshot.now,
            "model": model,
            "task": request.task,
            "tenant": request.tenant,
            "stream": request.stream,
            "tokens_in": request.tokens_in,
            "raised_by": [{"by": source, "label": levels[rank]} for source, rank in decided.label.raised_by],
            "entities": dict(decided.label.entities),
            "declassified_from": None if before is None else levels[before],
            "why": why(decided.decision),
            **decision,
            "outcome": seen.outcome,
        }

    async def _fields(self, http: Inbound) -> Any:
        body = await http.body(self.service.settings.max_body_bytes, self.service.settings.body_s)
        try:
            return decode(body)
        except NotJson as error:
            raise bad_request(f"the body {error}") from None

    async def _log_level(self, fields: Any) -> str:
        """In every process of the router, until it ends."""
        level = fields.get("level") if isinstance(fields, dict) else None
        if level not in logs.LEVELS:
            raise bad_request(
                "the body names no log level",
                f'send {{"level": …}} with one of {", ".join(logs.LEVELS)}',
                param="level",
            )
        told: list[str] = await self.service.orders.everywhere(LOG_LEVEL, level)
        return told[0]

    async def _explain(self, fields: Any) -> dict[str, Any]:
        """What would happen to a request now: the live policy, the live state, nothing sent."""
        service, live = self.service, self.service.live
        wall = time.time()
        try:
            if isinstance(fields, dict) and "path" in fields:
                http = HttpRequest.model_validate(fields)
                limit = service.settings.max_body_bytes
                request = await asyncio.to_thread(from_http, http, live.policy, limit, wall)
            else:
                request = request_from(RequestFacts.model_validate(fields), live.policy, wall)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
            raise bad_request(wrong, _EXPLAIN_HINT) from None
        if live.ledger.short(request, live.policy, wall):
            await live.ledger.ready(request, live.policy, wall, service.deadline(None, time.monotonic()))
        snapshot = live.state.snapshot(time.monotonic(), wall, live.ledger.spent(request, live.policy, wall))
        snapshot = replace(snapshot, ledger_lost=live.ledger.leases.lost)
        return as_dict(decide(request, snapshot, live.policy, service.settings.seed), live.policy)
