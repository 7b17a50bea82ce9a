"""Whether every request that one match fits is fitted by another: what can be said for sure, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from policies.match import TEXT_FIELDS, is_pattern, text_test
from policies.schema import LabelRange, Match, NotText, Range

_OTHERS = ("entities", "stream", "time", "any", "all", "not_")
"""Fields that are compared for equality only."""


def implies(narrow: Match, wide: Match, levels: Sequence[str]) -> bool:
    """True only where it is certain."""
    narrow, wide = _flat(narrow), _flat(wide)
    for name in ("model", "task", "tenant", *TEXT_FIELDS):
        if not _text(getattr(narrow, name), getattr(wide, name)):
            return False
    for name in ("tokens_in", "body_bytes", "deadline_ms"):
        if not _number(getattr(narrow, name), getattr(wide, name)):
            return False
    if wide.label is not None and (
        narrow.label is None or not _ranks(narrow.label, levels) <= _ranks(wide.label, levels)
    ):
        return False
    for name in ("headers", "labels"):
        mine: Mapping[str, Any] = getattr(narrow, name) or {}
        for key, condition in (getattr(wide, name) or {}).items():
            if not _text(mine.get(key), condition):
                return False
    return all(getattr(wide, name) in (None, getattr(narrow, name)) for name in _OTHERS)


def _flat(match: Match) -> Match:
    """With what `all` adds written into the match itself, where no field then stands twice."""
    if match.all is None:
        return match
    fields = {name: getattr(match, name) for name in match.model_fields_set if name != "all"}
    for part in match.all:
        more = _flat(part)
        for name in more.model_fields_set:
            if name in fields:
                return match
            fields[name] = getattr(more, name)
    return Match.model_construct(**fields)


def _text(narrow: Any, wide: Any) -> bool:
    if wide is None or narrow == wide:
        return True
    if narrow is None or isinstance(narrow, NotText):
        return False
    test = text_test(wide)
    patterns = [wide] if isinstance(wide, str) else wide if isinstance(wide, list) else []
    return all(test(one) if not is_pattern(one) else one in patterns for one in _listed(narrow))


def _listed(condition: Any) -> list[str]:
    return [condition] if isinstance(condition, str) else list(condition)


def _number(narrow: Any, wide: Any) -> bool:
    if wide is None or narrow == wide:
        return True
    if narrow is None:
        return False
    low, low_open, high, high_open = _span(narrow)
    least, least_open, most, most_open = _span(wide)
    return (low, low_open) >= (least, least_open) and (high, not high_open) <= (most, not most_open)


def _span(condition: float | Range) -> tuple[float, bool, float, bool]:
    """(lowest, whether it is left out, highest, whether it is left out)."""
    if not isinstance(condition, Range):
        return condition, False, condition, False
    lows = [(b, o) for b, o in ((condition.gte, False), (condition.gt, True)) if b is not None]
    highs = [(b, o) for b, o in ((condition.lte, False), (condition.lt, True)) if b is not None]
    low, low_open = max(lows, default=(float("-inf"), False))
    high, closed = min(((b, not o) for b, o in highs), default=(float("inf"), True))
    return low, low_open, high, not closed


def _ranks(condition: Any, levels: Sequence[str]) -> frozenset[int]:
    if isinstance(condition, LabelRange):
        low = levels.index(condition.gte) if condition.gte is not None else 0
        high = levels.index(condition.lte) if condition.lte is not None else len(levels) - 1
        excluded = _ranks(condition.not_, levels) if condition.not_ is not None else frozenset()
        return frozenset(range(low, high + 1)) - excluded
    return frozenset(levels.index(one) for one in _listed(condition))
