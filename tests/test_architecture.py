"""The house: imports point one way, and the decision library touches nothing outside its arguments."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGES = ("policies", "backends", "router", "dashboards")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

ALLOWED = {
    "policies": {"policies"}, "backends": {"policies", "backends"}, "router": {"policies", "backends", "router"},
    "dashboards": {"dashboards"},
}  # fmt: skip
"""Which of our packages each may import."""

RAY_ENGINE = "router/engines/ray/"

OUTSIDE_WORLD = {
    "asyncio", "concurrent", "fileinput", "glob", "http", "io", "logging", "multiprocessing", "os",
    "pathlib", "platform", "random", "requests", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl",
    "subprocess", "sys", "tempfile", "threading", "time", "urllib.request", "uuid", "zoneinfo",
    "ray", "aiohttp", "httpx", "uvicorn",
}  # fmt: skip
"""Modules that reach the clock, the network, files, processes, or a global random state."""

FORBIDDEN_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    ours = {module.split(".")[0] for module in imports(path)} & set(PACKAGES)
    assert ours <= ALLOWED[package]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_ray_is_imported_by_its_engine_only(path):
    if not name(path).startswith(RAY_ENGINE):
        assert not [module for module in imports(path) if module.split(".")[0] == "ray"]


@pytest.mark.parametrize("path", [p for p in MODULES if name(p).startswith("policies/")], ids=name)
def test_the_decision_library_is_pure(path):
    for module in imports(path):
        reached = {module, module.split(".")[0]} & OUTSIDE_WORLD
        assert not reached, f"{name(path)} imports {module}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            makes_functions = name(path) == "policies/generated.py" and node.func.id == "exec"
            assert makes_functions or node.func.id not in FORBIDDEN_CALLS, (
                f"{name(path)}:{node.lineno} calls {node.func.id}"
            )
        if isinstance(node, ast.Attribute):  # datetime computes with moments; only these read the clock
            assert node.attr not in {"today", "utcnow"}, f"{name(path)}:{node.lineno} reads the clock"
            now_of = node.value.id if isinstance(node.value, ast.Name) else ""
            assert (now_of, node.attr) != ("datetime", "now"), f"{name(path)}:{node.lineno} reads the clock"
        assert not isinstance(node, ast.Global), f"{name(path)}:{node.lineno} has global state"


def test_deciding_opens_nothing_and_asks_no_clock(monkeypatch):
    """The same promise at run time: what the code reaches through its libraries counts as well."""
    import builtins
    import random
    import socket
    import time

    from conftest import THREE_TIERS, compile_text, idle, request

    from policies.decide import decide
    from policies.explain import as_dict

    policy = compile_text(THREE_TIERS)

    def forbidden(*args, **kwargs):
        raise AssertionError("the decision library reached outside")

    for module, attributes in (
        (builtins, ["open"]),
        (time, ["time", "monotonic", "perf_counter"]),
        (random, ["random", "randint", "choice", "getrandbits"]),
        (socket, ["socket"]),
    ):
        for attribute in attributes:
            monkeypatch.setattr(module, attribute, forbidden)
    again = compile_text(THREE_TIERS)
    decision = decide(request(label=1), idle(again), again)
    assert as_dict(decision, again)["backend"] == "edge"
    assert decision.policy == policy.digest


def test_files_stay_small():
    """Past 400 lines, look for the missing data type."""
    assert not [name(path) for path in MODULES if len(path.read_text().splitlines()) > 400]


def test_the_tables_of_extension_points_match_the_schema():
    from backends.registry import BUILDERS
    from policies.schema import Backend, Objective
    from policies.scorers import SCORERS
    from policies.targets import WIRES

    assert set(SCORERS) == set(Objective.model_fields)
    protocols = set(Backend.model_fields["protocol"].annotation.__args__)
    assert protocols == set(BUILDERS) == set(WIRES)
