"""Tests of a policy: requests in a stated situation, through the evaluator that serves, against what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policies.calendar import moment
from policies.checks import check_duplicates
from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.errors import Problem, did_you_mean
from policies.facts import UnknownLevel, request_from
from policies.filters import FILTERS
from policies.schema import Case, Expect, Given, HttpRequest, PolicyTest
from policies.source import Document, Path
from policies.types import Decision, RefusalCode, Request, Snapshot


class NotARequest(ValueError):
    """What a client would be answered instead of a decision: an error's code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


HttpReader = Callable[[HttpRequest, CompiledPolicy, float], Request]
"""The request that the data API would make of one; raises NotARequest."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case. `wrong` is empty where everything was as expected."""

    case: Case
    line: int
    wrong: tuple[str, ...]
    request: Request | None
    snapshot: Snapshot | None
    decision: Decision | None

    @property
    def passed(self) -> bool:
        return bool(self.wrong) == self.case.must_fail

    @property
    def failures(self) -> tuple[str, ...]:
        """Why it did not pass; empty where it passed."""
        if self.passed:
            return ()
        return self.wrong or ("the expectation holds, and the case says that it must not",)


def run(test: PolicyTest, document: Document, policy: CompiledPolicy, read_http: HttpReader) -> tuple[Result, ...]:
    """Every case of a file that `check` found nothing wrong with."""
    results = []
    for i, case in enumerate(test.tests):
        now = moment(case.now or test.now)
        line = document.locate(("tests", i))[0]
        state = snapshot(case.given, policy, now)
        try:
            if isinstance(case.request, HttpRequest):
                request = read_http(case.request, policy, now)
            else:
                request = request_from(case.request, policy, now)
        except UnknownLevel as error:
            results.append(Result(case, line, (str(error),), None, state, None))
            continue
        except NotARequest as error:
            told = () if case.expect.refusal == error.code else (f"it is answered {error.code}: {error}",)
            results.append(Result(case, line, told, None, state, None))
            continue
        decision = decide(request, state, policy, case.seed)
        wrong = tuple(compare(case.expect, decision, policy))
        results.append(Result(case, line, wrong, request, state, decision))
    return tuple(results)


def snapshot(given: Given, policy: CompiledPolicy, now: float) -> Snapshot:
    """The state of the fleet as a test states it."""
    names = [backend.name for backend in policy.fleet.backends]
    stated = [given.backends.get(name) for name in names]
    spent: dict[tuple[int, str], float] = {}
    for name, used in given.spent.items():
        quota, _, key = name.partition("/")
        spent |= {(q.index, key): used for q in policy.quotas if q.name == quota}
    return Snapshot(
        tuple("down, as the test says" if one and one.down else None for one in stated),
        tuple(one.in_flight if one else 0 for one in stated),
        tuple(one.latency_ms if (one := stated[t.backend_index]) else None for t in policy.targets),
        tuple(one.ttft_ms if (one := stated[t.backend_index]) else None for t in policy.targets),
        now,
        spent,
        g_per_kwh=policy.g_per_kwh(now),
    )


def compare(expect: Expect, decision: Decision, policy: CompiledPolicy) -> Iterator[str]:
    """One line for each part of the expectation that does not hold."""
    chosen = decision.chosen
    refusal = decision.refusal
    found: dict[str, object] = {
        "rule": decision.rule,
        "label": policy.levels[decision.label],
        "backend": chosen.target.backend if chosen else None,
        "tier": chosen.target.tier if chosen else None,
        "order": [candidate.target.backend for candidate in decision.ranked],
        "attempts": [candidate.target.backend for candidate in decision.attempts],
        "refusal": str(refusal.code) if refusal else None,
        "shadow": decision.shadow.target.backend if decision.shadow else None,
        "transform": decision.transform,
    }
    for name, actual in found.items():
        wanted = getattr(expect, name)
        if wanted is not None and wanted != actual:
            yield f"{name}: expected {_say(wanted)}, got {_say(actual)}"
    if expect.constraints is not None and sorted(expect.constraints) != sorted(decision.constraints):
        yield f"constraints: expected {_say(expect.constraints)}, got {_say(list(decision.constraints))}"
    if expect.notice is not None and expect.notice not in decision.notices:
        yield f"notice: expected {_say(expect.notice)}, got {_say(list(decision.notices))}"
    for backend, filters in (expect.rejected or {}).items():
        by = {rejection.filter for rejection in decision.rejected if rejection.backend == backend}
        missing = {filters} - by if isinstance(filters, str) else set(filters) - by
        if missing:
            got = f"it is rejected by {_say(sorted(by))}" if by else "it is not rejected"
            yield f"rejected: expected {backend} to be rejected by {_say(sorted(missing))}; {got}"


def _say(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


# --- checks before a run ------------------------------------------------------------------------------------------


def check(test: PolicyTest, document: Document, policy: CompiledPolicy) -> Iterator[Problem]:
    """Names that mean nothing here: such a case could never show what it says."""
    vocabulary = _vocabulary(policy)
    yield from _moment(document, ("now",), test.now)
    yield from check_duplicates(document, "case", "tests", [case.name for case in test.tests])
    for i, case in enumerate(test.tests):
        path: Path = ("tests", i)
        if case.now is not None:
            yield from _moment(document, (*path, "now"), case.now)
        if not case.expect.model_fields_set:
            yield document.problem(
                (*path, "expect"), "nothing is expected, so this case cannot fail", "add `backend: …`"
            )
        for name in case.given.backends:
            yield from _known(document, (*path, "given", "backends", name), "backend", name, vocabulary)
        for name in case.given.spent:
            yield from _known(document, (*path, "given", "spent", name), "quota", name.split("/")[0], vocabulary)
        for field, word in _expected(case.expect):
            where = (*path, "expect", *field)
            yield from _known(
                document, where, _WORDS[str(field[0])] if len(field) == 1 else "backend", word, vocabulary
            )
        for backend, filters in (case.expect.rejected or {}).items():
            for word in [filters] if isinstance(filters, str) else filters:
                yield from _known(document, (*path, "expect", "rejected", backend), "filter", word, vocabulary)


_WORDS = {
    "rule": "rule",
    "label": "level",
    "backend": "backend",
    "order": "backend",
    "attempts": "backend",
    "constraints": "constraint",
    "refusal": "refusal",
    "shadow": "backend",
}


def _expected(expect: Expect) -> Iterator[tuple[Path, str]]:
    """The names in an expectation, each with the path of its field."""
    for field in _WORDS:
        value = getattr(expect, field)
        for word in [value] if isinstance(value, str) else value or ():
            yield (field,), word
    for backend in expect.rejected or ():
        yield ("rejected", backend), backend


def _vocabulary(policy: CompiledPolicy) -> Mapping[str, Sequence[str]]:
    return {
        "backend": [backend.name for backend in policy.fleet.backends],
        "rule": [rule.name for rule in policy.rules],
        "constraint": [constraint.name for constraint in policy.constraints],
        "level": policy.levels,
        "filter": [*(name for name, _ in FILTERS), "shadow"],
        "quota": [quota.name for quota in policy.quotas],
        "refusal": [str(code) for code in RefusalCode] + ["bad_request", "not_found", "not_permitted"],
    }


def _known(
    document: Document, path: Path, kind: str, word: str, vocabulary: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    if word not in vocabulary[kind]:
        what = {"quota": "budget or limit", "refusal": "code of a refusal"}.get(kind, kind)
        yield document.problem(path, f"there is no {what} '{word}'", did_you_mean(word, vocabulary[kind]))


def _moment(document: Document, path: Path, text: str) -> Iterator[Problem]:
    try:
        moment(text)
    except ValueError:
        yield document.problem(
            path, f"'{text}' is not a time with an offset from UTC", "write it as 2026-04-01T09:00:00+09:00"
        )
