"""The demo's client: sends one sample, times it, and asks the admin port why it went where it went."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from router.demo.scenario import Sample, answer_in_words


@dataclass(frozen=True, slots=True)
class Outcome:
    sample: Sample
    status: int
    headers: dict[str, str]
    answer: str
    latency_ms: float
    first_byte_ms: float
    why: str

    @property
    def backend(self) -> str | None:
        return self.headers.get("x-pointsman-backend")

    @property
    def as_expected(self) -> bool:
        if self.sample.backend is None:
            return self.status == 403 and self.backend is None
        return self.status == 200 and self.backend == self.sample.backend and bool(self.answer)


def send(sample: Sample, port: int, admin_port: int) -> Outcome:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    try:
        begin = time.perf_counter()
        connection.request("POST", sample.path, sample.body, sample.headers)
        response = connection.getresponse()
        first = response.read1(1) if response.getheader("content-type", "").startswith("text/event-stream") else b""
        first_byte_ms = (time.perf_counter() - begin) * 1000
        body = first + response.read()
        latency_ms = (time.perf_counter() - begin) * 1000
    finally:
        connection.close()
    headers = {name.lower(): value for name, value in response.getheaders()}
    decision = get_json(admin_port, f"/decisions/{headers.get('x-pointsman-decision', '')}")
    why = decision.get("why", "")
    attempts = int(headers.get("x-pointsman-attempts", "1"))
    if attempts > 1:
        why = f"{', '.join(decision['attempts'][: attempts - 1])} came first ({why}) and failed; this one was next"
    answer = answer_in_words(sample, response.status, headers, body)
    return Outcome(sample, response.status, headers, answer, latency_ms, first_byte_ms, why)


def burst(sample: Sample, count: int, port: int) -> Counter[str]:
    """The same request so often at once: who answered how many; one that was not answered counts as its status."""

    def one(_: int) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
        try:
            connection.request("POST", sample.path, sample.body, sample.headers)
            response = connection.getresponse()
            response.read()
            return response.getheader("x-pointsman-backend") or str(response.status)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(one, range(count)))


def get_json(port: int, path: str) -> dict[str, Any]:
    """A JSON object from this machine. Raises OSError when nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        found: dict[str, Any] = msgspec.json.decode(connection.getresponse().read())
        return found
    finally:
        connection.close()
