"""What `pointsman simulate` predicts of a change, and what comes of it: `make bench-simulate`.

For each change of policy: a router serves under the old policy and writes its decision log; the log is simulated under
the new one; then the same load is served under the new one. Two backends in processes of their own, whose answers take
longer the longer they are and the more of them there are at once; a client that does not wait for answers (open loop).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from router.demo.processes import free_port

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 40.0
RATE = 25.0
SHARE_CONFIDENTIAL = 0.2

SERVER = """
import asyncio, json, random, sys
base, per_token, places = float(sys.argv[1]), float(sys.argv[2]), asyncio.Semaphore(int(sys.argv[3]))
async def serve(reader, writer):
    rng = random.Random()
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = [line for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:")]
            if length:
                asked = json.loads(await reader.readexactly(int(length[0][15:])))
                tokens = max(1, int(asked["max_tokens"] * rng.uniform(0.3, 1.0)))
                async with places:
                    await asyncio.sleep((base + per_token * tokens) * rng.lognormvariate(0, 0.35) / 1000)
            else:
                tokens = 1
            body = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}}],
                               "usage": {"prompt_tokens": 40, "completion_tokens": tokens}}).encode()
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
FLEET = """
apiVersion: pointsman/v1
kind: Fleet
backends:
  - {{name: own, tier: onprem, region: jp, clearance: restricted, protocol: openai, url: "http://127.0.0.1:{own}",
     models: {{chat: {{task: chat, quality: 0.6}}}}, latency: {{prior_ms: 300}},
     limits: {{max_in_flight: 6, max_queued: 24}}, price: {{reserved_per_hour: 0.9, capacity_rps: 20}}}}
  - {{name: cloud, tier: cloud, region: us, clearance: internal, protocol: openai, url: "http://127.0.0.1:{cloud}",
     models: {{chat: {{task: chat, quality: 0.9}}}}, latency: {{prior_ms: 400}}, limits: {{max_in_flight: 64}},
     price: {{input_per_mtok: 0.5, output_per_mtok: 1.5}}}}
"""
HEAD = """
apiVersion: pointsman/v1
kind: Policy
sensitivity: {default: internal, detectors: [{use: keywords, words: [社外秘], label: confidential}]}
"""
CLOUD = HEAD + "rules: [{name: best, objective: {quality: {weight: 1}}, slo: {latency_ms: 500}}]\n"
CHANGES: Mapping[str, tuple[str, str]] = {
    "from the best answers to the cheapest": (
        CLOUD,
        HEAD + "rules: [{name: cheap, objective: {cost: {weight: 0.7, target_usd: 0.00005}, "
        "latency: {weight: 0.3, target_ms: 300}}, slo: {latency_ms: 500}}]\n",
    ),
    "one tenant's requests stay at home": (
        CLOUD.replace("rules:", "headers: [x-team]\nrules:"),
        CLOUD.replace(
            "rules:",
            "headers: [x-team]\nconstraints: [{name: home, match: {headers: {x-team: plant}}, require: {region: jp}}]\n"
            "rules:",
        ),
    ),
    "a budget for the cloud": (
        CLOUD,
        CLOUD + "budgets: [{name: cloud, backend: cloud, usd: 0.02, per: day, on_exhausted: reject}]\n",
    ),
}


@dataclass(frozen=True)
class Figures:
    answered: float
    cloud: float
    usd: float
    p50_ms: float
    p95_ms: float
    met: float

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Figures:
        total, tiers = report["total"], {row["name"]: row["answered"] for row in report["by"]["tier"]}
        return cls(
            total["answered"], tiers.get("cloud", 0) / max(total["answered"], 1), total["usd"], total["p50_ms"],
            total["p95_ms"], total["slo_attained"],
        )  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.answered:>9,.0f}{self.cloud:>8.1%}{self.usd:>10.4f}{self.p50_ms:>8.0f}{self.p95_ms:>8.0f}"
            f"{self.met:>8.1%}"
        )


def pointsman(*arguments: object) -> Any:
    command = [sys.executable, "-m", "router", *map(str, arguments)]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False).stdout)


@contextlib.contextmanager
def running(*command: object) -> Any:
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


async def load(port: int) -> None:
    """The same requests at the same times, every time."""
    rng, tasks = random.Random(7), list[asyncio.Task[None]]()

    async def ask(client: aiohttp.ClientSession, text: str, tokens: int, team: str) -> None:
        body = {"model": "chat", "max_tokens": tokens, "messages": [{"role": "user", "content": text}]}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with client.post(url, json=body, headers={"x-team": team}) as answer:
            await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        due = began = time.perf_counter()
        while due - began < SECONDS:
            due += rng.expovariate(RATE)
            text = "社外秘の見積もり" if rng.random() < SHARE_CONFIDENTIAL else "手順を教えて"
            facts = text, rng.choice((20, 60, 200)), rng.choice(("plant", "sales", "sales"))
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(ask(client, *facts)))
        await asyncio.gather(*tasks)


def served(folder: Path, log: Path) -> None:
    port = free_port()
    options = ("--engine", "local", "--port", port, "--admin-port", free_port(), "--decision-log", log, "--watch", 0)
    with running("-m", "router", "serve", folder, *options) as router:
        while "pointsman is ready" not in (line := router.stdout.readline()):
            if not line:
                raise SystemExit("the router did not start")
        asyncio.run(load(port))


def main() -> None:
    print(f"{RATE:g} requests/s for {SECONDS:g} s, two backends; each change is predicted, then made\n")
    columns = f"{'answered':>9}{'cloud':>8}{'USD':>10}{'p50 ms':>8}{'p95 ms':>8}{'met':>8}"
    for change, (old, new) in CHANGES.items():
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            servers = [stack.enter_context(running("-c", SERVER, *facts)) for facts in ((80, 1.5, 6), (150, 2.0, 64))]
            own, cloud = (server.stdout.readline().strip() for server in servers)
            for name, policy in (("old", old), ("new", new)):
                (folder / name).mkdir()
                (folder / name / "fleet.yaml").write_text(FLEET.format(own=own, cloud=cloud))
                (folder / name / "policy.yaml").write_text(policy)
                if name == "old":
                    served(folder / "old", folder / "old-log")
            told = pointsman("simulate", folder / "old", folder / "new", "--log", folder / "old-log", "--json")
            served(folder / "new", folder / "new-log")
            made = pointsman("report", folder / "new-log", "--json")
        print(f"{change} ({told['as_it_was']:.1%} of the old decisions come out again)\n{'':<18}{columns}")
        for name, report in (("as it was", told["runs"]["as_it_was"]), ("old, simulated", told["runs"]["old"]),
                             ("new, predicted", told["runs"]["new"]), ("new, as it came", made)):  # fmt: skip
            print(f"{name:<18}{Figures.of(report)}")
        print(flush=True)


if __name__ == "__main__":
    main()
