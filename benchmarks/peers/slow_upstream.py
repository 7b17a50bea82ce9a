"""An upstream for streams and tensors, which nginx cannot play: `python slow_upstream.py PORT`. It trusts its clients,
and is for measurements only.

POST /v1/chat/completions: `max_tokens` events, `seed` milliseconds apart. POST /v2/…/infer: reads the body
and answers little.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httptools
import uvloop

EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"chat",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
LAST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
INFER = b'{"model_name":"t","outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[1.0]}]}'
METADATA = json.dumps(
    {
        "name": "t", "platform": "x", "versions": ["1"],
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}],
    }
).encode()  # fmt: skip


class Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        if self._url.startswith(b"/v1/"):
            self._body += body

    def on_message_complete(self) -> None:
        if self._url.startswith(b"/v1/chat"):
            asked = json.loads(self._body)
            self._transport.write(STREAM)
            self._left, self._pause_s = asked["max_tokens"], asked["seed"] / 1000
            self._event()
        else:
            body = INFER if self._url.endswith(b"/infer") else METADATA
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)

    def _event(self) -> None:
        if not self._left:
            self._transport.write(LAST)
            return
        self._left -= 1
        self._transport.write(CHUNK)
        self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._event)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
