"""`pointsman serve`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from backends.errors import BackendError
from policies.errors import ConfigurationError
from router.configuration import Configuration
from router.credentials import digest
from router.decisionlog.writer import LogSettings
from router.ledgers.central import REDIS
from router.loading import ConfigurationLoader
from router.settings import Settings, is_loopback
from router.telemetry import logs

MIN_TOKEN = 16
"""Characters below which a token can be guessed."""


class Misuse(Exception):
    """What is wrong with the flags, in words for whoever gave them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the flags come to, in this environment."""

    loader: ConfigurationLoader
    settings: Settings


def run(arguments: argparse.Namespace) -> int:
    logs.configure(arguments.log_format, arguments.log_level)
    try:
        prepared = prepare(arguments)
    except Misuse as error:
        print(f"pointsman serve: {error}", file=sys.stderr)
        return 2
    loader, settings = prepared.loader, prepared.settings
    try:
        configuration = loader()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        print(f"\nnot started: {len(error.problems)} problem(s) in the configuration", file=sys.stderr)
        return 1
    for warning in configuration.warnings:
        print(warning, file=sys.stderr)
    if configuration.policy.tenants is None and not is_loopback(settings.host):
        print(
            f"warning: listening on {settings.host} without tenants: whoever reaches port {settings.port} may use it",
            file=sys.stderr,
        )
    try:
        _run_engine(arguments.engine, configuration, loader, settings)
    except (OSError, BackendError) as error:
        print(f"not started: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Reads the environment and the files of tokens, and no configuration yet. Raises Misuse."""
    if arguments.otlp_endpoint is not None and (wrong := _no_tracing()):
        raise Misuse(wrong)
    candidate = Path(arguments.candidate).absolute() if arguments.candidate else None
    tokens, wrong = _admin_tokens(arguments)
    if wrong:
        raise Misuse(wrong)
    ledger, wrong = _ledger(arguments)
    if wrong:
        raise Misuse(wrong)
    if arguments.port == arguments.admin_port:
        raise Misuse("--port and --admin-port must differ")
    if arguments.engine == "local" and arguments.replicas > 1:
        raise Misuse("--replicas needs --engine ray")
    anonymous = arguments.allow_anonymous or is_loopback(arguments.host)
    loader = ConfigurationLoader(
        tuple(Path(path).absolute() for path in arguments.paths),
        dict(os.environ),
        not arguments.skip_tests,
        candidate,
        "" if anonymous else arguments.host,
    )
    settings = Settings(
        host=arguments.host,
        port=arguments.port,
        admin_host=arguments.admin_host,
        admin_port=arguments.admin_port,
        admin_tokens=tokens,
        max_body_bytes=arguments.max_body,
        max_bodies_bytes=arguments.max_bodies,
        default_deadline_s=arguments.deadline,
        seed=arguments.seed,
        replicas=arguments.replicas,
        watch_interval_s=arguments.watch,
        drain_delay_s=arguments.drain_delay,
        drain_s=arguments.drain,
        decision_log=_log_settings(arguments),
        ledger=ledger,
        otlp_endpoint=arguments.otlp_endpoint,
        trace_share=arguments.trace_share,
        log_format=arguments.log_format,
        log_level=arguments.log_level,
    )
    return Prepared(loader, settings)


def _no_tracing() -> str:
    """What is missing for traces; "" where nothing is."""
    try:
        importlib.import_module("router.telemetry.tracing")
    except ModuleNotFoundError as error:
        return (
            f"--otlp-endpoint needs OpenTelemetry's exporter, and {error.name} is not installed: "
            "pip install 'pointsman[tracing]'"
        )
    return ""


def _admin_tokens(arguments: argparse.Namespace) -> tuple[tuple[bytes, ...], str]:
    """(digests, "") or ((), what is wrong). Only digests are kept; nothing said holds any part of a token."""
    variable, file = arguments.admin_token_env, arguments.admin_token_file
    if variable is None and file is None:
        if is_loopback(arguments.admin_host):
            return (), ""
        return (), (
            f"the admin API on {arguments.admin_host} needs a token: give --admin-token-env or --admin-token-file, or "
            "leave it on 127.0.0.1"
        )
    if variable is not None:
        text, where = os.environ.get(variable, ""), f"the environment variable {variable}"
    else:
        try:
            text, where = Path(file).read_text(), f"the file {file}"
        except (OSError, UnicodeDecodeError):
            return (), f"the file {file} of --admin-token-file cannot be read"
    tokens = [line.strip() for line in text.splitlines() if line.strip()]
    if not tokens:
        return (), f"{where} holds no admin token"
    if not all(len(token) >= MIN_TOKEN and token.isascii() and token.isprintable() for token in tokens):
        return (), f"{where} has an admin token of less than {MIN_TOKEN} characters, or one that no header can carry"
    return tuple(digest(token.encode()) for token in tokens), ""


def _ledger(arguments: argparse.Namespace) -> tuple[str | None, str]:
    """(a file's path or Redis's URL, "") or (None, what is wrong). Nothing said holds any part of a URL."""
    where = arguments.ledger
    if arguments.ledger_env is not None and not (where := os.environ.get(arguments.ledger_env)):
        return None, f"the environment variable {arguments.ledger_env} holds no ledger"
    if where is None or where.startswith(REDIS):
        return where, ""
    if "://" in where:
        return None, f"a ledger is a file's path, or a URL that begins with {', '.join(REDIS)}"
    return str(Path(where).absolute()), ""


def _log_settings(arguments: argparse.Namespace) -> LogSettings | None:
    if arguments.decision_log is None:
        return None
    folder = Path(arguments.decision_log).absolute()
    return LogSettings(folder, arguments.decision_log_size, keep_files=arguments.decision_log_keep)


def _run_engine(engine: str, configuration: Configuration, loader: ConfigurationLoader, settings: Settings) -> None:
    def on_ready() -> None:
        base, admin = f"http://{settings.host}:{settings.port}", f"http://{settings.admin_host}:{settings.admin_port}"
        print(f"pointsman is ready ({engine} engine, policy {configuration.policy.digest})")
        print(f"  data   {base}/v1  {base}/v2")
        print(f"  admin  {admin}/metrics  {admin}/readyz  {admin}/decisions", flush=True)

    if engine == "local":
        from router.engines import local

        local.run(configuration, loader, settings, on_ready)
    else:
        from router.engines.ray.run import run

        run(configuration, loader, settings, on_ready, lambda line: print(f"{line} …", flush=True))
