"""What one decision costs: `decide` alone, on one core, by size of policy and fleet.

Run: make bench, or .venv/bin/python benchmarks/decide.py
"""

from __future__ import annotations

import platform
import statistics
import time

import yaml

from policies.compile import CompiledPolicy, compile_or_raise
from policies.decide import decide
from policies.source import parse
from policies.types import Request, Snapshot


def build(rules: int, backends: int, serving: int) -> CompiledPolicy:
    """A policy of which the last rule is the one that matches, and a fleet of which so many serve the model."""
    fleet = {
        "apiVersion": "pointsman/v1",
        "kind": "Fleet",
        "backends": [
            {
                "name": f"b{i}",
                "tier": ("edge", "onprem", "cloud")[i % 3],
                "region": ("jp-east", "eu-west-1", "us-east-1")[i % 3],
                "clearance": ("restricted", "confidential", "internal")[i % 3],
                "protocol": "openai",
                "url": f"http://127.0.0.1:{9000 + i}",
                "models": {"chat" if i < serving else f"other{i % 7}": {"task": "chat", "quality": 0.5 + i / 1000}},
                "price": {"input_per_mtok": 0.1 + i / 100, "output_per_mtok": 0.4},
                "latency": {"prior_ms": 100 + 7 * i},
            }
            for i in range(backends)
        ],
    }
    policy = {
        "apiVersion": "pointsman/v1",
        "kind": "Policy",
        "constraints": [
            {"name": f"c{i}", "match": {"tenant": f"t{i}-*"}, "require": {"region": ["eu-*"]}} for i in range(4)
        ]
        + [{"name": "all", "match": {"usage": "commercial"}, "require": {"tier": ["edge", "onprem"]}}],
        "rules": [
            {
                "name": f"r{i}",
                "match": {"tenant": f"tenant-{i}", "task": "chat", "tokens_in": {"lte": 1000}},
                "objective": {
                    "latency": {"weight": 0.5, "target_ms": 200},
                    "cost": {"weight": 0.4},
                    "quality": {"weight": 0.1},
                },
            }
            for i in range(rules)
        ],
    }
    documents, problems = parse(yaml.safe_dump_all([fleet, policy]), "benchmark.yaml", {})
    assert not problems
    return compile_or_raise(documents)


def measure(rules: int, backends: int, serving: int, label: int, rounds: int = 7) -> tuple[float, float]:
    """(compile ms, best-of-rounds µs per decide)."""
    begin = time.perf_counter()
    policy = build(rules, backends, serving)
    compiled_ms = (time.perf_counter() - begin) * 1e3
    snapshot = Snapshot((None,) * backends, tuple(i % 5 for i in range(backends)), (None,) * backends)
    request = Request("r-1", "chat", "chat", tenant=f"tenant-{rules - 1}", label=label, tokens_in=200, tokens_out=256)
    assert decide(request, snapshot, policy).chosen is not None
    count = max(50, 20_000 // (rules + backends))
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(count):
            decide(request, snapshot, policy)
        times.append((time.perf_counter() - begin) / count * 1e6)
    return compiled_ms, min(times) if rounds > 1 else statistics.fmean(times)


def main() -> None:
    print(f"python {platform.python_version()}, {platform.machine()}; best of 7 rounds, last rule matches\n")
    print(f"{'rules x backends':<18}{'serving':>8}  {'allowed':<20}{'compile ms':>11}{'decide µs':>11}{'ratio':>7}")
    first: dict[int, float] = {}
    for rules, backends, serving in ((20, 10, 10), (200, 10, 10), (20, 100, 100), (1000, 100, 100), (1000, 100, 10)):
        for label, allowed in ((1, "all backends"), (2, "two thirds of them")):
            compiled_ms, micros = measure(rules, backends, serving, label)
            ratio = micros / first.setdefault(label, micros)
            size = f"{rules} x {backends}"
            print(f"{size:<18}{serving:>8}  {allowed:<20}{compiled_ms:>11.1f}{micros:>11.1f}{ratio:>7.1f}")


if __name__ == "__main__":
    main()
