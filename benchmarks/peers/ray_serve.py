"""Ray Serve as a peer, in the configuration that its makers recommend for throughput: HAProxy in front, the throughput
flags, no access log. Run by `peers.py` with those in the environment: `python ray_serve.py PORT [UPSTREAM]`.

Without an upstream it answers by itself (a no-op); with one it forwards with aiohttp, as an application would.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import aiohttp
import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import Response

ANSWER = b'{"object":"chat.completion","choices":[]}'
QUIET = LoggingConfig(enable_access_log=False, log_level="ERROR")


class App:
    def __init__(self, upstream: str | None) -> None:
        self._url = f"http://127.0.0.1:{upstream}" if upstream else None
        self._session: Any = None

    async def __call__(self, request: Request) -> Response:
        if self._url is None or request.method == "GET":
            return Response(ANSWER, media_type="application/json")
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = await request.body()
        headers = {"content-type": "application/json"}
        async with self._session.post(self._url + request.url.path, data=body, headers=headers) as response:
            return Response(await response.read(), response.status, media_type="application/json")


def main() -> None:
    port, upstream = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, logging_level="ERROR")
    try:
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port), logging_config=QUIET)
        options: dict[str, Any] = {"max_ongoing_requests": 1000, "ray_actor_options": {"num_cpus": 0}}
        serve.run(serve.deployment(App).options(logging_config=QUIET, **options).bind(upstream))
        while True:
            time.sleep(1)
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
