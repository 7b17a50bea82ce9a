"""Starting, watching and ending the demo's servers; above all, that none outlives what started it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from router.demo.processes import Processes, StartError, free_port
from tests.processes import alive, kill, soon

# Small modules that stand in for the servers, where no model is needed.
STAND_INS = {
    # Answers /health like a server, and ends with its parent if the kernel tells it to: it never looks.
    "lively": """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from router.demo.lifeline import live_with_parent
live_with_parent(poll_s=3600)
class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
""",
    # As where the kernel sends no death signal: only the polling is left.
    "polling": """
import sys, time
sys.platform = "other"
from router.demo.lifeline import live_with_parent
live_with_parent(poll_s=0.05)
time.sleep(60)
""",
    "stubborn": """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
""",
    "broken": """
import sys
print("\\n".join(f"line {n}" for n in range(80)))
sys.exit("the disk is on fire")
""",
}


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in STAND_INS.items():
        (tmp_path / f"{name}.py").write_text(source)
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{inherited}" if inherited else str(tmp_path))


def _parent_of(call: str) -> subprocess.Popen[str]:
    """A process that starts children with `call`, prints their pids and waits to be killed."""
    code = f"""
import time
from router.demo.processes import Processes, free_port
with Processes() as processes:
    {call}
    print(*processes.running().values(), flush=True)
    time.sleep(60)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(
            'p = free_port(); processes.start("a", "lively", p, ready_url=f"http://127.0.0.1:{p}/health")',
            id="at once",
        ),
        pytest.param('processes.start("a", "polling"); time.sleep(0.5)', id="by polling"),
        pytest.param(
            'p = free_port(); processes.start("a", "router.demo.embedding_server", "--port", p,'
            ' ready_url=f"http://127.0.0.1:{p}/health")',
            id="embedding server",
            marks=pytest.mark.models,
        ),
        pytest.param(
            'p = free_port(); processes.start("a", "router.demo.llm_server", "--port", p, "--alias", "x",'
            ' ready_url=f"http://127.0.0.1:{p}/health")',
            id="llm server",
            marks=pytest.mark.models,
        ),
        # Loading holds the interpreter lock, so no Python code of the child could notice.
        pytest.param(
            'processes.start("a", "router.demo.llm_server", "--port", free_port(), "--alias", "x"); time.sleep(0.6)',
            id="llm server while it loads",
            marks=pytest.mark.models,
        ),
    ],
)
def test_kill_9_of_the_parent_leaves_no_child(stand_ins: None, call: str) -> None:
    with _parent_of(call) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 1
        assert all(map(alive, children))
        parent.send_signal(signal.SIGKILL)
    try:
        assert soon(lambda: not any(map(alive, children)))
    finally:
        kill(children)


def test_a_child_outlives_the_thread_that_started_it(stand_ins: None) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    with Processes() as processes:
        # Ready within the thread: the child has asked for its death signal before the thread ends.
        starter = threading.Thread(target=processes.start, args=("a", "lively", port), kwargs={"ready_url": url})
        starter.start()
        starter.join()
        time.sleep(0.3)
        assert "a" in processes.running()
    assert processes.running() == {}


def test_leaving_ends_every_child_and_says_so_of_the_deaf(stand_ins: None) -> None:
    said: list[str] = []
    port = free_port()
    with Processes(said.append, grace_s=0.5) as processes:
        pid = processes.start("lively", "lively", port, ready_url=f"http://127.0.0.1:{port}/health")
        assert os.getsid(pid) == pid  # a session of its own: Ctrl-C is ours to pass on
        deaf = processes.start("stubborn", "stubborn")
        assert soon(lambda: processes.tail("stubborn") == "deaf")
        with pytest.raises(ValueError, match="lively is already running"):
            processes.start("lively", "lively", port)
    assert not alive(pid)
    assert not alive(deaf)
    assert said[-1] == "stubborn: did not end within 0.5 s, killed"
    processes.stop()  # a second time is no error


def test_one_server_can_be_ended_and_started_again(stand_ins: None) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    with Processes() as processes:
        first = processes.start("a", "lively", port, ready_url=url)
        processes.stop_one("a")
        assert not alive(first)
        assert processes.running() == {}
        assert processes.start("a", "lively", port, ready_url=url) != first


def test_a_taken_port_is_not_taken_for_readiness(stand_ins: None) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    with Processes() as processes:
        processes.start("first", "lively", port, ready_url=url)
        with pytest.raises(StartError, match=r"^second was not started: another server answers at http"):
            processes.start("second", "lively", port, ready_url=url)


def test_a_server_that_ends_on_start_shows_its_last_lines(stand_ins: None) -> None:
    with Processes() as processes, pytest.raises(StartError) as failed:
        processes.start("b", "broken", ready_url=f"http://127.0.0.1:{free_port()}/health")
    lines = str(failed.value).splitlines()
    assert lines[0] == "b ended with exit code 1 before it was ready"
    assert lines[1] == "line 31"
    assert lines[-1] == "the disk is on fire"
    assert len(lines) == 51


def test_a_server_that_is_not_ready_in_time_is_reported(stand_ins: None) -> None:
    url = f"http://127.0.0.1:{free_port()}/health"
    with Processes(grace_s=0.2) as processes, pytest.raises(StartError, match=r"not ready within 0\.5 s"):
        processes.start("s", "stubborn", ready_url=url, timeout_s=0.5)
