"""Pointsman as a peer, with everything on: 20 rules, 10 backends, the scan, metrics and the decision log."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from benchmarks.peers.tree import Process
from benchmarks.peers.upstream import MODEL

ROOT = Path(__file__).resolve().parents[2]


def configuration(folder: Path, upstream: int, protocol: str = "openai") -> Path:
    """A folder with fleet and policy: the last of 20 rules is the one that matches, every backend may be chosen, and
    all of them are the same upstream."""
    backends = [
        {
            "name": f"b{i}",
            "tier": ("edge", "onprem", "cloud")[i % 3],
            "region": ("jp-east", "eu-west-1", "us-east-1")[i % 3],
            "clearance": ("restricted", "confidential", "internal")[i % 3],
            "protocol": protocol,
            "url": f"http://127.0.0.1:{upstream}",
            "models": {MODEL: {"task": "chat", "quality": 0.5 + i / 100}},
            "price": {"input_per_mtok": 0.1 + i / 100, "output_per_mtok": 0.4},
            "latency": {"prior_ms": 20 + i},
            "limits": {"max_in_flight": 2048, "max_queued": 256},
        }
        for i in range(10)
    ]
    objective = {
        "latency": {"weight": 0.5, "target_ms": 200},
        "cost": {"weight": 0.4, "target_usd": 0.001},
        "carbon": {"weight": 0.1, "target_g": 1},
    }
    rules = [
        {
            "name": f"r{i}",
            "match": {"task": "chat", "tokens_in": {"gte": 100_000 + i}, "label": "internal"},
            "objective": objective,
        }
        for i in range(19)
    ]
    policy = {
        "apiVersion": "pointsman/v1",
        "kind": "Policy",
        "sensitivity": {
            "levels": ["public", "internal", "confidential", "restricted"],
            "default": "internal",
            "detectors": [
                {"use": "pii", "label": "confidential"},
                {"use": "secrets", "label": "restricted"},
                {"use": "keywords", "words": ["社外秘", "TOP SECRET"], "label": "confidential"},
            ],
        },
        "constraints": [
            {"name": f"c{i}", "match": {"usage": f"usage-{i}"}, "require": {"region": ["eu-*"]}} for i in range(3)
        ],
        "rules": [*rules, {"name": "everything-else", "objective": objective}],
    }
    config = folder / "pointsman"
    config.mkdir(exist_ok=True)
    fleet = {"apiVersion": "pointsman/v1", "kind": "Fleet", "backends": backends}
    (config / "fleet.yaml").write_text(yaml.safe_dump(fleet))
    (config / "policy.yaml").write_text(yaml.safe_dump(policy, allow_unicode=True))
    return config


def router(
    folder: Path, upstream: int, port: int, admin: int, engine: str, replicas: int = 1, *options: str
) -> Process:
    config = configuration(folder, upstream)
    command = [sys.executable, "-m", "router", "serve", str(config), "--engine", engine, "--watch", "0"]
    command += ["--port", str(port), "--admin-port", str(admin), *options]
    command += ["--decision-log", str(folder / f"log-{engine}")]
    if engine == "ray":
        command += ["--replicas", str(replicas)]
    return Process(command, f"http://127.0.0.1:{port}/readyz", folder / f"pointsman-{engine}.out",
                   {"PYTHONPATH": str(ROOT)})  # fmt: skip
