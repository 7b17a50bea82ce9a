"""`pointsman serve`."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import sys
from pathlib import Path

from backends.errors import BackendError
from policies.errors import ConfigurationError
from router.configuration import Configuration
from router.decisionlog.writer import LogSettings
from router.loading import ConfigurationLoader
from router.settings import Settings


def run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    candidate = Path(arguments.candidate).absolute() if arguments.candidate else None
    loader = ConfigurationLoader(
        tuple(Path(path).absolute() for path in arguments.paths), dict(os.environ), not arguments.skip_tests, candidate
    )
    try:
        configuration = loader()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        print(f"\nnot started: {len(error.problems)} problem(s) in the configuration", file=sys.stderr)
        return 1
    for warning in configuration.warnings:
        print(warning, file=sys.stderr)
    settings = Settings(
        host=arguments.host,
        port=arguments.port,
        admin_port=arguments.admin_port,
        max_body_bytes=arguments.max_body,
        default_deadline_s=arguments.deadline,
        seed=arguments.seed,
        replicas=arguments.replicas,
        watch_interval_s=arguments.watch,
        decision_log=_log_settings(arguments),
    )
    if arguments.engine == "local" and settings.replicas > 1:
        print("pointsman serve: --replicas needs --engine ray", file=sys.stderr)
        return 2
    if not _is_loopback(settings.host):
        print(
            f"warning: listening on {settings.host}, and no API keys exist: whoever reaches these ports may use them",
            file=sys.stderr,
        )
    try:
        _run_engine(arguments.engine, configuration, loader, settings)
    except (OSError, BackendError) as error:
        print(f"not started: {error}", file=sys.stderr)
        return 1
    return 0


def _log_settings(arguments: argparse.Namespace) -> LogSettings | None:
    if arguments.decision_log is None:
        return None
    folder = Path(arguments.decision_log).absolute()
    return LogSettings(folder, arguments.decision_log_size, keep_files=arguments.decision_log_keep)


def _run_engine(engine: str, configuration: Configuration, loader: ConfigurationLoader, settings: Settings) -> None:
    def on_ready() -> None:
        base, admin = f"http://{settings.host}:{settings.port}", f"http://{settings.host}:{settings.admin_port}"
        print(f"pointsman is ready ({engine} engine, policy {configuration.policy.digest})")
        print(f"  data   {base}/v1  {base}/v2")
        print(f"  admin  {admin}/metrics  {admin}/readyz  {admin}/decisions", flush=True)

    if engine == "local":
        from router.engines import local

        local.run(configuration, loader, settings, on_ready)
    else:
        from router.engines import ray

        ray.run(configuration, loader, settings, on_ready, lambda line: print(f"{line} …", flush=True))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
