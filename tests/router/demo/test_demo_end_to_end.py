"""`make run` as a newcomer has it: the table, the printed command, Ctrl-C; with real models and both engines."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.demo.processes import free_port
from router.demo.scenario import samples
from tests.processes import command, kill, marked, soon

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.models, pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")]


@contextmanager
def demo(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The demo in a process group of its own, as a terminal would have it. Nothing of it may be left at the end."""
    mark = f"POINTSMAN_TEST_{uuid.uuid4().hex}"
    process = subprocess.Popen(
        [sys.executable, "-m", "router.demo", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, mark: "1"},
        start_new_session=True,
    )
    try:
        yield process
        assert soon(lambda: not marked(mark)), [command(pid) for pid in marked(mark)]
    finally:
        process.kill()
        process.communicate()
        kill(marked(mark))


def ports() -> tuple[object, ...]:
    return "--port", free_port(), "--admin-port", free_port()


def shows_every_row(text: str) -> bool:
    cells = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    first_column = " ".join(filter(None, cells))
    missing = [sample.title for sample in samples() if sample.title not in first_column]
    assert not missing
    return f"all {len(samples())} requests went where policy sends them" in text


def test_once_with_the_local_engine_shows_every_row_and_ends_well() -> None:
    with demo("--once", "--engine", "local", *ports()) as process:
        out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")
    assert shows_every_row(out)


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_the_ray_engine_serves_until_ctrl_c_and_leaves_nothing_behind() -> None:
    with demo("--engine", "ray", *ports()) as process:
        assert process.stdout is not None
        said = ""
        while "max_tokens" not in said:  # the last line of the invitation
            line = process.stdout.readline()
            assert line, said
            said += line
        assert shows_every_row(said)
        if shutil.which("curl"):
            printed = said[said.index("curl -i") :]
            got = subprocess.run(["bash", "-c", printed], capture_output=True, text=True, timeout=30, check=True)
            assert "HTTP/1.1 200 OK" in got.stdout
            assert "x-pointsman-backend: onprem-llm" in got.stdout
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out.endswith("stopped; no process of the demo is left\n")


@pytest.mark.parametrize(("engine", "after_s"), [pytest.param("ray", 4, marks=pytest.mark.ray), ("local", 0.3)])
def test_ctrl_c_while_it_starts_leaves_nothing_behind(engine: str, after_s: float) -> None:
    with demo("--engine", engine, *ports()) as process:
        time.sleep(after_s)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=40)
        assert process.returncode in (0, -signal.SIGINT)


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_port_that_is_taken_is_named_in_one_line(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with demo("--once", "--engine", "local", *ports(), option, port) as process:
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    reason = f"port {port} on 127.0.0.1 is in use: stop what holds it, or choose another with {option}"
    assert err.splitlines() == ["", f"the demo cannot run: {reason}"]
