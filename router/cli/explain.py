"""`pointsman explain`: one decision, whole, by the evaluator that serves."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.errors import ConfigurationError, Problem, did_you_mean
from policies.explain import as_dict
from policies.facts import UnknownLevel, request_from
from policies.schema import HttpRequest, RequestFacts
from policies.source import Document, parse
from policies.types import Request, Snapshot
from policies.validate import validate_as
from router.configuration import policy_from
from router.errors import ApiError, bad_request
from router.files import text_of
from router.requests import from_http
from router.settings import Settings

_FACTS = (
    "model",
    "task",
    "tenant",
    "label",
    "usage",
    "tokens_in",
    "tokens_out",
    "deadline_ms",
    "stream",
    "no_fallback",
    "route",
    "session",
    "caller_region",
    "entities",
    "masked_label",
    "headers",
    "labels",
)


def run(arguments: argparse.Namespace) -> int:
    if arguments.replay is not None:
        from router.cli.replay import run as run_replay

        return run_replay(arguments)
    if arguments.request is None and arguments.model is None:
        print("pointsman explain: which request? give --model (and --label, …), or --request FILE", file=sys.stderr)
        return 2
    try:
        policy = policy_from([Path(path) for path in arguments.paths], os.environ)
        now = arguments.now or time.time()
        request = _request(arguments, policy, now)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    except (ApiError, UnknownLevel) as error:
        print(f"pointsman explain: {error.text if isinstance(error, ApiError) else error}", file=sys.stderr)
        return 1
    names = [backend.name for backend in policy.fleet.backends]
    for name in (*arguments.down, *dict(arguments.in_flight)):
        if name not in names:
            print(f"pointsman explain: no backend '{name}'; {did_you_mean(name, names)}", file=sys.stderr)
            return 2
    snapshot = Snapshot(
        tuple("down, as --down says" if name in arguments.down else None for name in names),
        tuple(dict(arguments.in_flight).get(name, 0) for name in names),
        (None,) * len(policy.targets),
        now=now,
        g_per_kwh=policy.g_per_kwh(now),
    )
    explained = as_dict(decide(request, snapshot, policy, arguments.seed), policy)
    if arguments.json:
        print(json.dumps(explained, ensure_ascii=False, indent=2))
    else:
        show(explained, request)
    return 0


def _request(arguments: argparse.Namespace, policy: CompiledPolicy, now: float) -> Request:
    given = {name: getattr(arguments, name) for name in _FACTS if getattr(arguments, name) is not None}
    given |= {name: dict(given[name]) for name in ("headers", "labels") if name in given}
    data: dict[str, Any] = {}
    document = Document("(flags)", data, {}, {})
    if arguments.request is not None:
        text = sys.stdin.read() if arguments.request == "-" else text_of(Path(arguments.request))
        documents, problems = parse(text, arguments.request, os.environ)
        if problems or len(documents) != 1:
            raise ConfigurationError(problems or [Problem(arguments.request, 0, 0, "must hold one request")])
        document = documents[0]
        data = document.data
    if isinstance(data, dict) and "path" in data:
        http, problems = validate_as(document, HttpRequest)
        if http is None:
            raise ConfigurationError(problems)
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise bad_request(f"{flags} cannot change a request of path, headers and body", "change the file")
        return from_http(http, policy, Settings().max_body_bytes, now)
    if isinstance(data, dict):
        document = Document(document.file, {**data, **given}, document.keys, document.values)
    facts, problems = validate_as(document, RequestFacts)
    if facts is None:
        raise ConfigurationError(problems)
    return request_from(facts, policy, now)


def show(explained: dict[str, Any], request: Request) -> None:
    """The decision for a person."""
    from rich.table import Table

    from router.cli.output import console

    out = console()
    head = f"model {request.model}, task {request.task}, tenant {request.tenant}, label {explained['label']}"
    out.print(f"request      {head}", highlight=False)
    if request.entities:
        out.print(f"found        {', '.join(sorted(request.entities))}", highlight=False)
    out.print(f"constraints  {', '.join(explained['constraints']) or 'none matches'}", highlight=False)
    out.print(f"rule         {explained['rule']}", highlight=False)
    if explained["refusal"]:
        refusal = explained["refusal"]
        out.print(f"refused      {refusal['code']}: {refusal['message']}", highlight=False)
        out.print(f"             {refusal['hint']}", highlight=False)
    else:
        out.print(f"goes to      {explained['backend']} ({explained['tier']})", highlight=False)
        out.print(f"attempts     {', then '.join(explained['attempts'])}", highlight=False)
        if explained["spilled"]:
            out.print(f"spilled      full, so others come first: {', '.join(explained['spilled'])}", highlight=False)
        for name, what in _beside(explained):
            out.print(f"{name:<12} {what}", highlight=False)
    for notice in explained["notices"]:
        out.print(f"notice       {notice}", highlight=False)
    if explained["candidates"]:
        table = Table(
            "backend", "tier", "score", "= weight x value", "est. ms", "est. USD", "est. gCO2e", title="candidates"
        )
        for candidate in explained["candidates"]:
            terms = " + ".join(f"{t['weight']:.2f} x {t['value']:.3f} {t['scorer']}" for t in candidate["terms"])
            estimate = candidate["estimate"]
            table.add_row(
                candidate["backend"], candidate["tier"], f"{candidate['score']:.4f}", terms,
                f"{estimate['latency_ms']:.0f}", f"{estimate['cost_usd']:.6f}", f"{estimate['carbon_g']:.6f}",
            )  # fmt: skip
        out.print(table)
    if explained["rejected"]:
        table = Table("backend", "filter", "reason", title="rejected")
        for rejected in explained["rejected"]:
            for by in rejected["by"]:
                table.add_row(rejected["backend"], by["filter"], by["reason"])
        out.print(table)


def _beside(explained: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What else the rule asks for, besides an order by score."""
    if explained["picker"] == "split":
        yield "picked by", "the rule's split; the scores do not count among those that share it"
    if explained["transform"]:
        yield "transform", f"{explained['transform']}: what is sent has the label {explained['sent_label']}"
    for name in explained["strategy"] or ():
        yield "strategy", name
    if explained["shadow"]:
        yield "copied to", explained["shadow"]
