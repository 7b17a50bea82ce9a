"""The `pointsman` command. Exit status: 0 good, 1 the thing checked is bad, 2 misuse."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from router import __version__


def main(argv: Sequence[str] | None = None) -> int:
    # Only parsers are built here; each command imports what it needs when it runs.
    parser = argparse.ArgumentParser(
        prog="pointsman",
        description="Routes inference requests to edge, on-prem and cloud backends, as policy allows and prefers.",
    )
    parser.add_argument("--version", action="version", version=f"pointsman {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_serve, _check, _explain, _scan):
        add(commands)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe went away, such as `| head`
        sys.stderr.close()
        return 0


def _configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="fleet and policy files, or a folder that holds them (files named *_test.yaml are left out)",
    )


def _serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="run the router", description="Run the router until Ctrl-C.")
    _configuration(parser)
    parser.add_argument("--engine", choices=("ray", "local"), default="ray", help="default: ray")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8000, help="data API (default: 8000)")
    parser.add_argument("--admin-port", type=_port, default=8001, help="admin API (default: 8001)")
    parser.add_argument("--max-body", type=_size, default="32MiB", metavar="SIZE", help="default: 32MiB")
    parser.add_argument(
        "--deadline", type=_duration, default=60.0, metavar="SECONDS", help="for requests that give none (default: 60)"
    )
    parser.add_argument("--replicas", type=_count, default=1, help="router processes on this node (engine ray)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws that break ties (default: 0)")
    parser.set_defaults(run=_run_serve)


def _check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        help="check fleets and policies",
        description="Check every file by itself, and a folder's policies against its fleet. All problems are shown.",
    )
    _configuration(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=_run_check)


def _explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "explain",
        help="show where a request would go, and why",
        description="Show the whole decision for one request, by the code that serves. Nothing is sent.",
    )
    _configuration(parser)
    parser.add_argument("--request", metavar="FILE", help="YAML or JSON: facts, or path, headers and body; - for stdin")
    facts = parser.add_argument_group("facts of the request, instead of a file or over a file of facts")
    facts.add_argument("--model")
    facts.add_argument("--task")
    facts.add_argument("--tenant")
    facts.add_argument("--label", help="sensitivity level")
    facts.add_argument("--usage")
    facts.add_argument("--tokens-in", type=_count0)
    facts.add_argument("--tokens-out", type=_count0)
    facts.add_argument("--deadline-ms", type=_duration)
    facts.add_argument("--stream", action="store_true", default=None)
    facts.add_argument("--no-fallback", action="store_true", default=None)
    parser.add_argument("--now", type=_moment, metavar="TIME", help="as if it were then: 2026-04-01T09:00:00+09:00")
    parser.add_argument("--down", action="append", default=[], metavar="BACKEND", help="as if it were unavailable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the decision as one JSON object")
    parser.set_defaults(run=_run_explain)


def _scan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "scan",
        help="show what the detectors find in texts, and the label it gives them",
        description="Show the label and the entities of each text, one JSON object a line: types and places, never "
        "the text. A line is a text, or a JSON object with a field `text`.",
    )
    parser.add_argument("file", metavar="FILE", help="texts, one a line; - for stdin")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="PATH",
        help="a policy file, or a folder that holds one (may stand more than once); without: pii gives confidential, "
        "secrets give restricted",
    )
    parser.set_defaults(run=_run_scan)


def _run_serve(arguments: argparse.Namespace) -> int:
    from router.cli.serve import run

    return run(arguments)


def _run_check(arguments: argparse.Namespace) -> int:
    from router.cli.check import run

    return run(arguments)


def _run_explain(arguments: argparse.Namespace) -> int:
    from router.cli.explain import run

    return run(arguments)


def _run_scan(arguments: argparse.Namespace) -> int:
    from router.cli.scan import run

    return run(arguments)


# --- argument types -----------------------------------------------------------------------------------------------


def _number(text: str, low: float, high: float, what: str, kind: Callable[[str], Any] = int) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number


def _moment(text: str) -> float:
    from policies.calendar import moment

    try:
        return moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-04-01T09:00:00+09:00") from None


def _port(text: str) -> int:
    port: int = _number(text, 1, 65535, "a port from 1 to 65535")
    return port


def _count(text: str) -> int:
    count: int = _number(text, 1, 1e6, "a number from 1")
    return count


def _count0(text: str) -> int:
    count: int = _number(text, 0, 1e12, "a number from 0")
    return count


def _duration(text: str) -> float:
    duration: float = _number(text, 1e-6, 1e9, "a number over 0", float)
    return duration


def _size(text: str) -> int:
    units = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "B": 1, "": 1}
    unit = next(unit for unit in units if text.endswith(unit))
    size: float = _number(text.removesuffix(unit), 1e-3, 1e12, "a size such as 500KiB or 32MiB", float)
    return int(size * units[unit])
