"""The load: wrk, which takes little of the two cores for itself."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.tree import cpu_s

_SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer sk-benchmark"
{headers}
done = function(summary, latency, requests)
  io.write(string.format(
    '\\nRESULT {{"requests": %d, "duration_us": %d, "p50": %d, "p99": %d, "status": %d, "socket": %d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of one peer at one concurrency."""

    rps: float
    p50_us: float
    p99_us: float
    cpu_us: float  # of the peer's whole process tree, for each request
    errors: int  # answers other than 2xx or 3xx, and connections that failed


def script(folder: Path, body: Path, headers: dict[str, str]) -> Path:
    file = folder / "load.lua"
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    file.write_text(_SCRIPT.format(body=body, headers=lines))
    return file


def run(url: str, lua: Path, connections: int, seconds: float, pid: int | None) -> Pass:
    """`pid` is the root of the peer's tree; None measures no CPU."""
    before = cpu_s(pid) if pid is not None else 0.0
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(lua), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    used = (cpu_s(pid) if pid is not None else 0.0) - before
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found = json.loads(line.removeprefix("RESULT "))
    count = max(found["requests"], 1)
    return Pass(
        found["requests"] / (found["duration_us"] / 1e6), found["p50"], found["p99"], used / count * 1e6,
        found["status"] + found["socket"],
    )  # fmt: skip
