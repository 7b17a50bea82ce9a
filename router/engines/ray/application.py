"""The application that Ray Serve builds by itself, from `serve deploy` or the serveConfigV2 of a RayService:

    applications:
      - name: pointsman
        import_path: router.engines.ray.application:build
        args: {paths: [/etc/pointsman], host: 0.0.0.0}

`args` are the flags of `pointsman serve`, with underscores. Whatever a replica reads (files, environment, tokens) is
that of its own node; nothing of it is kept in Ray's own store.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from ray import serve

from policies.errors import ConfigurationError
from router.cli import command_line
from router.cli.serve import Misuse, Prepared, prepare
from router.engines.ray.deployments import application
from router.engines.ray.replica import Blueprint, with_shared_actors
from router.ledgers.central import REDIS

REVISION = "revision"
"""The one argument that is no flag. Ray Serve deploys anew where `args` change: another revision is a way to."""
_NOT_HERE = {
    "engine": "an application of Ray Serve runs on Ray",
    "command": "it is no flag",
    "module": "it is no flag",
}


class NotDeployed(Exception):
    """Shown in the status of the application, so it says everything that whoever deployed it must know."""


def build(args: dict[str, Any]) -> serve.Application:
    """Called by Ray Serve, on any node. Raises NotDeployed."""
    flags = tuple(_flags(args))
    prepared = _prepared(flags)
    ledger = prepared.settings.ledger
    if ledger is not None and not ledger.startswith(REDIS):
        raise NotDeployed(
            f"ledger: the file {ledger} would be one node's, and replicas may be on several: give the URL of a Redis "
            "(ledger, or ledger_env where it has a password), or none: then the replicas share one that lasts as "
            "long as the application"
        )
    try:
        configuration = prepared.loader()
    except ConfigurationError as error:
        raise NotDeployed(f"{error}\n{len(error.problems)} problem(s) in the configuration") from None
    return application(configuration, prepared.settings, Flags(flags))


@dataclass(frozen=True, slots=True)
class Flags:
    """A plan that a replica makes from flags, in its own environment."""

    flags: tuple[str, ...]

    def __call__(self) -> Blueprint:
        prepared = _prepared(self.flags)
        # How many replicas there are is not known here (`num_replicas` of the deployment holds), and changes; on a node
        # there is one, as a rule.
        settings = replace(prepared.settings, replicas=1)
        return with_shared_actors(Blueprint(prepared.loader, settings, shared=True))


class _Parser(argparse.ArgumentParser):
    """One that does not end the process."""

    def error(self, message: str) -> NoReturn:
        raise NotDeployed(f"args: {message.removeprefix('argument ')}")


def _parse(flags: tuple[str, ...]) -> argparse.Namespace:
    return command_line(_Parser).parse_args(["serve", "--engine", "ray", *flags])


def _prepared(flags: tuple[str, ...]) -> Prepared:
    try:
        return prepare(_parse(flags))
    except Misuse as error:
        raise NotDeployed(f"args: {error}") from None


def _flags(args: Mapping[str, Any]) -> Iterator[str]:
    """The command line that these arguments stand for."""
    known = vars(_parse(("-",)))  # by name, with their defaults
    names = sorted({*known, REVISION} - {*_NOT_HERE})
    for name, value in args.items():
        if name in _NOT_HERE:
            raise NotDeployed(f"args: {name} cannot be set here: {_NOT_HERE[name]}")
        if name not in names:
            near = difflib.get_close_matches(str(name).replace("-", "_"), names, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
            raise NotDeployed(f"args: {name} is unknown: {hint}")
        if name in ("paths", REVISION) or value is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(known[name], bool):
            if not isinstance(value, bool):
                raise NotDeployed(f"args: {name} is true or false")
            if value:
                yield flag
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            raise NotDeployed(f"args: {name} is one value, a text or a number")
        else:
            yield f"{flag}={value}"
    paths = args.get("paths")
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise NotDeployed("args: paths is a list of the files and folders that hold the configuration: it is missing")
    if relative := [path for path in paths if not Path(path).is_absolute()]:
        raise NotDeployed(f"args: paths holds {relative[0]}, which each process would look for elsewhere: begin with /")
    yield from ("--", *paths)
