"""The data API: one bare ASGI app for both wires. Inference goes to an `Exchange`; the rest is answered here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from policies.types import RefusalCode
from router.asgi import Receive, Scope, Send, respond
from router.errors import ApiError, as_api_error, not_allowed
from router.exchange import JSON, Exchange, Wire
from router.service import Service
from router.wire import oip, openai


class DataApp:
    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        model = oip.match_model(path)
        if path in openai.TASKS:
            wire = Wire(lambda policy, headers, body: openai.parse(path, body), openai.render_error)
            await self._infer(scope, receive, send, wire)
        elif model is not None and model[1] == "infer":
            name, limit = model[0], self.service.settings.max_body_bytes
            wire = Wire(lambda policy, headers, body: oip.parse(name, headers, body, policy, limit), oip.render_error)
            await self._infer(scope, receive, send, wire)
        elif path.startswith("/v2"):
            await self._v2(scope, send, path, method, model)
        else:
            await self._plain(scope, send, path, method)

    async def _infer(self, scope: Scope, receive: Receive, send: Send, wire: Wire) -> None:
        await Exchange(self.service, scope, receive, send, wire).run()

    async def _v2(self, scope: Scope, send: Send, path: str, method: str, model: tuple[str, str] | None) -> None:
        service = self.service
        live = service.live

        async def answer() -> tuple[int, Any]:
            if path == "/v2/health/live":
                return 200, {"live": True}
            if path == "/v2/health/ready":
                ready = bool(service.readiness()["ready"])
                return (200 if ready else 503), {"ready": ready}
            tenant = await service.tenant(live, scope["headers"])
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
            tenant = await self.service.tenant(live, scope["headers"])
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
            status, content = await answer()
            if method not in ("GET", "HEAD"):  # after it: a path that is not there says so to every method
                raise not_allowed("GET")
            body = msgspec.json.encode(content)
            await respond(send, status, body, (JSON,))  # of HEAD, the server leaves the body out
        except Exception as error:
            failure = as_api_error(error)
            await respond(send, failure.status, render_error(failure), (JSON, *failure.headers))


def _no_such_path() -> ApiError:
    paths = (*openai.TASKS, "/v1/models", "/v2/models/<model>/infer")
    return ApiError("not_found", "no such path", f"there are: {', '.join(paths)}")
