"""A rolling update of the replicas under load: Ray Serve starts new ones and lets the old ones drain.

The process (`python -m tests.chaos.rolling FOLDER PORT ADMIN_PORT`) runs the engine as the command does, and deploys it
anew for each line of input, with another seed, so that Serve takes it for a new version.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.configuration import Configuration
from router.demo.processes import free_port
from router.engines.ray import run as engine
from router.engines.ray.replica import Blueprint
from router.loading import ConfigurationLoader
from router.settings import Settings
from tests.chaos.load import Mix, Outcome, drive

FLEET = """apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: edge, tier: edge, region: jp, clearance: restricted, protocol: fake, models: {chat: {task: chat}},
     script: [{latency_ms: 20}], limits: {max_in_flight: 64, max_queued: 256}}
"""


@contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Two replicas that can be deployed anew, and their port."""
    (folder / "fleet.yaml").write_text(FLEET)
    port, admin = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.rolling", str(folder), str(port), str(admin)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr").open("w"),
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", (folder / "stderr").read_text()
        yield process, port
    finally:
        process.terminate()
        process.wait(60)


def updated(folder: Path, updates: int, rate: float, seconds: float, seed: int) -> list[Outcome]:
    """What became of requests while the replicas were replaced so often."""
    with served(folder) as (process, port):

        def beside() -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(updates):
                process.stdin.write("again\n")
                process.stdin.flush()
                process.stdout.readline()

        return drive(port, Mix(model="chat", deadline=0), rate=rate, seconds=seconds, seed=seed, beside=beside)


def main() -> None:
    folder, port, admin = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    loader = ConfigurationLoader((folder,), {})
    deploy = engine._deploy
    given: list[tuple[Configuration, Settings, Blueprint]] = []

    def remember(configuration: Configuration, settings: Settings, blueprint: Blueprint) -> None:
        given[:] = [(configuration, settings, blueprint)]
        deploy(configuration, settings, blueprint)

    def again() -> None:
        for _ in sys.stdin:
            configuration, settings, blueprint = given[0]
            other = dataclasses.replace(blueprint.settings, seed=blueprint.settings.seed + 1)
            remember(configuration, settings, dataclasses.replace(blueprint, settings=other))
            print("done", flush=True)

    def ready() -> None:
        print("ready", flush=True)
        threading.Thread(target=again, daemon=True).start()

    engine._deploy = remember
    engine.run(loader(), loader, Settings(port=port, admin_port=admin, replicas=2, drain_s=5.0), ready)


if __name__ == "__main__":
    main()
