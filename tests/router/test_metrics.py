"""What /metrics says: bounded series, series that are there before anything happens, gauges that go, exemplars."""

from __future__ import annotations

import http.client
import json
import os
import random
import string
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT, THREE_TIERS, Router
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from backends.registry import BUILDERS
from policies.accounts import Charge
from policies.outcomes import slo_met
from policies.schema import Slo
from policies.types import Decision
from router.loading import ConfigurationLoader
from router.settings import Settings
from router.telemetry.accounts import Accounts
from router.telemetry.energy import MeasuredEnergy
from router.telemetry.exposition import render
from router.telemetry.metrics import Metrics
from router.telemetry.rapl import ProcessShare, Rapl

POLICY = """
---
kind: Policy
sensitivity:
  default: public
  detectors: [{use: pii, label: confidential}]
rules:
  - {name: quick, match: {usage: quick}, slo: {latency_ms: 60000, ttft_ms: 60000}}
  - {name: hopeless, match: {usage: hopeless}, slo: {latency_ms: 0.001}}
  - {name: plain}
budgets: [{name: all, usd: 1000, per: day}]
"""
FAR = {"x-data-sensitivity": "restricted"}


def series(router):
    return set(router.metrics())


@pytest.mark.timeout(240)
def test_ten_thousand_strange_requests_make_no_new_series(start_router):
    """Callers invent tenants, models, tasks, headers, paths: none of it becomes a label."""
    router = start_router(THREE_TIERS + POLICY)

    def ask(seed, number):
        rng = random.Random(seed)

        def name():
            return "".join(rng.choices(string.ascii_letters + string.digits + "-_.", k=rng.randrange(1, 40)))

        connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=30)
        for i in range(number):
            path = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", f"/v2/models/{name()}/infer")[i % 4]
            body = {"model": rng.choice([name(), "chat"]), "user": name(), "metadata": {name(): name()}, name(): name()}
            body |= {"messages": [{"role": "user", "content": name()}], "prompt": name(), "input": name(), "inputs": []}
            # Only one backend may see them: on a busy machine another would have its turn now and then, and its series.
            headers = FAR | {"content-type": "application/json", "x-session-id": name(), f"x-{name()}": name()}
            headers |= {
                "authorization": f"Bearer {name()}",
                "x-tenant": name(),
                "x-request-id": name(),
                "x-usage": name(),
            }
            connection.request("POST", path, json.dumps(body), headers)
            connection.getresponse().read()
        connection.close()

    ask(0, 40)  # one of each kind
    before = series(router)
    threads = [threading.Thread(target=ask, args=(seed, 2500)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert router.count("pointsman_requests_total") == 10_040
    assert series(router) - before == set()


def test_what_should_stay_at_0_is_there_from_the_start(start_router):
    router = start_router(THREE_TIERS + POLICY)
    found = router.metrics()
    for name, labels in [
        ("pointsman_egress_blocked_total", {"backend": "cloud"}),
        ("pointsman_detector_failures_total", {"detector": "pii"}),
        ("pointsman_reloads_total", {"outcome": "refused"}),
        ("pointsman_cost_usd_total", {"backend": "edge", "tier": "edge", "model": "chat", "purpose": "answer"}),
        ("pointsman_ejections_total", {"backend": "edge"}),
        ("pointsman_slo_requests_total", {"rule": "quick", "met": "false"}),
        ("pointsman_attempts_total", {"backend": "edge", "tier": "edge", "kind": "hedge", "outcome": "ok"}),
        ("pointsman_attempts_total", {"backend": "edge", "tier": "edge", "kind": "first", "outcome": "unreachable"}),
        ("pointsman_tenant_requests_total", {"tenant": "anonymous", "outcome": "upstream_error"}),
        ("pointsman_decision_log_dropped_total", {}),
    ]:
        assert found[name, frozenset(labels.items())] == 0, name
    assert router.count("pointsman_reserved_usd_per_hour", backend="edge") == 0.36
    assert router.count("pointsman_backend_state", backend="edge", state="available") == 1
    assert router.count("pointsman_backend_state", backend="edge") == 1, "one state at a time"
    assert router.count("pointsman_quota_cap", quota="all", unit="usd") == 1000


def test_times_apart_the_routers_own_the_backends_and_the_queue(start_router):
    router = start_router(
        THREE_TIERS.replace("prior_ms: 50}", "prior_ms: 50}\n    script: [{latency_ms: 100}]") + POLICY
    )
    assert router.chat(headers=FAR).backend == "edge"
    assert router.count("pointsman_request_seconds_sum") >= 0.1
    assert router.count("pointsman_attempt_seconds_sum", backend="edge") >= 0.1
    assert 0 < router.count("pointsman_overhead_seconds_sum") < 0.05
    assert router.count("pointsman_queue_seconds_count") == 0


def test_tokens_of_a_stream_have_their_pace(start_router):
    step = "script: [{chunks: 5, chunk_delay_ms: 20}]"
    router = start_router(THREE_TIERS.replace("prior_ms: 50}", f"prior_ms: 50}}\n    {step}") + POLICY)
    assert router.chat(stream=True, headers=FAR).backend == "edge"
    pace = router.count("pointsman_time_per_output_token_seconds_sum")
    assert 0.015 < pace < 0.1
    assert router.count("gen_ai_server_time_per_output_token_seconds_sum", gen_ai_operation_name="chat") == pace
    assert router.count("gen_ai_server_time_to_first_token_seconds_count", gen_ai_request_model="chat") == 1


def test_objectives(start_router):
    router = start_router(THREE_TIERS + POLICY)
    for usage in ("quick", "hopeless", "other"):
        assert router.chat(headers={"x-usage": usage}).status == 200
    router.chat(messages="wrong")

    def met(rule):
        return [router.count("pointsman_slo_requests_total", rule=rule, met=one) for one in ("true", "false")]

    assert [met("quick"), met("hopeless"), met("plain")] == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("outcome", "ms", "ttft_ms", "expected"),
    [("ok", 9, None, True), ("ok", 11, None, False), ("ok", 9, 6, False), ("ok", 9, 4, True),
     ("upstream_error", 1, None, False), ("deadline", 1, None, False), ("refused", 1, None, None),
     ("client_error", 1, None, None), ("cancelled", 99, None, None), ("budget_exhausted", 1, None, None)],
)  # fmt: skip
def test_what_meets_an_objective(outcome, ms, ttft_ms, expected):
    decision = Decision("r", "p", 0, 0, 0, "r", (), (), "score", (), (), (), None, None, None, None, (), (),
                        slo=Slo(latency_ms=10, ttft_ms=5))  # fmt: skip
    assert slo_met(outcome, decision, ms, ttft_ms) is expected


def test_a_reload_takes_away_the_gauges_of_what_is_gone(start_router, tmp_path):
    (tmp_path / "fleet.yaml").write_text(THREE_TIERS.replace("kind:", "apiVersion: pointsman/v1\nkind:"))
    loader = ConfigurationLoader([tmp_path / "fleet.yaml"], {})
    router = Router(loader(), Settings(), BUILDERS, loader).start()
    try:
        router.chat(headers=FAR)
        old = router.service.policy.digest
        assert router.count("pointsman_policy_info") == 1
        text = (tmp_path / "fleet.yaml").read_text()
        (tmp_path / "fleet.yaml").write_text(text.replace("name: edge", "name: brim"))
        assert router.call("POST", "/reload", admin=True).json()["outcome"] == "swapped"
        router.chat(headers=FAR)
        found = router.metrics()
        gauges = {
            n
            for n, labels in found
            if ("backend", "edge") in labels and not n.endswith(("_total", "_count", "_sum", "_bucket"))
        }
        assert gauges == set()
        assert router.count("pointsman_backend_available", backend="brim") == 1
        assert ("pointsman_policy_info", frozenset({("digest", old)})) not in found
        assert router.count("pointsman_policy_info") == 1
        assert router.count("pointsman_attempts_total", backend="edge") == 1, "what was counted stays"
    finally:
        router.stop()
        router.join()


# --- formats --------------------------------------------------------------------------------------------------------


def test_both_formats_parse_and_openmetrics_has_exemplars(start_router):
    router = start_router(THREE_TIERS + POLICY)
    at = "chat", "chat", router.chat().backend
    router.loop.call_soon_threadsafe(router.service.metrics.request_seconds.exemplify, (*at, at[-1]), 0.004, "ab" * 16)
    router.metrics()
    reply = router.call("GET", "/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"}, admin=True)
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    families = list(open_metrics(reply.body.decode()))
    exemplars = [s.exemplar for family in families for s in family.samples if s.exemplar is not None]
    assert [(one.labels, one.value) for one in exemplars] == [({"trace_id": "ab" * 16}, 0.004)]
    plain = router.call("GET", "/metrics", admin=True).body.decode()
    assert {f.name for f in text_string_to_metric_families(plain)} == {f.name for f in families}


@pytest.mark.parametrize("accept", ["text/plain;version=x", "application/openmetrics-text;version=a.b", ";;=,", "*"])
def test_whatever_an_accept_header_says_there_are_metrics(accept):
    assert b"pointsman_build_info" in render(Metrics(), accept)[0]


def test_every_metric_is_told_of_in_words_and_in_base_units():
    for metric in Metrics().registry.collect():
        assert len(metric.documentation) > 20, metric.name
        assert metric.name.startswith(("pointsman_", "gen_ai_server_")), metric.name
        assert not metric.name.endswith(("_ms", "_millis", "_kb", "_percent")), metric.name


def test_what_the_router_itself_takes_is_measured(start_router):
    router = start_router(THREE_TIERS + POLICY)
    before = router.count("pointsman_cpu_seconds_total")
    for _ in range(100):
        router.chat()
    took = router.count("pointsman_cpu_seconds_total")
    assert before < took <= time.process_time()
    (held,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    assert router.count("pointsman_resident_memory_bytes") == pytest.approx(int(held.split()[1]) * 1024, rel=0.2)


def test_where_the_kernel_does_not_say_there_are_metrics_without_it(start_router, monkeypatch):
    monkeypatch.setattr("router.telemetry.gauges._STATM", Path("/proc/self/no-such-file"))
    told = start_router(THREE_TIERS).call("GET", "/metrics", admin=True)
    assert told.status == 200
    assert b"\npointsman_cpu_seconds_total " in told.body
    assert b"\npointsman_resident_memory_bytes" not in told.body


def test_batches_are_measured(start_router, onnx_models):
    router = start_router(
        """
        kind: Fleet
        backends:
          - {name: inside, tier: edge, region: jp, protocol: onnx, clearance: restricted,
             models: {double: {task: arithmetic, artifact: double.onnx, batching: {max_size: 8, max_wait_ms: 50}}}}
        """,
        files=onnx_models,
    )
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    threads = [threading.Thread(target=router.call, args=("POST", "/v2/models/double/infer", body)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert router.count("pointsman_batch_size_count", backend="inside") == 20
    assert router.count("pointsman_batch_size_sum", backend="inside") >= 20
    assert router.count("pointsman_requests_total", route="/v2/models/{model}/infer", outcome="ok") == 20


# --- energy -----------------------------------------------------------------------------------------------------------


class Counters:
    """What a kernel with counters would show, in files."""

    def __init__(self, folder):
        self.joules, self.own, self.busy = 0, 0, 0
        self.power, self.proc = folder / "powercap", folder / "proc"
        (self.power / "intel-rapl:0").mkdir(parents=True)
        (self.proc / "self").mkdir(parents=True)
        (self.power / "intel-rapl:0" / "name").write_text("package-0\n")
        (self.power / "intel-rapl:0" / "max_energy_range_uj").write_text("262143328850\n")
        self.advance(0, 0, 0)

    def advance(self, joules, own, busy):
        self.joules, self.own, self.busy = self.joules + joules, self.own + own, self.busy + busy
        (self.power / "intel-rapl:0" / "energy_uj").write_text(f"{self.joules * 1_000_000}\n")
        (self.proc / "self" / "stat").write_text(f"1 (a) S {' '.join(['0'] * 10)} {self.own} 0 0 0\n")
        (self.proc / "stat").write_text(f"cpu  {self.busy} 0 0 99999 0 0 0 0 0 0\n")


def test_energy_is_measured_where_it_can_be(tmp_path):
    counters = Counters(tmp_path)
    metrics = Metrics()
    energy = MeasuredEnergy(metrics, 2, Rapl(counters.power), ProcessShare(counters.proc))
    energy.backends = {"inside": 500.0}
    accounts = Accounts(metrics, energy)
    for backend in ("inside", "elsewhere"):
        accounts.copied([Charge(backend, "edge", "m", 0.5, 0.0, energy_j=7.0, carbon_g=1.0)])
    counters.advance(joules=360, own=25, busy=100)  # a quarter of what was busy was this process
    metrics.fold()
    found = {
        (s.name, s.labels.get("backend"), s.labels.get("source")): s.value
        for family in metrics.registry.collect() for s in family.samples
    }  # fmt: skip
    assert found["pointsman_host_energy_joules_total", None, None] == 180, "the other replica counts the other half"
    assert found["pointsman_energy_joules_total", "inside", "measured"] == 90
    assert found["pointsman_carbon_grams_total", "inside", None] == pytest.approx(90 / 3.6e6 * 500)
    assert found["pointsman_energy_joules_total", "elsewhere", "modelled"] == 7
    assert ("pointsman_energy_joules_total", "inside", "modelled") not in found


def test_elsewhere_it_is_modelled(tmp_path):
    metrics = Metrics()
    energy = MeasuredEnergy(metrics, 1, Rapl(tmp_path / "none"), ProcessShare())
    energy.backends = {"inside": 500.0}
    Accounts(metrics, energy).copied([Charge("inside", "edge", "m", 0.5, 0.0, energy_j=7.0)])
    metrics.fold()
    assert metrics.energy_joules.metric.labels("inside", "edge", "modelled")._value.get() == 7


def test_carbon_goes_by_the_hour(start_router, tmp_path):
    (tmp_path / "day.csv").write_text("time,g_per_kwh\n00:00,100\n")
    price = "price: {input_per_mtok: 1, output_per_mtok: 2}"
    carbon = "energy: {active_w: 1000}\n    carbon: {g_per_kwh: 999, series: day.csv}"
    best = POLICY.replace("{name: plain}", "{name: plain, objective: {quality: {weight: 1}}}")
    router = start_router(THREE_TIERS.replace(price, f"{price}\n    {carbon}") + best)
    assert router.chat().backend == "cloud"
    joules = router.count("pointsman_energy_joules_total", backend="cloud")
    assert joules > 0
    assert router.count("pointsman_carbon_grams_total", backend="cloud") == pytest.approx(joules / 3.6e6 * 100)
    assert router.count("pointsman_carbon_intensity_grams_per_kwh", backend="cloud", source="file day.csv") == 100


REPLICA = """
import sys
from router.telemetry.gauges import GONE
from router.telemetry.metrics import Metrics
metrics = Metrics()
for gauge, labels in ((metrics.policy_info, ("old",)), (metrics.in_flight, ("b",)), (metrics.available, ("b", "edge"))):
    gauge.labels(*labels).set(GONE if sys.argv[1] == "gone" else 3)
print(flush=True)
sys.stdin.read()
"""
SHOWN = """
from router.telemetry.exposition import render
from router.telemetry.metrics import Metrics
print(render(Metrics())[0].decode())
"""


def test_what_is_gone_at_one_replica_is_still_there_at_another(tmp_path):
    """Which has refused the reload, say: then its policy and its requests in flight must be seen."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
    replicas = [
        subprocess.Popen([sys.executable, "-c", REPLICA, state], **pipes) for state in ("gone", "there", "gone")
    ]
    try:
        for replica in replicas:
            replica.stdout.readline()
        shown = subprocess.check_output([sys.executable, "-c", SHOWN], env=environment, text=True)
    finally:
        for replica in replicas:
            replica.communicate()
    assert 'pointsman_policy_info{digest="old"} 3.0' in shown
    assert 'pointsman_in_flight{backend="b"} 3.0' in shown
    assert 'pointsman_backend_available{backend="b",tier="edge"} 3.0' in shown
