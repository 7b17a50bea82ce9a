"""Finds and runs the tests beside a policy: for `pointsman test`, and before a policy goes live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from policies.compile import CompiledPolicy
from policies.errors import ConfigurationError, Problem
from policies.policytest import NotARequest, Result, check, run
from policies.schema import HttpRequest, PolicyTest
from policies.source import Document
from policies.types import Request
from policies.validate import validate
from router.configuration import is_test, policy_from, read, yaml_files
from router.errors import ApiError


@dataclass(frozen=True, slots=True)
class TestFile:
    path: Path
    test: PolicyTest
    document: Document
    configuration: tuple[Path, ...]
    policy: CompiledPolicy


def test_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as given; of a folder its *_test.yaml, and those of the folders in it. Not of folders that
    begin with a dot: in a mounted ConfigMap they hold what the files beside them are links to."""
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*_test.y*ml") if is_test(p))
            yield from (p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts[:-1]))
        else:
            yield path


def tests_beside(folder: Path) -> list[Path]:
    """The files of tests in a folder, not in those below it."""
    return sorted(path for path in folder.glob("*_test.y*ml") if is_test(path))


def run_file(
    path: Path, env: Mapping[str, str], policy: CompiledPolicy | None = None
) -> tuple[TestFile, tuple[Result, ...]]:
    """Its cases' results, under the configuration that it names or under `policy`. Raises ConfigurationError where
    the file or its configuration is wrong."""
    file = open_file(path, env, policy)
    return file, run(file.test, file.document, file.policy, read_http)


def open_file(path: Path, env: Mapping[str, str], policy: CompiledPolicy | None = None) -> TestFile:
    """A file of tests, ready to be run. Raises ConfigurationError as `run_file` does."""
    document, test = _read(path, env)
    files = tuple(path.parent / name for name in test.configuration) if test.configuration else (path.parent,)
    if policy is None:
        policy = policy_from(files, {**env, **test.env})
    problems = list(check(test, document, policy))
    if problems:
        raise ConfigurationError(problems)
    return TestFile(path, test, document, tuple(yaml_files(files)), policy)


def _read(path: Path, env: Mapping[str, str]) -> tuple[Document, PolicyTest]:
    documents, problems = read(path, env)
    if not problems and len(documents) != 1:
        problems = [Problem(str(path), 0, 0, "must hold one document of kind PolicyTest")]
    if problems:
        raise ConfigurationError(problems)
    checked = validate(documents[0])
    if checked.problems:
        raise ConfigurationError(checked.problems)
    if not isinstance(checked.model, PolicyTest):
        raise ConfigurationError([documents[0].problem(("kind",), "a file of tests has `kind: PolicyTest`")])
    return checked.document, checked.model


def read_http(http: HttpRequest, policy: CompiledPolicy, now: float) -> Request:
    # Only here: the wires bring numpy, which most checks and tests have no use for, and which takes a while.
    from router.requests import from_http
    from router.settings import Settings

    try:
        return from_http(http, policy, Settings().max_body_bytes, now)
    except ApiError as error:
        raise NotARequest(error.code, error.text) from None
