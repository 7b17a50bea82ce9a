"""The `pointsman` command. Exit status: 0 good, 1 the thing checked is bad, 2 misuse."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from router import __version__
from router.cli import rehearsals
from router.cli.arguments import (
    WHEN,
    ago,
    base_url,
    count,
    count0,
    duration,
    load,
    moment,
    pair,
    percent,
    port,
    seconds0,
    share,
    size,
)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = command_line().parse_args(argv)
    try:
        command = importlib.import_module(f"router.cli.{arguments.module}")
        status: int = command.run(arguments)
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe went away, such as `| head`
        sys.stderr.close()
        return 0


def command_line(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of everything. A command's module is imported when it runs, and with it what it needs."""
    parser = kind(
        prog="pointsman",
        description="Routes inference requests to edge, on-prem and cloud backends, as policy allows and prefers.",
    )
    parser.add_argument("--version", action="version", version=f"pointsman {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    tried = rehearsals.diff, rehearsals.simulate, rehearsals.tune
    for add in (_serve, _drain, _check, _explain, _test, *tried, _report, _top, _scan, _log, _key, _schema):
        add(commands)
    return parser


def _configuration(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    parser.add_argument(
        "paths",
        nargs=nargs,
        metavar="PATH",
        help="fleet and policy files, or a folder that holds them (files named *_test.yaml are left out)",
    )


def _serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="run the router", description="Run the router until Ctrl-C.")
    _configuration(parser)
    parser.add_argument("--engine", choices=("ray", "local"), default="ray", help="what runs the router (default: ray)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=8000, help="data API (default: 8000)")
    parser.add_argument(
        "--allow-anonymous", action="store_true", help="listen beyond this machine without a Tenants document"
    )
    parser.add_argument("--admin-host", default="127.0.0.1", help="address of the admin API (default: 127.0.0.1)")
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument(
        "--admin-token-env", metavar="NAME", help="variable that holds the admin API's tokens, one a line"
    )
    tokens.add_argument("--admin-token-file", metavar="FILE", help="file that holds them")
    parser.add_argument("--admin-port", type=port, default=8001, help="admin API (default: 8001)")
    parser.add_argument(
        "--max-body", type=size, default="32MiB", metavar="SIZE", help="largest request body (default: 32MiB)"
    )
    parser.add_argument(
        "--max-bodies", type=size, default="1GiB", metavar="SIZE",
        help="request bodies held at once, of all requests together (default: 1GiB)",
    )  # fmt: skip
    parser.add_argument(
        "--deadline", type=duration, default=60.0, metavar="SECONDS", help="for requests that give none (default: 60)"
    )
    parser.add_argument(
        "--replicas", type=count, default=1, help="router processes on this node, engine ray only (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws that break ties (default: 0)")
    parser.add_argument(
        "--watch", type=seconds0, default=1.0, metavar="SECONDS",
        help="how often to look for changed files (default: 1; 0: reload on SIGHUP or POST /reload only)",
    )  # fmt: skip
    parser.add_argument(
        "--drain-delay", type=seconds0, default=0.0, metavar="SECONDS",
        help="how long to go on taking requests once told to stop, until nobody sends them here any more (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--drain", type=seconds0, default=10.0, metavar="SECONDS",
        help="how long requests in progress may take after that (default: 10)",
    )  # fmt: skip
    parser.add_argument("--skip-tests", action="store_true", help="go live even where the *_test.yaml beside it fail")
    parser.add_argument(
        "--candidate", metavar="FILE", help="a policy to decide beside the live one; differences are counted and logged"
    )
    parser.add_argument("--decision-log", metavar="FOLDER", help="write a record of every decision there")
    parser.add_argument(
        "--decision-log-size", type=size, default="64MiB", metavar="SIZE", help="of a file (default: 64MiB)"
    )
    parser.add_argument(
        "--decision-log-keep", type=count0, default=0, metavar="N", help="keep the latest N files (default: all)"
    )
    ledger = parser.add_mutually_exclusive_group()
    ledger.add_argument(
        "--ledger", metavar="PATH|URL",
        help="where budgets and limits are kept: a file, or Redis (redis://HOST:PORT/NUMBER) that others share "
        "(default: in memory, shared by the replicas of this router)",
    )  # fmt: skip
    ledger.add_argument("--ledger-env", metavar="NAME", help="variable that holds the URL, for one with a password")
    parser.add_argument(
        "--otlp-endpoint", type=base_url, metavar="URL",
        help="send traces to this OpenTelemetry collector, to URL/v1/traces (default: no traces)",
    )  # fmt: skip
    parser.add_argument(
        "--trace-share", type=share, default=1.0, metavar="SHARE",
        help="of the requests that are traced, 0 to 1; where the caller has decided that, it holds (default: 1)",
    )  # fmt: skip
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="of log lines (default: text)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="warning",
        help="of the router's own log lines; PUT /log-level changes it (default: warning)",
    )  # fmt: skip
    parser.set_defaults(module="serve")


def _drain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "drain",
        help="prepare the router on this machine for its end",
        description="Have the router of an admin port, with all its replicas on that machine, say that it is not "
        "ready, and wait until nobody sends it requests and those in progress have ended: for a preStop hook. Where "
        "no router listens there is nothing to do.",
    )
    _admin_api(parser)
    parser.add_argument(
        "--timeout", type=duration, default=600.0, metavar="SECONDS", help="for its answer (default: 600)"
    )
    parser.set_defaults(module="drain")


def _admin_api(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", nargs="?", default="http://127.0.0.1:8001", metavar="URL",
        help="its admin port (default: http://127.0.0.1:8001)",
    )  # fmt: skip
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--token-env", metavar="NAME", help="variable that holds the admin API's token")
    token.add_argument("--token-file", metavar="FILE", help="file that holds it")


def _check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        help="check fleets and policies",
        description="Check every file by itself, and a folder's policies against its fleet. All problems are shown.",
    )
    _configuration(parser, nargs="*")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--explain", metavar="CODE", help="what a warning such as PM101 means, and what to do")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(module="check")


def _explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "explain",
        help="show where a request would go, and why",
        description="Show the whole decision for one request, by the code that serves. Nothing is sent.",
    )
    _configuration(parser)
    parser.add_argument("--request", metavar="FILE", help="YAML or JSON: facts, or path, headers and body; - for stdin")
    facts = parser.add_argument_group("facts of the request, instead of a file or over a file of facts")
    facts.add_argument("--model", help="the model's name, as clients use it")
    facts.add_argument("--task", help="default: the model's own")
    facts.add_argument("--tenant", help="default: anonymous")
    facts.add_argument("--label", help="sensitivity level (default: the policy's)")
    facts.add_argument("--usage", help="what the answer is for, as in x-usage")
    facts.add_argument("--tokens-in", type=count0, help="default: 0")
    facts.add_argument("--tokens-out", type=count0, help="default: 256")
    facts.add_argument("--deadline-ms", type=duration, help="default: none")
    facts.add_argument("--stream", action="store_true", default=None)
    facts.add_argument("--no-fallback", action="store_true", default=None)
    facts.add_argument("--route", help="path that is called (default: the usual one of the task)")
    facts.add_argument("--session", help="as in x-session-id")
    facts.add_argument("--caller-region", help="as in x-caller-region")
    facts.add_argument("--entity", dest="entities", action="append", metavar="TYPE", help="found in it; repeatable")
    facts.add_argument("--masked-label", help="level it would have once pseudonymised (default: it cannot be)")
    for name, what in (("header", "a header that the policy allows"), ("request-label", "a label of the request")):
        facts.add_argument(
            f"--{name}", dest=f"{name.removeprefix('request-')}s", action="append", type=pair, metavar="NAME=VALUE",
            help=f"{what}; repeatable",
        )  # fmt: skip
    parser.add_argument("--replay", metavar="ID", help="a logged decision, made again from its record")
    parser.add_argument("--log", action="append", default=[], metavar="PATH", help="folder or file of the decision log")
    parser.add_argument("--now", type=moment, metavar="TIME", help="as if it were then: 2026-04-01T09:00:00+09:00")
    parser.add_argument(
        "--in-flight",
        action="append",
        default=[],
        type=load,
        metavar="BACKEND=N",
        help="as if it were serving so many",
    )
    parser.add_argument(
        "--down", action="append", default=[], metavar="BACKEND", help="as if it were unavailable; repeatable"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws that break ties (default: 0)")
    parser.add_argument("--json", action="store_true", help="the decision as one JSON object")
    parser.set_defaults(module="explain")


def _test(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "test",
        help="run the tests of policies",
        description="Run the cases in *_test.yaml against the policy beside it, by the code that serves.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files of tests, or folders that hold them")
    parser.add_argument("--run", metavar="PATTERN", help="only cases whose name holds this, or matches it (*, ?)")
    parser.add_argument("--junit", metavar="FILE", help="write the results as JUnit XML")
    parser.add_argument("--coverage", action="store_true", help="list what no case exercises")
    parser.add_argument(
        "--fail-under", type=percent, metavar="PERCENT", help="fail where coverage is lower (implies --coverage)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(module="test")


def _log(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("log", help="check and read the decision log")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser(
        "verify",
        help="find what is not as it was written",
        description="Check that no record was edited, removed or moved. Exit status 1 where one was.",
    )
    tail = actions.add_parser("tail", help="show the latest decisions", description="Show the latest decisions.")
    tail.add_argument("-n", "--lines", type=count0, default=10, metavar="N", help="how many (default: 10)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on as they are written")
    for action in (verify, tail):
        action.add_argument("paths", nargs="+", metavar="PATH", help="folders or files of a decision log")
        action.add_argument("--json", action="store_true", help="for programs")
        action.set_defaults(module="log")


def _key(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("key", help="make a key for a tenant")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser(
        "new",
        help="make a key",
        description="Print a new random key, this once, and the line for the Tenants document that makes it valid.",
    )
    new.add_argument("--tenant", metavar="NAME", help="whose key it is")
    new.add_argument("--json", action="store_true", help="one JSON object")
    new.set_defaults(module="key")


def _report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="what requests cost, and where they went",
        description="Cost, savings against the cloud, objectives, energy and carbon from the decision log. Exit status "
        "1 where the log is not as it was written.",
    )
    parser.add_argument("log", nargs="+", metavar="LOG", help="folders or files of a decision log")
    parser.add_argument("--since", type=ago, default="7d", metavar="TIME", help=f"from when on (default: 7d), {WHEN}")
    parser.add_argument("--until", type=ago, metavar="TIME", help="until when (default: now)")
    parser.add_argument(
        "--fleet", action="append", default=[], metavar="PATH",
        help="fleet file or folder: with it, what own hardware costs by the hour, and from which load on it pays",
    )  # fmt: skip
    parser.add_argument("--html", metavar="FILE", help="write a page with plots there")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(module="report")


def _top(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "top",
        help="watch a running router",
        description="Tiers, backends, rates, latencies, ejections and spending of a running router, until Ctrl-C.",
    )
    _admin_api(parser)
    parser.add_argument("--interval", type=duration, default=2.0, metavar="SECONDS", help="between looks (default: 2)")
    parser.add_argument("--once", action="store_true", help="show one interval, and end")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.set_defaults(module="top")


def _schema(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "schema",
        help="print the JSON Schema of the YAML",
        description="Print the JSON Schema (draft 2020-12) of fleets, policies and their tests, for editors. It "
        "chooses by `kind`, so one schema serves every file.",
    )
    parser.add_argument(
        "--kind", choices=("Fleet", "Policy", "Tenants", "PolicyTest"), help="of this kind of document only"
    )
    parser.set_defaults(module="schema")


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
    parser.set_defaults(module="scan")
