"""Run: make bench, or .venv/bin/python -m benchmarks.peers [--quick] [--only NAME …] [--write]

Each peer alone in turn, in rounds, in front of the same upstream, with the same body. The medians of the rounds go to
`benchmarks/results/latest.json` (its keys: benchmarks/README.md), and with `--write` into the table there.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers import alone, extras, load, report, upstream
from benchmarks.peers.install import NotHere, program
from benchmarks.peers.peers import PATH, PEERS, QUICK, Peer, World, works
from benchmarks.peers.tree import DidNotStart, rss_mib
from router.demo.processes import free_port

CLIENTS = (1, 16, 64)
COMPARED = ("nginx", "vllm-router", "pointsman-local", "pointsman-ray")
"""Measured in every round; the others once."""
SLOW = ("litellm", "portkey", "ray-serve-noop", "ray-serve-forwarding")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Pointsman beside other routers.")
    parser.add_argument("--quick", action="store_true", help="four peers, short passes: under four minutes")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these peers only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    arguments = parser.parse_args()
    for name in ("nginx", "wrk"):
        try:
            program(name)
        except NotHere as error:
            sys.exit(f"{error}: nothing can be measured without it")
    began = time.time()
    wanted = arguments.only or (QUICK if arguments.quick else [peer.name for peer in PEERS])
    rounds = min(arguments.rounds, 2) if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as folder:
        results = _measure(Path(folder), [peer for peer in PEERS if peer.name in wanted], rounds, arguments.quick)
    results["took_s"] = round(time.time() - began)
    report.save(results)
    print(report.table(results))
    if arguments.write:
        report.write(results)


def _measure(folder: Path, peers: list[Peer], rounds: int, quick: bool) -> dict[str, Any]:
    port = free_port()
    world = World(folder, port)
    passes: dict[str, dict[int, list[load.Pass]]] = {}
    memory: dict[str, float] = {}
    skipped: dict[str, str] = {}
    with upstream.answering(folder, port):
        for number in range(rounds):
            for peer in peers:
                if peer.name in skipped or (number and peer.name not in COMPARED):
                    continue
                try:
                    found, memory[peer.name] = _one(peer, world, 2.0 if quick else 3.0)
                except (NotHere, DidNotStart) as error:
                    skipped[peer.name] = str(error).strip().splitlines()[-1]
                    print(f"{peer.name:<22} SKIPPED: {skipped[peer.name]}", flush=True)
                    continue
                for clients, one in found.items():
                    passes.setdefault(peer.name, {}).setdefault(clients, []).append(one)
                    wrong = f"  {one.errors} ERRORS" if one.errors else ""
                    print(
                        f"{peer.name:<22} c={clients:<3} {one.rps:>8.0f}/s  p50 {one.p50_us:>8.0f} µs  "
                        f"p99 {one.p99_us:>8.0f} µs  CPU {one.cpu_us:>8.1f} µs{wrong}",
                        flush=True,
                    )
    results: dict[str, Any] = {
        "machine": {"cpus": os.cpu_count(), "arch": platform.machine(), "python": platform.python_version()},
        "rounds": rounds, "body_bytes": (folder / "body.json").stat().st_size,
        "peers": {name: _medians(found, memory[name]) for name, found in passes.items()}, "skipped": skipped,
    }  # fmt: skip
    results["ratios"] = report.ratios(results["peers"])
    sections = {
        "streaming": lambda: extras.streaming(folder, quick), "connections": lambda: extras.connections(folder),
        "tensors": lambda: extras.tensors(folder), "decide": alone.decisions, "scan": alone.scanning,
    }  # fmt: skip
    if not quick:
        sections |= {
            "growth": lambda: extras.growth(folder), "startup": lambda: extras.startup(folder),
            "onnx": alone.onnx,
        }  # fmt: skip
    for name, section in sections.items():
        print(f"… {name}", flush=True)
        results[name] = section()
    return results


def _one(peer: Peer, world: World, seconds: float) -> tuple[dict[int, load.Pass], float]:
    """A pass at each number of clients, and MiB at rest."""
    port = free_port()
    slow = peer.name in SLOW
    with peer.start(world, port) as process:
        headers = dict(peer.headers(world))
        url = f"http://127.0.0.1:{port}{PATH}"
        if wrong := works(url, headers):
            raise DidNotStart(wrong)
        rest = rss_mib(process.pid)
        lua = load.script(world.folder, upstream.write_body(world.folder), headers)
        load.run(url, lua, 64, 2 if slow else 1, process.pid)
        return {clients: load.run(url, lua, clients, seconds, process.pid) for clients in CLIENTS}, rest


def _medians(found: dict[int, list[load.Pass]], rest_mib: float) -> dict[str, Any]:
    medians: dict[str, Any] = {
        f"c{clients}": {
            name: round(statistics.median([asdict(one)[name] for one in passes]), 1)
            for name in ("rps", "p50_us", "p99_us", "cpu_us", "errors")
        }
        for clients, passes in found.items()
    }
    return medians | {"rest_mib": round(rest_mib, 1)}


if __name__ == "__main__":
    main()
