"""Conditions compiled to predicates, once: what `match` and `require` mean."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, eq
from typing import Any

from policies.calendar import Zones, utc_only, window_test
from policies.generated import function
from policies.schema import AttributeTest, EntityCondition, LabelRange, Match, NotText, Policy, Range, TextCondition
from policies.sensitivity.entities import canonical
from policies.types import Request, Target

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
    closed = _closed(condition)
    if closed is not None:
        low, high = closed
        return lambda value: value is not None and low <= value <= high
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


def _closed(condition: Range | AttributeTest) -> tuple[float, float] | None:
    """Bounds that are themselves within, as nearly all are: those need one comparison."""
    if condition.gt is not None or condition.lt is not None:
        return None
    return (
        -math.inf if condition.gte is None else condition.gte,
        math.inf if condition.lte is None else condition.lte,
    )


def label_test(condition: str | Sequence[str] | LabelRange, ranks: Mapping[str, int]) -> ValueTest:
    """`ranks` maps level names to their order; every name in the condition must be in it."""
    if isinstance(condition, str):
        return partial(eq, ranks[condition])
    if isinstance(condition, LabelRange):
        low = ranks[condition.gte] if condition.gte is not None else 0
        high = ranks[condition.lte] if condition.lte is not None else len(ranks)
        others = [condition.not_] if isinstance(condition.not_, str) else condition.not_ or ()
        excluded = frozenset(ranks[name] for name in others)
        return lambda rank: low <= rank <= high and rank not in excluded
    return frozenset(ranks[name] for name in condition).__contains__


def entity_test(condition: EntityCondition) -> Callable[[frozenset[str]], bool]:
    """`only` asks that something was found, and nothing else than these."""

    def named(names: Sequence[str] | None) -> frozenset[str] | None:
        return None if names is None else frozenset(canonical(name) for name in names)

    some, every, only, none = (named(n) for n in (condition.any, condition.all, condition.only, condition.none))

    def holds(found: frozenset[str]) -> bool:
        return (
            (some is None or not some.isdisjoint(found))
            and (every is None or every <= found)
            and (only is None or (bool(found) and found <= only))
            and (none is None or none.isdisjoint(found))
        )

    return holds


STATIC_FIELDS = ("model", "task", "tenant")
"""Fields with few values: `CompiledPolicy.plan` indexes by them, and by label and stream; a Match's tests on all these
are kept apart."""
TEXT_FIELDS = ("route", "usage", "caller_region")
NUMBER_FIELDS = ("tokens_in", "body_bytes", "deadline_ms")
MAP_FIELDS = ("headers", "labels")


Dynamic = Callable[[Request, float], bool]
"""A test of a request that arrives at a moment (seconds since 1970, UTC)."""


@dataclass(frozen=True, slots=True)
class CompiledMatch:
    """A Match in two halves: what the index knows (`STATIC_FIELDS`), and what differs from request to request."""

    static: Predicate
    dynamic: Dynamic | None  # None: nothing else is asked

    def __call__(self, request: Request, now: float) -> bool:
        return self.static(request) and (self.dynamic is None or self.dynamic(request, now))


@dataclass(frozen=True, slots=True)
class MatchCompiler:
    """Compiles the conditions of one policy. `ranks` maps level names to their order; `zones` knows time zones."""

    ranks: Mapping[str, int]
    zones: Zones = utc_only

    def match(self, match: Match) -> CompiledMatch:
        static = [
            _on(name, text_test(getattr(match, name))) for name in STATIC_FIELDS if getattr(match, name) is not None
        ]
        if match.label is not None:
            static.append(_on("label", label_test(match.label, self.ranks)))
        if match.stream is not None:
            static.append(_on("stream", partial(eq, match.stream)))
        tests = [*self._facts(match), *self._nested(match)]
        return CompiledMatch(_conjunction(static), _both(tests) if tests else None)

    def _facts(self, match: Match) -> Iterator[Dynamic]:
        """The tests on single fields, the cheap ones first."""
        for name in TEXT_FIELDS:
            if getattr(match, name) is not None:
                yield _of(name, text_test(getattr(match, name)))
        for name in NUMBER_FIELDS:
            if getattr(match, name) is not None:
                yield _number(name, getattr(match, name))
        if match.entities is not None:
            yield _of("entities", entity_test(match.entities))
        for name in MAP_FIELDS:
            for key, condition in (getattr(match, name) or {}).items():
                yield _in(name, key, condition)
        if match.time is not None:
            inside = window_test(match.time, self.zones(match.time.zone))
            yield lambda request, now: inside(now)

    def _nested(self, match: Match) -> Iterator[Dynamic]:
        for part in match.all or ():
            yield self.match(part)
        if match.any is not None:
            parts = [self.match(part) for part in match.any]
            yield lambda request, now: any(part(request, now) for part in parts)
        if match.not_ is not None:
            inner = self.match(match.not_)
            yield lambda request, now: not inner(request, now)


def _of(name: str, test: ValueTest) -> Dynamic:
    get = attrgetter(name)
    return lambda request, now: test(get(request))


def _number(name: str, condition: float | Range) -> Dynamic:
    closed = _closed(condition) if isinstance(condition, Range) else None
    if closed is None:
        return _of(name, number_test(condition))
    # In one call: most rules of a policy ask for sizes, and all up to the first that matches are asked.
    body = f"value = request.{name}\nreturn value is not None and low <= value <= high"
    made: Dynamic = function("holds", "request, now", body, dict(zip(("low", "high"), closed, strict=True)))
    return made


def _in(name: str, key: str, condition: TextCondition) -> Dynamic:
    """A test on one entry of a mapping. An absent entry passes only what everything but some text passes."""
    get, test, absent = attrgetter(name), text_test(condition), isinstance(condition, NotText)

    def holds(request: Request, now: float) -> bool:
        value = get(request).get(key)
        return absent if value is None else test(value)

    return holds


def _both(tests: list[Dynamic]) -> Dynamic:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda request, now: first(request, now) and second(request, now)
    return lambda request, now: all(test(request, now) for test in tests)


def _on(name: str, test: ValueTest) -> Predicate:
    get = attrgetter(name)
    return lambda request: test(get(request))


def _conjunction(tests: list[Predicate]) -> Predicate:
    if not tests:
        return lambda request: True
    if len(tests) == 1:
        return tests[0]
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


def reached(match: Match, targets: Sequence[Target]) -> list[Target]:
    """The targets that matching requests may ask for, as far as the model and the task tell."""
    model = text_test(match.model) if match.model is not None else None
    task = text_test(match.task) if match.task is not None else None
    return [
        target
        for target in targets
        if (model is None or model(target.model)) and (task is None or any(task(one) for one in target.tasks))
    ]


def all_matches(policy: Policy) -> Iterator[Match]:
    """Every match of a policy, without those nested in others."""
    for group in (policy.rules, policy.constraints, policy.sensitivity.floors, policy.budgets, policy.limits):
        for one in group:
            yield one.match


def parts(match: Match) -> Iterator[Match]:
    """A match and every match nested in it."""
    yield match
    for part in [*(match.any or ()), *(match.all or ()), *([match.not_] if match.not_ else [])]:
        yield from parts(part)


def label_names(match: Match) -> Iterator[str]:
    """The labels of requests that a match asks for."""
    for part in parts(match):
        yield from part.labels or ()
