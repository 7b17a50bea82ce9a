"""What one figure a peer does not tell: streams, tensors, memory, many connections."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.peers import client, load, pointsman, upstream
from benchmarks.peers.install import NotHere
from benchmarks.peers.peers import PATH, PEERS, World
from benchmarks.peers.tree import Process, cpu_s, rss_mib
from router.demo.processes import free_port

STREAMS = 1024


def _slow(folder: Path, port: int) -> Process:
    script = Path(__file__).with_name("slow_upstream.py")
    return Process([sys.executable, str(script), str(port)], f"http://127.0.0.1:{port}/v2", folder / "slow.out")


def streaming(folder: Path, quick: bool) -> dict[str, Any]:
    """Time to the first event that each adds, one stream at a time; and CPU for each event, 64 streams at a time."""
    found: dict[str, Any] = {}
    port = free_port()
    with _slow(folder, port):
        world = World(folder, port)
        direct = uvloop.run(_first_events(port, quick))
        for name in ("nginx", "vllm-router", "pointsman-local"):
            try:
                found[name] = _streamed(name, world, direct, quick)
            except NotHere:
                continue
        found["direct_ttft_us"] = round(direct * 1e6, 1)
    return found


def _streamed(name: str, world: World, direct_s: float, quick: bool) -> dict[str, Any]:
    mine = free_port()
    with _start(name, world, mine) as process:
        uvloop.run(_first_events(mine, True))
        added = uvloop.run(_first_events(mine, quick)) - direct_s
        before = cpu_s(process.pid)
        events, errors = uvloop.run(_many(mine, 64, 100 if quick else 300, 5))
        used = cpu_s(process.pid) - before
        # The same streams without events between the first and the last: what is left is the events' own.
        before = cpu_s(process.pid)
        uvloop.run(_many(mine, 64, 1, 5))
        around = cpu_s(process.pid) - before
    return {
        "added_ttft_us": round(added * 1e6, 1), "cpu_us_per_event": round((used - around) / events * 1e6, 2),
        "errors": errors,
    }  # fmt: skip


def _start(name: str, world: World, port: int) -> Process:
    if name == "nginx":
        return upstream.proxying(world.folder, port, world.upstream, buffering=False)
    return next(peer for peer in PEERS if peer.name == name).start(world, port)


async def _first_events(port: int, quick: bool) -> float:
    """Median seconds to the first event."""
    body = client.stream_body(2, 1)
    return statistics.median([(await client.stream(port, body)).first_s for _ in range(100 if quick else 400)])


async def _many(port: int, streams: int, events: int, pause_ms: float) -> tuple[int, int]:
    """(events seen, streams that did not come to their end)"""
    body = client.stream_body(events, pause_ms)
    seen = await asyncio.gather(*(client.stream(port, body) for _ in range(streams)))
    return sum(one.events for one in seen), sum(not one.whole or one.status != 200 for one in seen)


def connections(folder: Path) -> dict[str, Any]:
    """1,024 streams at once: errors, and the memory that each takes."""
    port = free_port()
    with _slow(folder, port):
        mine = free_port()
        with pointsman.router(folder, port, mine, free_port(), "local") as process:
            uvloop.run(_many(mine, 16, 3, 5))
            rest = rss_mib(process.pid)
            (_, errors), peak = uvloop.run(_watched(lambda: _many(mine, STREAMS, 60, 100), process.pid, 0.25))
            after = rss_mib(process.pid)
    each = (peak - rest) * 1024 / STREAMS
    return {
        "streams": STREAMS, "errors": errors, "rss_rest_mib": round(rest, 1), "rss_peak_mib": round(peak, 1),
        "rss_after_mib": round(after, 1), "kib_per_stream": round(each, 1),
    }  # fmt: skip


def growth(folder: Path) -> dict[str, Any]:
    """Requests a second and latency as clients become more."""
    found: dict[str, Any] = {}
    lua = load.script(folder, upstream.write_body(folder), {})
    up, mine = free_port(), free_port()
    with upstream.answering(folder, up), pointsman.router(folder, up, mine, free_port(), "local") as process:
        url = f"http://127.0.0.1:{mine}{PATH}"
        load.run(url, lua, 64, 1, process.pid)
        for clients in (1, 4, 16, 64, 256, 1024):
            one = load.run(url, lua, clients, 3, process.pid)
            found[str(clients)] = {
                "rps": round(one.rps), "p50_us": one.p50_us, "p99_us": one.p99_us, "cpu_us": round(one.cpu_us, 1),
                "errors": one.errors, "rss_mib": round(rss_mib(process.pid), 1),
            }  # fmt: skip
    return found


def tensors(folder: Path, mib: int = 10, requests: int = 40) -> dict[str, Any]:
    """Binary tensors of so many MiB, four at a time: CPU, and memory for each in flight."""
    port, mine = free_port(), free_port()
    config = _tensor_fleet(folder, port)
    command = [sys.executable, "-m", "router", "serve", str(config), "--engine", "local", "--watch", "0"]
    command += ["--port", str(mine), "--admin-port", str(free_port())]
    ready = f"http://127.0.0.1:{mine}/readyz"
    with _slow(folder, port), Process(command, ready, folder / "tensors.out", cwd=pointsman.ROOT) as process:
        uvloop.run(_tensors(mine, mib, 4, 1))
        rest, before, began = rss_mib(process.pid), cpu_s(process.pid), time.perf_counter()
        errors, peak = uvloop.run(_watched(lambda: _tensors(mine, mib, 4, requests // 4), process.pid, 0.01))
        took, used = time.perf_counter() - began, cpu_s(process.pid) - before
    return {
        "mib": mib, "requests": requests, "errors": errors, "rps": round(requests / took, 1),
        "cpu_ms": round(used / requests * 1000, 2), "mib_in_flight_each": round((peak - rest) / 4, 1),
    }  # fmt: skip


async def _tensors(port: int, mib: int, beside: int, each: int) -> int:
    async def some() -> int:
        return sum([(await client.tensor(port, mib)).status != 200 for _ in range(each)])

    return sum(await asyncio.gather(*(some() for _ in range(beside))))


async def _watched(work: Callable[[], Any], pid: int, every_s: float) -> tuple[Any, float]:
    """What comes of the work, and the most MiB that the process had meanwhile."""
    task, peak = asyncio.ensure_future(work()), 0.0
    while not task.done():
        peak = max(peak, rss_mib(pid))
        await asyncio.sleep(every_s)
    return task.result(), peak


def _tensor_fleet(folder: Path, port: int) -> Path:
    config = folder / "tensors"
    config.mkdir(exist_ok=True)
    (config / "fleet.yaml").write_text(
        "apiVersion: pointsman/v1\nkind: Fleet\nbackends:\n  - name: one\n    tier: onprem\n    region: jp\n"
        f"    protocol: oip\n    clearance: restricted\n    url: http://127.0.0.1:{port}\n"
        "    models: {t: {task: tensor}}\n"
    )
    return config


def startup(folder: Path) -> dict[str, Any]:
    """Seconds until each engine is ready, and for `pointsman check`; the best of three (Ray: of one)."""
    import subprocess

    found: dict[str, Any] = {}
    config = pointsman.configuration(folder, free_port())
    up = free_port()
    with upstream.answering(folder, up):
        for engine, times in (("local", 3), ("ray", 1)):
            ready = []
            for _ in range(times):
                with pointsman.router(folder, up, free_port(), free_port(), engine) as process:
                    ready.append(process.ready_s)
            found[f"{engine}_ready_s"] = round(min(ready), 2)
    checks = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "router", "check", str(config)], cwd=pointsman.ROOT, check=True,
                       capture_output=True)  # fmt: skip
        checks.append(time.perf_counter() - began)
    found["check_s"] = round(min(checks), 2)
    return found
