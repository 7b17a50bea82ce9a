"""Four replicas are one router to Prometheus: what they counted adds up, exactly, also when one of them is killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading

import pytest

from router.demo.processes import free_port
from tests.processes import alive, soon
from tests.serving import serving

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
]
REPLICAS = 4
FLEET = """
apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: one, tier: cloud, region: us, protocol: fake, clearance: restricted, models: {chat: {task: chat}},
     price: {per_request: 0.25}, script: [{latency_ms: 1}]}
"""
BODY = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "こんにちは"}]}).encode()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    (folder / "fleet.yaml").write_text(FLEET)
    with serving(folder, free_port(), free_port(), "--replicas", str(REPLICAS), "--watch", "0") as served:
        assert soon(lambda: len(served.serving()) == REPLICAS, within_s=60)
        yield served


class Load:
    """Clients that ask until they are told to stop, a connection for every few requests, and know what they got."""

    def __init__(self, served, clients=4):
        self.answered = self.broken = 0
        self._served, self._stop, self._lock = served, threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self):
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._served.port, timeout=20)
            for _ in range(5):
                whole = False
                try:
                    connection.request("POST", "/v1/chat/completions", BODY, {"content-type": "application/json"})
                    reply = connection.getresponse()
                    whole = reply.status == 200 and b"choices" in reply.read()
                except (OSError, http.client.HTTPException):
                    pass
                with self._lock:
                    self.answered += whole
                    self.broken += not whole
                if not whole:
                    break
            connection.close()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_the_sum_is_what_was_sent_also_after_one_is_killed_and_replaced(served):
    assert [served.chat()[0] for _ in range(200)] == [200] * 200
    assert served.sum("pointsman_requests_total") == 200
    assert served.sum("pointsman_requests_total", outcome="ok", model="chat", backend="one") == 200
    assert soon(lambda: served.sum("pointsman_cost_usd_total") == 50), "in dollars, once all have handed over"
    assert soon(lambda: served.sum("pointsman_request_seconds_count") == 200), "histograms merge"
    assert soon(lambda: served.sum("pointsman_request_seconds_bucket", le="+Inf") == 200)
    assert served.sum("pointsman_concurrency_limit", backend="one") == 64 * REPLICAS, "a sum, as its help says"
    assert served.sum("pointsman_policy_info") == 1, "the highest, as its help says"

    victim = sorted(served.serving())[0]
    os.kill(victim, signal.SIGKILL)
    assert soon(lambda: not alive(victim))
    assert soon(lambda: len(served.serving() - {victim}) == REPLICAS, within_s=60), "another takes its place"
    assert soon(lambda: served.sum("pointsman_concurrency_limit", backend="one") == 64 * REPLICAS), (
        "gauges went with it"
    )
    assert [served.chat()[0] for _ in range(100)] == [200] * 100
    assert served.sum("pointsman_requests_total") == 300


def test_a_replica_that_is_killed_at_work_has_counted_every_answer_that_it_gave(served):
    before = served.sum("pointsman_requests_total")
    load = Load(served)
    for _ in range(2):
        assert soon(lambda: len(served.serving()) == REPLICAS, within_s=60)
        asked = load.answered
        assert soon(lambda asked=asked: load.answered > asked + 200, within_s=60)
        os.kill(sorted(served.serving())[0], signal.SIGKILL)
    load.stop()
    assert soon(lambda: _answers(served), within_s=60), "another takes the admin port"
    counted = served.sum("pointsman_requests_total") - before
    assert load.answered <= counted <= load.answered + load.broken
    assert load.broken < 100


def _answers(served):
    try:
        return served.call("GET", "/healthz", admin=True)[0] == 200
    except OSError:
        return False
