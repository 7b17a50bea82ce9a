"""The data API: one handler for both wires. Inference goes to an `Exchange`; the rest is answered here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from policies.types import RefusalCode
from router.errors import ApiError, as_api_error, not_allowed
from router.exchange import Exchange, Wire
from router.http.request import JSON, Inbound, lines
from router.service import Service
from router.wire import oip, openai

_WIRES = {path: Wire(partial(openai.parse, path), openai.render_error, path) for path in openai.TASKS}


class DataApp:
    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, http: Inbound) -> None:
        path = http.path
        wire = _WIRES.get(path)
        if wire is not None:
            await Exchange(self.service, http, wire).run()
            return
        model = oip.match_model(path)
        if model is not None and model[1] == "infer":
            parse = partial(oip.parse, model[0], limit=self.service.settings.max_body_bytes)
            await Exchange(self.service, http, Wire(parse, oip.render_error, oip.INFER)).run()
        elif path.startswith("/v2"):
            await self._v2(http, path, model)
        else:
            await self._plain(http, path)

    async def _v2(self, http: Inbound, path: str, model: tuple[str, str] | None) -> None:
        service = self.service
        live = service.live

        async def answer() -> tuple[int, Any]:
            if path == "/v2/health/live":
                return 200, {"live": True}
            if path == "/v2/health/ready":
                ready = bool(service.readiness()["ready"])
                return (200 if ready else 503), {"ready": ready}
            tenant = await service.tenant(live, http.headers)
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

        await self._get(http, oip.render_error, answer)

    async def _plain(self, http: Inbound, path: str) -> None:
        live = self.service.live

        async def models() -> list[dict[str, Any]]:
            tenant = await self.service.tenant(live, http.headers)
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
            if path == "/servez":
                return (200 if self.service.serving else 503), {"serving": self.service.serving}
            if path == "/readyz":
                readiness = self.service.readiness()
                if live.policy.tenants is not None:  # which backends there are is not for everybody
                    readiness = {"ready": readiness["ready"]}
                return (200 if readiness["ready"] else 503), readiness
            raise _no_such_path()

        await self._get(http, openai.render_error, answer)

    async def _get(
        self,
        http: Inbound,
        render_error: Callable[[ApiError], bytes],
        answer: Callable[[], Awaitable[tuple[int, Any]]],
    ) -> None:
        try:
            status, content = await answer()
            if http.method not in ("GET", "HEAD"):  # after it: a path that is not there says so to every method
                raise not_allowed("GET")
            http.respond(status, msgspec.json.encode(content), JSON)
        except Exception as error:
            failure = as_api_error(error)
            http.respond(failure.status, render_error(failure), JSON + lines(failure.headers))


def _no_such_path() -> ApiError:
    paths = (*openai.TASKS, "/v1/models", "/v2/models/<model>/infer")
    return ApiError("not_found", "no such path", f"there are: {', '.join(paths)}")
