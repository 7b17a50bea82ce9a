"""Log lines: JSON that parses, a level that changes while the router runs, and never a payload."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from collector import collector
from conftest import ROOT
from test_tracing import TRACE, TRACEPARENT, TWO

from router.demo.processes import free_port
from router.telemetry import logs, tracing
from router.telemetry.trail import CURRENT, Trail


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The level and the handlers are the process's own."""
    monkeypatch.setattr(tracing, "_EVERY_MS", 50.0)
    logger = logging.getLogger("pointsman")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture
def json_lines(caplog):
    """What JSON lines the records of the test have become."""
    caplog.handler.addFilter(logs._stamp)
    yield lambda: [json.loads(logs.JsonFormatter().format(record)) for record in caplog.records]
    caplog.handler.removeFilter(logs._stamp)


@dataclass
class Served:
    process: subprocess.Popen[str]
    port: int
    admin: int

    def ask(self, text="hello", **headers):
        body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": text}]}).encode()
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        sent = {"content-type": "application/json"} | {name.replace("_", "-"): v for name, v in headers.items()}
        with urllib.request.urlopen(urllib.request.Request(url, body, sent), timeout=10) as response:
            return response.headers

    def level(self, name):
        url, body = f"http://127.0.0.1:{self.admin}/log-level", json.dumps({"level": name}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=10) as response:
            return json.load(response)

    def lines(self):
        """All that it logged, once it has ended."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        return err.splitlines()


@pytest.fixture
def serve(tmp_path):
    started = []

    def serve(*flags, first="[{}]", before="pass"):
        text = TWO.format(first=first, second="[{}]", more="").replace("kind: ", "apiVersion: pointsman/v1\nkind: ")
        (tmp_path / "all.yaml").write_text(text)
        port, admin = free_port(), free_port()
        program = f"import sys; from router.cli import main; {before}; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-c", program, "serve", str(tmp_path), "--engine", "local", "--watch", "0"]
        command += ["--port", str(port), "--admin-port", str(admin), *flags]
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert "is ready" in process.stdout.readline()
        return Served(process, port, admin)

    yield serve
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def test_lines_are_json_and_tell_whose_request_they_are_about(serve):
    served = serve("--log-format", "json", "--log-level", "info", first="[{fail: status_500}]")
    answer = served.ask("my-prompt-4711 社外秘", x_request_id="r-77")
    lines = [json.loads(line) for line in served.lines()]
    failed, ended = [line for line in lines if line.get("request_id") == "r-77"]
    for line in (failed, ended):
        assert line["decision"] == answer["x-pointsman-decision"]
        assert line["logger"] == "pointsman"
        at = datetime.fromisoformat(line["at"])
        assert at.utcoffset() == timedelta(0)
        assert abs(at.timestamp() - time.time()) < 60
    assert failed["level"] == "warning"
    assert "first: answered 500" in failed["message"]
    assert ended["level"] == "info"
    facts = {name: ended[name] for name in ("outcome", "status", "backend", "rule", "attempts")}
    assert facts == {"outcome": "ok", "status": 200, "backend": "second", "rule": "all", "attempts": 2}
    assert ended["ms"] > 0


def test_the_trace_is_in_them(start_router, json_lines):
    with collector() as found:
        text = TWO.format(first="[{fail: status_500}]", second="[{}]", more="")
        start_router(text, otlp_endpoint=found.url).chat(headers={"traceparent": TRACEPARENT})
        found.trace(2)
    assert [line["trace_id"] for line in json_lines()] == [TRACE]


def test_text_is_for_people_and_says_nothing_below_a_warning(serve):
    served = serve(first="[{fail: status_500}]")
    served.ask(x_request_id="r-77")
    (line,) = served.lines()
    assert "WARNING pointsman: attempt 1 of request r-77 failed: first: answered 500" in line


def test_the_level_changes_while_it_runs(serve):
    served = serve("--log-format", "json")
    served.ask(x_request_id="unseen")
    assert served.level("debug") == {"level": "debug"}
    served.ask(x_request_id="seen")
    assert served.level("error") == {"level": "error"}
    served.ask(x_request_id="unseen-too")
    lines = [json.loads(line) for line in served.lines()]
    assert {line["request_id"] for line in lines} == {"seen"}
    assert [line["level"] for line in lines] == ["debug", "info"]
    assert lines[0]["message"].startswith("attempt 1 (first) at first: ok in ")


def test_the_admin_port_shows_and_sets_it(start_router):
    router = start_router(TWO.format(first="[{}]", second="[{}]", more=""))
    for level in ("debug", "info", "error", "warning"):
        assert router.call("PUT", "/log-level", {"level": level}, admin=True).json() == {"level": level}
        assert router.call("GET", "/log-level", admin=True).json() == {"level": level}


@pytest.mark.parametrize("body", [{"level": "verbose"}, {"level": 10}, {"level": None}, {}, [], "debug", b"{"])
def test_a_level_that_is_none_is_refused_with_those_that_are(start_router, body):
    router = start_router(TWO.format(first="[{}]", second="[{}]", more=""))
    before = router.call("GET", "/log-level", admin=True).json()
    reply = router.call("PUT", "/log-level", body, admin=True)
    assert reply.status == 400
    if body != b"{":
        assert "debug, info, warning, error" in reply.json()["error"]["message"]
    assert router.call("GET", "/log-level", admin=True).json() == before


def test_it_needs_the_admin_token_as_everything_does(start_router):
    from router.credentials import digest

    router = start_router(TWO.format(first="[{}]", second="[{}]", more=""), admin_tokens=(digest(b"x" * 16),))
    assert router.call("PUT", "/log-level", {"level": "debug"}, admin=True).status == 401


def test_every_process_is_told(start_router):
    """The order goes where the engine says, with its argument; how Ray carries it is the engine's own test."""
    router = start_router(TWO.format(first="[{}]", second="[{}]", more=""))
    told = []

    async def everywhere(name, *arguments):
        told.append((name, *arguments))
        return [await router.service.orders.obey(name, *arguments) for _ in range(2)]

    router.service.orders.everywhere = everywhere
    assert router.call("PUT", "/log-level", {"level": "info"}, admin=True).json() == {"level": "info"}
    assert router.call("POST", "/reload", admin=True).json()["outcome"] == "refused"
    assert told == [("log-level", "info"), ("reload",)]


def test_no_payload_is_in_any_line_at_any_level(serve):
    """Also of a defect, whose message holds what was being worked on, and of what nobody waits for."""
    before = """exec('''
import asyncio
from backends.fake import FakeBackend
async def fails(text): raise ValueError(text)
async def send(self, call):
    asyncio.create_task(fails(call.body.decode()))
    await asyncio.sleep(0.05)
    raise ValueError(call.body.decode())
FakeBackend.send = send
''')"""
    served = serve("--log-format", "json", "--log-level", "debug", before=before)
    with pytest.raises(urllib.error.HTTPError, match="500"):
        served.ask("my-prompt-4711 社外秘", authorization="Bearer sk-tenant-4711", x_request_id="r-1")
    found = served.lines()
    lines = [json.loads(line) for line in found]
    assert {line["logger"] for line in lines} == {"pointsman", "asyncio"}
    assert [line["error"] for line in lines if "error" in line] == ["ValueError", "ValueError"]
    lost = next(line for line in lines if line["logger"] == "asyncio")
    assert lost["message"] == "Task exception was never retrieved"
    assert lost["where"], "where it happened is told"
    for secret in ("4711", "社外秘", "\\u793e"):
        assert secret not in "\n".join(found)


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()])
def test_an_exception_is_told_by_its_type_and_place(formatter):
    record = None
    try:
        raise ValueError("my-prompt-4711")
    except ValueError:
        record = logging.LogRecord("pointsman", logging.ERROR, __file__, 1, "it %s", ("failed",), sys.exc_info())
    told = formatter.format(record)
    assert "4711" not in told
    assert "ValueError" in told
    assert "it failed" in told
    assert "test_an_exception_is_told_by_its_type_and_place" in told


def test_a_buffer_does_not_mix_requests_up(tmp_path):
    """Ray's own handler writes later, when another request may be at work."""
    from logging.handlers import MemoryHandler

    target = logging.FileHandler(tmp_path / "log")
    host = logging.Logger("host")
    host.addHandler(MemoryHandler(100, logging.CRITICAL, target))
    ours, parent = logging.getLogger("pointsman"), logging.getLogger("pointsman").parent
    try:
        logs.join(host, "json", "info")
        for name in ("r-1", "r-2"):
            trail = Trail()
            trail.request_id = name
            token = CURRENT.set(trail)
            ours.info("line of %s", name)
            CURRENT.reset(token)
        host.handlers[0].flush()
    finally:
        ours.parent = parent
        target.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["message"], line["request_id"]) for line in lines] == [("line of r-1", "r-1"), ("line of r-2", "r-2")]


def test_a_name_that_is_no_utf_8_does_not_cost_the_line():
    record = logging.LogRecord("pointsman", logging.ERROR, "f", 1, "cannot read %s", ("a\udcffb",), None)
    assert json.loads(logs.JsonFormatter().format(record))["message"] == "cannot read a\\udcffb"
