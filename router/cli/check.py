"""`pointsman check`: every file by itself, and a folder's policies against its one fleet."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

from policies.compile import CompiledPolicy, compile_documents
from policies.errors import ConfigurationError, Problem, did_you_mean
from policies.lint import CODES, Linted, lint
from policies.source import Document
from router.configuration import beside, read, yaml_files
from router.policytests import open_file, tests_beside
from router.stamps import Seen


def run(arguments: argparse.Namespace) -> int:
    if arguments.explain is not None:
        return explain_code(arguments.explain)
    if not arguments.paths:
        print("pointsman check: which files? name files or a folder", file=sys.stderr)
        return 2
    paths = [Path(path) for path in arguments.paths]
    files = list(yaml_files(paths))
    if not files:
        print(f"pointsman check: no YAML files in {', '.join(arguments.paths)}", file=sys.stderr)
        return 2
    tests = [test for path in paths if path.is_dir() for test in tests_beside(path)]
    problems = sorted({*check(files, os.environ), *check_tests(tests, os.environ)})
    errors = [p for p in problems if p.severity == "error"]
    if arguments.json:
        print(
            json.dumps(
                {"files": len(files) + len(tests), "errors": len(errors), "problems": [p.as_dict() for p in problems]}
            )
        )
    else:
        for problem in problems:
            print(problem)
        verdict = f"{len(errors)} error(s), {len(problems) - len(errors)} warning(s)" if problems else "good"
        print(f"{len(files) + len(tests)} file(s) checked: {verdict}", file=sys.stderr)
    return 1 if errors or (arguments.strict and problems) else 0


def check(files: list[Path], env: Mapping[str, str]) -> Iterator[Problem]:
    """Files of one folder that hold one fleet, at most one policy and at most one list of tenants between them are
    checked together. Of other folders, each file is checked by itself, with the fleet where there is just one."""
    folders: dict[Path, list[list[Document]]] = {}
    for path in files:
        documents, problems = read(path, env)
        yield from problems
        if not documents and not problems:
            yield Problem(str(path), 0, 0, "the file is empty", "begin with `apiVersion: pointsman/v1` and `kind: …`")
        folders.setdefault(path.parent, []).append(documents)
    for in_folder in folders.values():
        everything = [d for documents in in_folder for d in documents]
        if _one_configuration(everything):
            in_folder = [everything]
        fleets = [d for documents in in_folder for d in documents if d.kind == "Fleet"]
        alone = [d for documents in in_folder for d in documents if d.kind == "Fleet" and len(documents) == 1]
        joined = len(fleets) == 1 == len(alone)
        judged = any(d.kind == "Policy" for documents in in_folder for d in documents)
        for documents in in_folder:
            together = documents
            if joined and documents == alone and judged:
                continue  # with its policy, whose levels it names
            if joined and not any(d.kind == "Fleet" for d in documents):
                together = [*alone, *documents]
            compiled, problems = compile_documents(together, ZoneInfo, include=beside(Seen()))
            yield from problems
            if compiled is not None:
                yield from _lints(compiled, together)


def check_tests(files: list[Path], env: Mapping[str, str]) -> Iterator[Problem]:
    """What keeps files of tests from being run. Whether the tests pass is for `pointsman test` to say."""
    for path in files:
        try:
            open_file(path, env)
        except ConfigurationError as error:
            yield from error.problems


def _one_configuration(documents: list[Document]) -> bool:
    counts = Counter(document.kind for document in documents)
    return counts["Fleet"] == 1 and set(counts) <= {"Fleet", "Policy", "Tenants"} and set(counts.values()) == {1}


def _lints(compiled: CompiledPolicy, documents: list[Document]) -> list[Problem]:
    by_kind = {document.kind: document for document in documents}
    if "Policy" not in by_kind:
        return []
    return lint(Linted(compiled, by_kind["Fleet"], by_kind["Policy"], ZoneInfo))


def explain_code(code: str) -> int:
    """What a lint means, for `--explain CODE`."""
    text = CODES.get(code.upper())
    if text is None:
        print(f"pointsman check: no lint '{code}'; {did_you_mean(code.upper(), CODES)}", file=sys.stderr)
        return 2
    print(f"{code.upper()}  {text}")
    return 0
