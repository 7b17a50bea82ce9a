"""`pointsman test`: the tests beside a policy, by the evaluator that serves."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from policies.coverage import Coverage, measure
from policies.errors import ConfigurationError, Problem
from policies.explain import as_dict
from policies.policytest import Result
from router.policytests import TestFile, run_file, test_files


@dataclass(frozen=True, slots=True)
class Ran:
    """One file of tests: its results, or why it could not be run."""

    path: Path
    results: tuple[Result, ...]
    file: TestFile | None
    problems: tuple[Problem, ...] = ()


def run(arguments: argparse.Namespace) -> int:
    paths = [Path(path) for path in arguments.paths]
    files = list(test_files(paths))
    missing = [path for path in paths if not path.exists()]
    if missing or not files:
        what = f"no such file: {missing[0]}" if missing else f"no *_test.yaml in {', '.join(arguments.paths)}"
        print(f"pointsman test: {what}", file=sys.stderr)
        return 2
    ran = [_run(path, os.environ) for path in files]
    chosen = [Ran(r.path, tuple(_picked(r.results, arguments.run)), r.file, r.problems) for r in ran]
    if arguments.run and not any(r.results or r.problems for r in chosen):
        print(f"pointsman test: no test is named like {arguments.run!r}", file=sys.stderr)
        return 2
    covered = list(_coverage(chosen)) if arguments.coverage or arguments.fail_under is not None else []
    if arguments.junit:
        _write_junit(Path(arguments.junit), chosen)
    if arguments.json:
        print(json.dumps(_as_json(chosen, covered), ensure_ascii=False, indent=2))
    else:
        _show(chosen, covered)
    failed = any(r.problems or not all(one.passed for one in r.results) for r in chosen)
    low = any(coverage.percent < (arguments.fail_under or 0) for _, coverage in covered)
    return 1 if failed or low else 0


def _run(path: Path, env: Mapping[str, str]) -> Ran:
    try:
        file, results = run_file(path, env)
    except ConfigurationError as error:
        return Ran(path, (), None, error.problems)
    return Ran(path, results, file)


def _picked(results: Iterable[Result], pattern: str | None) -> Iterator[Result]:
    """Those whose name holds the pattern, or matches it where it is one."""
    for result in results:
        name = result.case.name
        if pattern is None or pattern in name or fnmatch.fnmatchcase(name, pattern):
            yield result


def _coverage(ran: Iterable[Ran]) -> Iterator[tuple[str, Coverage]]:
    """By configuration: several files of tests may share one."""
    together: dict[tuple[Path, ...], Coverage] = {}
    for one in ran:
        if one.file is not None:
            found = measure(one.file.policy, one.results)
            before = together.get(one.file.configuration)
            together[one.file.configuration] = before | found if before else found
    for paths, coverage in together.items():
        yield ", ".join(map(str, paths)), coverage


def _show(ran: list[Ran], covered: list[tuple[str, Coverage]]) -> None:
    passed = failed = 0
    for one in ran:
        print(one.path)
        for problem in one.problems:
            print(f"  {problem}")
        for result in one.results:
            passed, failed = (passed + 1, failed) if result.passed else (passed, failed + 1)
            print(f"  {'ok  ' if result.passed else 'FAIL'}  {result.case.name}")
            for line in result.failures:
                print(f"        {line}")
            if not result.passed:
                print(f"        at {one.path}:{result.line}")
                _explain(one, result)
    broken = sum(1 for one in ran if one.problems)
    print(f"{passed} passed, {failed} failed" + (f", {broken} file(s) could not be run" if broken else ""))
    for name, coverage in covered:
        done, all_ = len(coverage.exercised), len(coverage.items)
        print(f"coverage of {name}: {done} of {all_} ({coverage.percent:.1f} %)")
        for item in coverage.never:
            print(f"  never: {item}")


def _explain(one: Ran, result: Result) -> None:
    from router.cli.explain import show

    if one.file is not None and result.decision is not None and result.request is not None:
        sys.stdout.flush()
        show(as_dict(result.decision, one.file.policy), result.request)


def _as_json(ran: list[Ran], covered: list[tuple[str, Coverage]]) -> dict[str, object]:
    return {
        "passed": sum(r.passed for one in ran for r in one.results),
        "failed": sum(not r.passed for one in ran for r in one.results),
        "files": [
            {
                "path": str(one.path),
                "problems": [problem.as_dict() for problem in one.problems],
                "tests": [
                    {
                        "name": r.case.name,
                        "line": r.line,
                        "passed": r.passed,
                        "failures": list(r.failures),
                        "decision": as_dict(r.decision, one.file.policy)
                        if not r.passed and r.decision is not None and one.file is not None
                        else None,
                    }
                    for r in one.results
                ],
            }
            for one in ran
        ],
        "coverage": [
            {"configuration": name, "percent": round(c.percent, 2), "never": [str(item) for item in c.never]}
            for name, c in covered
        ],
    }


def _write_junit(path: Path, ran: list[Ran]) -> None:
    suites = ET.Element("testsuites")
    for one in ran:
        failures = sum(not r.passed for r in one.results)
        suite = ET.SubElement(
            suites, "testsuite", name=str(one.path), tests=str(len(one.results)), failures=str(failures),
            errors=str(len(one.problems)),
        )  # fmt: skip
        for result in one.results:
            case = ET.SubElement(suite, "testcase", classname=str(one.path), name=result.case.name)
            if not result.passed:
                ET.SubElement(case, "failure", message="; ".join(result.failures)).text = f"{one.path}:{result.line}"
        for problem in one.problems:
            case = ET.SubElement(suite, "testcase", classname=str(one.path), name=f"line {problem.line}")
            ET.SubElement(case, "error", message=problem.message).text = str(problem)
    ET.indent(suites)
    ET.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)
