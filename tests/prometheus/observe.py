"""`make observe`: the demo's real models for a minute under a real Prometheus, and what every panel and rule then says.

Exit status 0 where all of it is there and sane.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.table import Table

from router.cli.output import console
from router.demo.processes import free_port
from router.demo.scenario import Sample, samples
from tests.prometheus import checks
from tests.prometheus.server import MISSING, Prometheus

ROOT = Path(__file__).resolve().parents[2]
LOAD_S = 60
START_S = 180.0
CLIENTS = 3
AT_REST = {
    # The demo's policy has no budgets, tenants, candidate, copies, hedges, cascades or masks.
    "How do the budgets stand?", "Why was nobody let in?",
    "How often would the candidate policy do something else?", "Where would the candidate policy send it?",
    "How do backends on trial answer?", "How many labels did somebody lower?", "How many values were masked?",
    "How many placeholders came back strange?", "Who lowered labels, from what to what?", "Do hedges pay?",
    "How much is spent on what nobody got?",
    # Its models are not batched, and say how many tokens they took.
    "How many requests does a model run at once?", "How much of that is a guess?",
    # Nobody reloads it, and nothing need fail or be full in that minute.
    "How many routers refuse the files?", "When was the configuration read again?", "Which calls fail?",
    "How many of its calls fail?", "How many second chances are there?", "Which backends are kept out for failing?",
    "How many fail that should not?", "Whom does the service fail?", "How fast is the error budget used?",
    "Who helps out when another is full?", "How full are the queues?", "How long do requests wait for a place?",
    "How many backends are out?", "How many alerts fire?", "How many records wait to be written?",
    "How much do backends draw while they wait, and this machine in all? · B",
    "job_instance_backend:pointsman_queue_saturation:ratio",
    *(f"job_rule:pointsman_slo_errors:ratio_rate{window}" for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d")),
}  # fmt: skip
ABSENT = {
    "job:pointsman_candidate_divergence:ratio_rate5m": "there is no candidate policy",
    "job_instance_quota_unit:pointsman_quota_remaining:ratio": "there are no budgets",
}
"""Recording rules that have nothing to record in the demo."""


def main() -> int:
    if MISSING:
        print(f"make observe: {MISSING}", file=sys.stderr)
        return 2
    port, admin_port = free_port(), free_port()
    command = [sys.executable, "-m", "router.demo", "--engine", "local", "--port", port, "--admin-port", admin_port]
    with tempfile.TemporaryDirectory(prefix="pointsman-observe-") as folder, tempfile.TemporaryFile() as log:
        demo = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=log, stderr=log)
        try:
            _wait_until_served(demo, admin_port)
            with Prometheus(Path(folder), admin_port) as server:
                return _observe(server, port)
        finally:
            demo.send_signal(signal.SIGINT)
            try:
                demo.wait(60)
            except subprocess.TimeoutExpired:
                demo.kill()
                demo.wait()


def _wait_until_served(demo: subprocess.Popen[bytes], admin_port: int) -> None:
    """Until the demo has sent its own requests, the last of them without its cloud, and all backends are back."""
    print("starting the demo: models, servers, router", flush=True)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if demo.poll() is not None:
            raise SystemExit("the demo ended; `make run ENGINE=local` says why")
        try:
            decided = _admin(admin_port, "/decisions")["decisions"]
            if len(decided) >= len(samples()) + 1 and not _admin(admin_port, "/readyz")["unreachable"]:
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the demo was not ready within {START_S:g} s")


def _admin(port: int, path: str) -> dict[str, list[object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        found: dict[str, list[object]] = json.loads(connection.getresponse().read())
        return found
    finally:
        connection.close()


def _observe(server: Prometheus, port: int) -> int:
    stop, asked = threading.Event(), [0] * CLIENTS
    threads = [threading.Thread(target=_ask, args=(seed, port, stop, asked), daemon=True) for seed in range(CLIENTS)]
    print(f"{LOAD_S} s of requests of every kind", flush=True)
    for thread in threads:
        thread.start()
    time.sleep(LOAD_S)
    answers = checks.ask_all(server, LOAD_S)
    rules = checks.ask_rules(server)
    wrong = checks.check_rules(server) + checks.check_variables(server)
    stop.set()
    for thread in threads:
        thread.join(90)
    rules = [one for one in rules if one.series or one.name not in ABSENT]
    wrong += checks.problems(answers, AT_REST) + checks.problems(rules, AT_REST)
    _show(answers + rules)
    print(f"{sum(asked)} requests; {len(answers)} queries of panels and {len(rules)} recording rules")
    for line in wrong:
        print(f"NOT AS EXPECTED: {line}")
    return 1 if wrong else 0


def _ask(seed: int, port: int, stop: threading.Event, asked: list[int]) -> None:
    rng = random.Random(seed)
    kinds: list[Sample] = [one for one in samples() if not one.without_cloud]
    while not stop.is_set():
        sample = rng.choice(kinds)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
        try:
            connection.request("POST", sample.path, sample.body, sample.headers)
            connection.getresponse().read()
            asked[seed] += 1
        finally:
            connection.close()


def _show(answers: list[checks.Answer]) -> None:
    table = Table(title="what every panel and rule says", title_justify="left")
    for column in ("query", "series", "values now", "unit"):
        table.add_column(column)
    for one in answers:
        values = ", ".join(f"{value:.4g}" for value in one.last[:6]) + (" …" if len(one.last) > 6 else "")
        table.add_row(one.name, str(len(one.series)), "not filled yet" if one.waits else values, one.unit)
    console().print(table)


if __name__ == "__main__":
    sys.exit(main())
