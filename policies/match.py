"""Conditions compiled to predicates, once: what `match` and `require` mean."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, eq
from typing import Any

from policies.schema import AttributeTest, LabelRange, Match, NotText, Range
from policies.types import Request

Predicate = Callable[[Request], bool]
ValueTest = Callable[[Any], bool]

_PATTERN_CHARS = frozenset("*?[")


def is_pattern(text: str) -> bool:
    return not _PATTERN_CHARS.isdisjoint(text)


def text_test(condition: str | Sequence[str] | NotText) -> ValueTest:
    """Exact text, a pattern, a list of either, or `not`."""
    if isinstance(condition, NotText):
        inner = text_test(condition.not_)
        return lambda value: not inner(value)
    if isinstance(condition, str):
        if not is_pattern(condition):
            return partial(eq, condition)
        return _glob(condition)
    exact = frozenset(word for word in condition if not is_pattern(word))
    globs = [_glob(word) for word in condition if is_pattern(word)]
    if not globs:
        return exact.__contains__
    return lambda value: value in exact or any(glob(value) for glob in globs)


def _glob(pattern: str) -> ValueTest:
    matches = re.compile(fnmatch.translate(pattern)).match
    return lambda value: matches(value) is not None


def number_test(condition: float | Range | AttributeTest) -> ValueTest:
    """An exact number or bounds. None (not known) never passes."""
    if isinstance(condition, int | float):
        return partial(eq, condition)
    gte, gt, lte, lt = condition.gte, condition.gt, condition.lte, condition.lt

    def inside(value: float | None) -> bool:
        return (
            value is not None
            and (gte is None or value >= gte)
            and (gt is None or value > gt)
            and (lte is None or value <= lte)
            and (lt is None or value < lt)
        )

    return inside


def label_test(condition: str | Sequence[str] | LabelRange, ranks: dict[str, int]) -> ValueTest:
    """`ranks` maps level names to their order; every name in the condition must be in it."""
    if isinstance(condition, str):
        return partial(eq, ranks[condition])
    if isinstance(condition, LabelRange):
        low = ranks[condition.gte] if condition.gte is not None else 0
        high = ranks[condition.lte] if condition.lte is not None else len(ranks)
        return lambda rank: low <= rank <= high
    return frozenset(ranks[name] for name in condition).__contains__


STATIC_FIELDS = ("model", "task", "tenant")
"""Fields with few values, which `CompiledPolicy.plan` indexes by; a Match's tests on them are kept apart."""


@dataclass(frozen=True, slots=True)
class CompiledMatch:
    """A Match in two halves: what (model, task, tenant) decide, and what differs from request to request."""

    static: Predicate
    dynamic: Predicate | None  # None: nothing else is asked

    def __call__(self, request: Request) -> bool:
        return self.static(request) and (self.dynamic is None or self.dynamic(request))


def compile_match(match: Match, ranks: dict[str, int]) -> CompiledMatch:
    """The whole condition. `ranks` maps level names to their order."""
    static = [_on(name, text_test(getattr(match, name))) for name in STATIC_FIELDS if getattr(match, name) is not None]
    tests: list[Predicate] = []
    if match.usage is not None:
        tests.append(_on("usage", text_test(match.usage)))
    if match.label is not None:
        tests.append(_on("label", label_test(match.label, ranks)))
    for name in ("tokens_in", "body_bytes", "deadline_ms"):
        condition = getattr(match, name)
        if condition is not None:
            tests.append(_on(name, number_test(condition)))
    if match.stream is not None:
        tests.append(_on("stream", partial(eq, match.stream)))
    if match.all is not None:
        tests += [compile_match(part, ranks) for part in match.all]
    if match.any is not None:
        parts = [compile_match(part, ranks) for part in match.any]
        tests.append(lambda request: any(part(request) for part in parts))
    if match.not_ is not None:
        inner = compile_match(match.not_, ranks)
        tests.append(lambda request: not inner(request))
    return CompiledMatch(_conjunction(static), _conjunction(tests) if tests else None)


def _on(name: str, test: ValueTest) -> Predicate:
    get = attrgetter(name)
    return lambda request: test(get(request))


def _conjunction(tests: list[Predicate]) -> Predicate:
    if not tests:
        return lambda request: True
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda request: first(request) and second(request)
    return lambda request: all(test(request) for test in tests)


def attribute_test(condition: Any) -> ValueTest:
    """What `require` asks of one attribute of a backend. An attribute that is not stated never passes."""
    if isinstance(condition, AttributeTest):
        bounds = number_test(condition)
        bounded = any(b is not None for b in (condition.gte, condition.gt, condition.lte, condition.lt))
        excluded = text_test(condition.not_) if condition.not_ is not None else None

        def holds(value: Any) -> bool:
            if value is None or (bounded and (isinstance(value, str | bool) or not bounds(value))):
                return False
            return excluded is None or not (isinstance(value, str) and excluded(value))

        return holds
    choices = condition if isinstance(condition, list) else [condition]
    words = text_test([c for c in choices if isinstance(c, str)])
    others = [c for c in choices if not isinstance(c, str)]

    def allowed(value: Any) -> bool:
        if isinstance(value, str):
            return words(value)
        return any(_same(value, other) for other in others)

    return allowed


def _same(value: Any, wanted: Any) -> bool:
    """Equality that keeps true and 1 apart."""
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)
