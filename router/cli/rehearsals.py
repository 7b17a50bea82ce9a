"""The arguments of the commands that try a configuration before it is live: `diff`, `simulate`, `tune`."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from router.cli.arguments import WHEN, ago, count, factor, pair, share

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def diff(commands: Commands) -> None:
    parser = commands.add_parser(
        "diff",
        help="show what a change of configuration means",
        description="Decide the same requests under both configurations and show which move, from where to where, "
        "and why. Exit status 1 where a request may now reach a less trusted tier.",
    )
    parser.add_argument("old", metavar="OLD", help="file or folder with a fleet and a policy")
    parser.add_argument("new", metavar="NEW", help="the same, changed")
    parser.add_argument(
        "--requests", metavar="FILE", help="facts of requests (YAML, JSON, JSONL); else a grid of what both ask for"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="every request that moves")
    parser.set_defaults(module="diff")


def simulate(commands: Commands) -> None:
    parser = commands.add_parser(
        "simulate",
        usage="pointsman simulate OLD [NEW] (--log PATH … | --trace FILE) [options]",
        help="try a configuration with recorded traffic",
        description="Decide the requests of a decision log, or of a file, again under both configurations, each in the "
        "load that its own decisions make, and compare where they go, what they cost and how long they take. Exit "
        "status 1 where a request reaches a less trusted tier than before.",
    )
    parser.add_argument("old", metavar="OLD", help="file or folder with the fleet and policy that were live")
    parser.add_argument("new", nargs="?", metavar="NEW", help="those that are tried")
    _traffic(parser)
    parser.set_defaults(module="simulate")


def tune(commands: Commands) -> None:
    parser = commands.add_parser(
        "tune",
        usage="pointsman tune PATH (--log PATH … | --trace FILE) [options]",
        help="find weights for a rule's objective",
        description="Try weights for the objective of one rule with recorded traffic, and show those that make the "
        "goal smallest while objectives are met as often, models are as good, and as many requests are answered, as "
        "now. Nothing is changed.",
    )
    parser.add_argument("old", metavar="PATH", help="file or folder with the fleet and policy")
    parser.add_argument(
        "--rule", metavar="NAME", help="whose weights (default: of the rules with terms to weigh, the busiest)"
    )
    parser.add_argument(
        "--goal",
        choices=("cost", "carbon", "latency", "p95"),
        default="cost",
        help="what to make small (default: cost)",
    )
    parser.add_argument(
        "--met", type=share, metavar="SHARE", help="of requests that meet their objective (default: as now)"
    )
    parser.add_argument("--quality", type=share, metavar="MEAN", help="of the models that answer (default: as now)")
    parser.add_argument(
        "--tries", type=count, default=60, metavar="N", help="most weights that are tried (default: 60)"
    )
    parser.add_argument(
        "--requests", type=count, default=20_000, metavar="N", help="the latest so many are simulated (default: 20000)"
    )
    _traffic(parser)
    parser.set_defaults(module="tune")


def _traffic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", action="append", default=[], metavar="PATH", help="folder or file of a decision log")
    parser.add_argument("--since", type=ago, metavar="TIME", help=f"of the log, from when on (default: 1d), {WHEN}")
    parser.add_argument("--until", type=ago, metavar="TIME", help="until when (default: now)")
    parser.add_argument(
        "--was", action="append", default=[], metavar="PATH", help="another configuration that wrote part of the log"
    )
    parser.add_argument("--trace", metavar="FILE", help="requests instead: CSV or JSONL of facts, with `at` for each")
    parser.add_argument(
        "--set", action="append", default=[], type=pair, metavar="NAME=VALUE", help="a fact of all requests of a trace"
    )
    parser.add_argument(
        "--load", type=factor, default=1.0, metavar="FACTOR", help="how often each request comes (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
