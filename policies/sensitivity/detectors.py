"""Detectors: text in, entities out. What they find raises the label; their failure raises it to the top.

To add one: a class with `name`, `label` and `scan`, its schema in `policies.schema`, one line in BUILDERS.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from policies.schema import Keywords, Sensitivity


class Detector(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def label(self) -> int:
        """Rank a finding raises the request to."""

    def scan(self, texts: Iterable[str], /) -> Mapping[str, int]:
        """Entities found in all texts together: type -> count. Never the text itself."""


def normalise(text: str) -> str:
    """One spelling for full-width, half-width, composed and differently cased forms of the same text."""
    return unicodedata.normalize("NFKC", text).casefold()


@dataclass(frozen=True, slots=True)
class KeywordDetector:
    name: str
    label: int
    pattern: re.Pattern[str]

    def scan(self, texts: Iterable[str], /) -> Mapping[str, int]:
        count = sum(len(self.pattern.findall(normalise(text))) for text in texts)
        return {"KEYWORD": count} if count else {}


def _keywords(settings: Keywords, ranks: Mapping[str, int]) -> Detector:
    words = sorted({normalise(word) for word in settings.words}, key=len, reverse=True)
    return KeywordDetector("keywords", ranks[settings.label], re.compile("|".join(map(re.escape, words))))


BUILDERS: dict[str, Callable[[Any, Mapping[str, int]], Detector]] = {"keywords": _keywords}
"""Every detector by the value of its `use`."""


def build_detectors(sensitivity: Sensitivity, ranks: Mapping[str, int]) -> tuple[Detector, ...]:
    return tuple(BUILDERS[settings.use](settings, ranks) for settings in sensitivity.detectors)
