"""A brown-out, with and without hedging: one of three backends is 20 times slower, always or now and then.

Run: .venv/bin/python benchmarks/hedging.py. A router process and three backend processes on loopback; open-loop load at
a fixed rate, so that a slow answer does not slow the next request down. Reports the latency that clients see and the
share of requests that were sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from router.demo.processes import free_port

USUAL_MS, SLOW_MS = 25, 500
RATE, REQUESTS, WARM_UP = 60.0, 1500, 300

SERVER = """
import asyncio, json, random, sys
usual, slow, share = (float(a) for a in sys.argv[1:])
async def serve(reader, writer):
    rng = random.Random()
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = [l for l in head.lower().split(b"\\r\\n") if l.startswith(b"content-length:")]
            if length:
                await reader.readexactly(int(length[0][15:]))
                await asyncio.sleep((slow if rng.random() < share else usual) * rng.uniform(0.9, 1.1) / 1000)
            body = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"ok"}}]}'
            head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\n"
            writer.write(head + b"content-length: %d\\r\\n\\r\\n%s" % (len(body), body))
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

POLICY = """
apiVersion: pointsman/v1
kind: Policy
sensitivity: {{default: public}}
rules:
  - name: spread
    split: {{weights: {{a: 1, b: 1, c: 1}}}}
    {strategy}
"""


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(15)


async def ask(port: int) -> float:
    """Milliseconds to a whole answer, on a connection of its own."""
    body = b'{"model":"chat","messages":[{"role":"user","content":"hello"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"content-length: %d\r\n\r\n%s" % (len(body), body))
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer[:300].decode(errors="replace"))
    return (time.perf_counter() - began) * 1e3


async def load(port: int, count: int) -> list[float]:
    rng, tasks = random.Random(1), []
    due = time.perf_counter()
    for _ in range(count):
        due += rng.expovariate(RATE)
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(ask(port)))
    return list(await asyncio.gather(*tasks))


def extra(admin: int) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics").read().decode()
    return sum(float(n) for n in re.findall(r'^pointsman_attempts_total\{.*kind="hedge".*\} (\S+)$', text, re.M))


def measure(share: float, strategy: str) -> tuple[float, float, float, float]:
    """(p50, p99, p99.9 in ms, share of requests sent twice)."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        backends = []
        for name in "abc":
            slow = share if name == "c" else 0.0
            server = stack.enter_context(
                running([sys.executable, "-c", SERVER, str(USUAL_MS), str(SLOW_MS), str(slow)])
            )
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            backends.append(
                {"name": name, "tier": "cloud", "region": "x", "protocol": "openai", "url": url,
                 "latency": {"prior_ms": 50}, "models": {"chat": {"task": "chat"}}}
            )  # fmt: skip
        fleet = {"apiVersion": "pointsman/v1", "kind": "Fleet", "backends": backends}
        (folder / "fleet.yaml").write_text(json.dumps(fleet))
        (folder / "policy.yaml").write_text(POLICY.format(strategy=strategy))
        port, admin = free_port(), free_port()
        command = [
            sys.executable,
            "-c",
            "import sys; from router.cli import main; sys.exit(main(sys.argv[1:]))",
            "serve",
        ]
        stack.enter_context(
            running([*command, str(folder), "--engine", "local", "--port", str(port), "--admin-port", str(admin)])
        )
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz").read()
                break
            time.sleep(0.05)
        asyncio.run(load(port, WARM_UP))
        before = extra(admin)
        found = sorted(asyncio.run(load(port, REQUESTS)))
        twice = (extra(admin) - before) / REQUESTS
    at = [found[min(int(len(found) * q), len(found) - 1)] for q in (0.5, 0.99, 0.999)]
    return at[0], at[1], at[2], twice


def main() -> None:
    print(f"three backends of {USUAL_MS} ms, one of them {SLOW_MS // USUAL_MS} times slower; {RATE:g} requests/s\n")
    columns = f"{'p50 ms':>8}{'p99 ms':>8}{'p99.9':>8}{'sent twice':>12}{'p99 ratio':>11}"
    print(f"{'one backend is slow':<22}{'hedging':<26}{columns}")
    for share, quantile, cap in ((1.0, 0.95, 0.4), (0.05, 0.95, 0.05)):
        plain = 0.0
        for strategy in ("", f"strategy: {{hedge: {{after_quantile: {quantile}, max_extra_load: {cap}}}}}"):
            p50, p99, last, twice = measure(share, strategy)
            plain = plain or p99
            told = f"after q{quantile:g}, cap {cap:.0%}" if strategy else "none"
            print(
                f"{f'{share:.0%} of its answers':<22}{told:<26}{p50:>8.0f}{p99:>8.0f}{last:>8.0f}{twice:>12.1%}"
                f"{p99 / plain:>11.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
