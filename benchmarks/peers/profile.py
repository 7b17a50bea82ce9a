"""Where a request's time goes: py-spy looks at the router while wrk keeps it busy.

Run: .venv/bin/pip install py-spy; .venv/bin/python -m benchmarks.peers.profile [seconds]

Each sample counts for the innermost of our own functions on the stack, so what the interpreter, uvloop, httptools, RE2
and the kernel take is part of whoever called them. The table goes to `benchmarks/results/profile.txt`.
"""

from __future__ import annotations

import collections
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import load, pointsman, upstream
from benchmarks.peers.peers import PATH
from router.demo.processes import free_port

PARTS = (
    ("router/http/", "listener: parse requests, write answers"),
    ("router/server.py", "listener: parse requests, write answers"),
    ("backends/", "upstream client: write requests, parse answers"),
    ("policies/sensitivity/", "scan and label"),
    ("router/wire/", "parse the body, take its texts"),
    ("router/hints.py", "parse the body, take its texts"),
    ("router/requests.py", "parse the body, take its texts"),
    ("policies/", "decide"),
    ("router/state.py", "state: snapshots, latencies, health"),
    ("router/health.py", "state: snapshots, latencies, health"),
    ("router/quantiles.py", "state: snapshots, latencies, health"),
    ("router/trend.py", "state: snapshots, latencies, health"),
    ("router/execute.py", "execute: attempts, time limits, places"),
    ("router/attempts.py", "execute: attempts, time limits, places"),
    ("router/alarm.py", "execute: attempts, time limits, places"),
    ("router/guard.py", "execute: attempts, time limits, places"),
    ("router/places.py", "execute: attempts, time limits, places"),
    ("router/allowance.py", "execute: attempts, time limits, places"),
    ("router/decisionlog/writer.py", "decision log: its thread"),
    ("router/decisionlog/", "decision log: the record"),
    ("router/recent.py", "decision log: the record"),
    ("router/telemetry/metrics.py", "metrics"),
    ("router/telemetry/tallies.py", "metrics"),
    ("router/", "the exchange and the service: everything between"),
)
_LOOP = "event loop, system calls and the interpreter, outside our functions"


def part(stack: list[str]) -> str:
    """Of a sample, outermost frame first."""
    for frame in reversed(stack):
        if "engines/local.py" in frame or "router/cli/" in frame:
            break
        for prefix, name in PARTS:
            if f"({prefix}" in frame or f"/{prefix}" in frame:
                return name
    return _LOOP


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        sys.exit("there is no py-spy here: .venv/bin/pip install py-spy")
    with tempfile.TemporaryDirectory() as name:
        folder, up, mine = Path(name), free_port(), free_port()
        lua = load.script(folder, upstream.write_body(folder), {})
        url = f"http://127.0.0.1:{mine}{PATH}"
        with upstream.answering(folder, up), pointsman.router(folder, up, mine, free_port(), "local") as process:
            load.run(url, lua, 64, 2, process.pid)
            raw = folder / "raw"
            command = [spy, "record", "-p", str(process.pid), "-d", str(seconds), "-r", "500", "--nonblocking"]
            spying = subprocess.Popen(
                [*command, "-f", "raw", "-o", str(raw)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            one = load.run(url, lua, 64, seconds + 1, process.pid)
            spying.wait()
        text = report(raw.read_text().splitlines(), one.cpu_us)
    target = pointsman.ROOT / "benchmarks" / "results" / "profile.txt"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    print(text)


def report(samples: list[str], cpu_us: float) -> str:
    parts: collections.Counter[str] = collections.Counter()
    functions: collections.Counter[str] = collections.Counter()
    for sample in samples:
        frames, _, count = sample.rpartition(" ")
        stack = frames.split(";")
        parts[part(stack)] += int(count)
        functions[stack[-1].rpartition(":")[0]] += int(count)
    total = sum(parts.values())
    lines = [f"{cpu_us:.0f} µs of CPU a request (64 clients, everything on), while it was looked at", ""]
    for name, count in parts.most_common():
        lines.append(f"{count / total:6.1%}  {count / total * cpu_us:5.0f} µs  {name}")
    lines += ["", "the functions in which most samples are:", ""]
    lines += [f"{count / total:6.1%}  {name})" for name, count in functions.most_common(30)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
