"""`pointsman top`: what it shows of a router is what happened, on a real terminal too."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, THREE_TIERS, run_command
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from rich.console import Console

from router.top.readings import Between, Reading

POLICY = """
---
kind: Policy
sensitivity: {default: public}
rules: [{name: all, slo: {latency_ms: 60000}}]
budgets: [{name: daily, usd: 100, per: day}]
"""


@contextlib.contextmanager
def answering(answer):
    """A server that says the same to everybody: its URL, and what it was asked."""
    server, asked = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(65536))
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.fixture
def busy(start_router):
    """A router that is asked all the time."""
    router = start_router(THREE_TIERS + POLICY)
    done = threading.Event()

    def ask():
        while not done.wait(0.005):
            router.chat(headers={"x-data-sensitivity": "restricted"})

    thread = threading.Thread(target=ask)
    thread.start()
    yield router
    done.set()
    thread.join()


def test_once(busy, capsys):
    status, out, err = run_command(capsys, "top", busy.admin_url, "--once", "--interval", "0.5")
    assert (status, err) == (0, "")
    for part in (
        "policy " + busy.service.policy.digest,
        "edge 100 %",
        "available",
        "stopped at the last check: 0",
        "daily",
    ):
        assert part in out


def test_in_a_narrow_terminal_names_and_states_are_whole_and_warnings_come_first(busy, capsys, monkeypatch):
    busy.service.metrics.decision_log_dropped.inc(3)
    monkeypatch.setattr("router.cli.top.console", lambda: Console(width=80))
    _, shown, _ = run_command(capsys, "top", busy.admin_url, "--once", "--interval", "0.2")
    assert shown.index("! 3 records lost to the decision log") < shown.index("backend")
    for part in ("onprem", "available", "in flight"):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_as_json(busy, capsys):
    before = busy.count("pointsman_requests_total")
    began = time.monotonic()
    status, out, _ = run_command(capsys, "top", busy.admin_url, "--json", "--interval", "1")
    asked = busy.count("pointsman_requests_total") - before
    found = json.loads(out)
    assert status == 0
    # It looks for a second out of this time, in which the machine may let requests through unevenly.
    assert 0 < found["per_second"] <= asked
    assert found["per_second"] * (time.monotonic() - began) > asked / 10
    assert found["tiers"] == {"edge": 1.0}
    assert [row["backend"] for row in found["backends"]] == ["edge", "onprem", "cloud"]
    edge = found["backends"][0]
    assert (edge["state"], edge["limit"], edge["failed_per_second"]) == ("available", 64, 0)
    assert edge["p50_ms"] > 0
    assert edge["usd_per_hour"] == pytest.approx(0.36)
    assert found["rules"][0]["met"] == 1.0
    assert found["quotas"][0]["cap"] == 100


def test_on_a_terminal_until_ctrl_c(busy):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "router", "top", busy.admin_url, "--interval", "0.2"]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, cwd=ROOT, env=environment)
    os.close(follower)
    seen = b""
    try:
        deadline = time.monotonic() + 20
        while seen.count(b"requests/s") < 4 and time.monotonic() < deadline:
            seen += os.read(leader, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        os.close(leader)
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).decode(errors="replace")  # it may end in the middle of one
    assert "available" in plain
    assert "Traceback" not in plain


def test_what_cannot_be_read(capsys, start_router):
    status, _, err = run_command(capsys, "top", "http://127.0.0.1:9", "--once")
    assert status == 1
    assert "is the router running, and is this its admin port?" in err
    assert run_command(capsys, "top", "localhost:8001", "--once")[0] == 2
    assert (
        "POINTSMAN_NO_TOKEN is not set" in run_command(capsys, "top", "--once", "--token-env", "POINTSMAN_NO_TOKEN")[2]
    )


INFO = 'pointsman_build_info{version="1"} 1\n'


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "",
        "<html>",
        'node_cpu_seconds_total{cpu="0"} 1\n',
        "pointsman_build_info 1\n",
        f"{INFO}pointsman_egress_blocked_total NaN\n",
        f"{INFO}pointsman_egress_blocked_total +Inf\n",
        f'{INFO}pointsman_request_seconds_bucket{{le="x"}} 1\n',
    ],
)
def test_what_is_no_router_is_told_in_a_sentence(capsys, answer):
    if isinstance(answer, str):
        answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\n\r\n{answer}".encode()
    with answering(answer) as (url, _):
        status, _, err = run_command(capsys, "top", url, "--once", "--interval", "0.01")
    assert (status, err.startswith("pointsman top: ")) == (1, True)


def test_a_url_that_is_none(capsys):
    for url in ("http://127.0.0.1:port", "http://[::1", "http://a b/"):
        assert run_command(capsys, "top", url, "--once")[0] == 1


def test_the_token_goes_to_nobody_whom_an_answer_names(capsys, monkeypatch):
    monkeypatch.setenv("TOKEN", "the-admins-own-token")
    with answering(b"") as (other, asked):
        moved = f"HTTP/1.1 302 Found\r\nlocation: {other}/metrics\r\ncontent-length: 0\r\n\r\n"
        with answering(moved.encode()) as (url, _):
            status, _, err = run_command(capsys, "top", url, "--once", "--token-env", "TOKEN")
    assert (status, "answered 302" in err, asked) == (1, True, [])


def test_names_are_no_styles(capsys):
    metrics = INFO + 'pointsman_backend_available{backend="[/a]",tier="[/b]"} 1\n'
    with answering(f"HTTP/1.1 200 OK\r\ncontent-length: {len(metrics)}\r\n\r\n{metrics}".encode()) as (url, _):
        status, out, _ = run_command(capsys, "top", url, "--once", "--interval", "0.01")
    assert (status, "[/a]" in out) == (0, True)


amounts = st.lists(st.sampled_from([0.001, 0.004, 0.03, 0.2, 0.7, 3.0, 20.0]), max_size=60)


@given(amounts, amounts, st.sampled_from([0.5, 0.95]))
def test_a_quantile_lies_in_the_bucket_that_holds_it(earlier, later, share):
    registry = CollectorRegistry()
    bounds = (0.005, 0.05, 0.5, 1, 10)
    histogram = Histogram("h", "h", registry=registry, buckets=bounds)
    for value in earlier:
        histogram.observe(value)
    before = Reading.of(generate_latest(registry).decode(), 0)
    for value in later:
        histogram.observe(value)
    found = Between(before, Reading.of(generate_latest(registry).decode(), 1)).quantile(share, "h")
    if not later:
        assert found is None
        return
    ranked = sorted(later)
    exact = ranked[max(0, -int(-share * len(ranked) // 1) - 1)]
    above = next((bound for bound in bounds if exact <= bound), None)
    below = max((bound for bound in (0, *bounds) if bound < exact), default=0)
    assert below <= found <= (above if above is not None else bounds[-1])


def test_a_router_that_began_anew_has_not_served_less_than_nothing():
    def reading(count, at):
        registry = CollectorRegistry()
        Counter("c", "c", registry=registry).inc(count)
        return Reading.of(generate_latest(registry).decode(), at)

    assert Between(reading(1000, 0), reading(30, 10)).rate("c_total") == 3
