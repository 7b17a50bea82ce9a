"""What traces cost: the same router without them and with them, for a share of 1 and of 0.01, under the same load.

Run: .venv/bin/python -m benchmarks.tracing [--seconds 5] [--passes 5] [--before FOLDER]   (needs nginx and wrk)

CPU of the router's process for each request, exporting included, with everything on that `make bench` has on; the
median of the passes, which are interleaved. The upstream and the collector are nginx, which answers at once. FOLDER is
another checkout to compare with, such as one from before a change.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.peers import load, upstream
from benchmarks.peers.pointsman import ROOT, configuration
from benchmarks.peers.tree import Process
from router.demo.processes import free_port

PATH = "/v1/chat/completions"
CONNECTIONS = 32
HEADS = ("traces", "µs/request", "from", "to", "more", "req/s", "p99 ms")


def serve(folder: Path, name: str, checkout: Path, config: Path, options: list[str]) -> tuple[Process, str]:
    port = free_port()
    command = [sys.executable, "-m", "router", "serve", str(config), "--engine", "local", "--watch", "0"]
    command += ["--port", str(port), "--admin-port", str(free_port()), "--decision-log", str(folder / f"{name}-log")]
    url = f"http://127.0.0.1:{port}"
    environment = {"PYTHONPATH": str(checkout)}
    return Process([*command, *options], f"{url}/readyz", folder / f"{name}.out", environment, checkout), url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--before", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        answers, collects = free_port(), free_port()
        stack.enter_context(upstream.answering(folder, answers))
        stack.enter_context(upstream.answering(folder, collects, "collector"))
        config = configuration(folder, answers)
        lua = load.script(folder, upstream.write_body(folder), {"content-type": "application/json"})
        collector = ["--otlp-endpoint", f"http://127.0.0.1:{collects}"]
        kinds: dict[str, tuple[Path, list[str]]] = {
            "off": (ROOT, []),
            "off, again": (ROOT, []),  # what the machine itself makes of the same
            "share 0.01": (ROOT, [*collector, "--trace-share", "0.01"]),
            "share 1": (ROOT, collector),
        }
        if arguments.before is not None:
            kinds = {"before": (arguments.before.absolute(), []), **kinds}
        served = {}
        for kind, (checkout, options) in kinds.items():
            process, url = serve(folder, kind.replace(" ", "-"), checkout, config, options)
            served[kind] = stack.enter_context(process), url
            load.run(url + PATH, lua, CONNECTIONS, 1, None)
        passes: dict[str, list[load.Pass]] = {kind: [] for kind in kinds}
        for _ in range(arguments.passes):
            for kind, (process, url) in served.items():
                passes[kind].append(load.run(url + PATH, lua, CONNECTIONS, arguments.seconds, process.pid))
    print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
    off = statistics.median(one.cpu_us for one in passes["off"])
    for kind, found in passes.items():
        errors = sum(one.errors for one in found)
        assert errors == 0, f"{kind}: {errors} errors"
        cpu = [one.cpu_us for one in found]
        cells = [kind, f"{statistics.median(cpu):.1f}", f"{min(cpu):.1f}", f"{max(cpu):.1f}"]
        cells += [f"{statistics.median(cpu) - off:+.1f}", f"{statistics.median(one.rps for one in found):,.0f}"]
        cells += [f"{statistics.median(one.p99_us for one in found) / 1000:.1f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
