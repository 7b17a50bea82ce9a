"""A real HTTP server on loopback that answers as a test says, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answers:
    """What the next requests get. `raw` is everything that goes onto the wire, head included."""

    status: int = 200
    body: bytes | object = b""
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    raw: bytes | None = None
    chunks: list[bytes] | None = None
    cut: bool = False  # close the connection before the last chunk of a chunked body


class Upstream:
    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []  # inference only; probes are answered beside
        self.answers = Answers()


@contextmanager
def upstream(probe: Callable[[], int] = lambda: 200) -> Iterator[Upstream]:
    """GETs get an empty object with the status of `probe`; every POST gets `answers`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None: ...

        def do_GET(self) -> None:
            self._send(Answers(status=probe(), body={}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.asked.append(Asked(self.command, self.path, headers, body))
            self._send(found.answers)

        def _send(self, answers: Answers) -> None:
            if answers.raw is not None:
                self.wfile.write(answers.raw)
                self.close_connection = True
                return
            self.send_response(answers.status)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            if answers.chunks is None:
                body = answers.body if isinstance(answers.body, bytes) else json.dumps(answers.body).encode()
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for chunk in answers.chunks:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            if answers.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    found = Upstream(f"http://127.0.0.1:{server.server_port}")
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
