"""Detectors by the value of their `use`. What they find raises the label; their failure raises it to the top.

To add one that is made of patterns: its schema in `policies.schema`, a line in BUILDERS. One that looks for itself
(a model of names, say) implements `Detector` and goes to `Scanner(others=…)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policies.schema import Keywords, Patterns, Pii, Secrets, Sensitivity
from policies.sensitivity import credentials, pii
from policies.sensitivity.entities import canonical
from policies.sensitivity.keywords import Pattern, Words
from policies.sensitivity.rules import Rule
from policies.sensitivity.scanner import Detector, RuleSet, Scanner

__all__ = ["BUILDERS", "Detector", "build_detectors"]


def _keywords(settings: Keywords) -> tuple[Rule, ...]:
    return (Words(tuple(settings.words)),)


def _pii(settings: Pii) -> tuple[Rule, ...]:
    entities = pii.DEFAULT if settings.entities is None else tuple(dict.fromkeys(map(canonical, settings.entities)))
    return pii.rules_for(entities, tuple(settings.regions))


def _secrets(settings: Secrets) -> tuple[Rule, ...]:
    return tuple(rule for rules in credentials.RULES.values() for rule in rules)


def _patterns(settings: Patterns) -> tuple[Rule, ...]:
    return tuple(Pattern(name, pattern) for name, pattern in settings.patterns.items())


BUILDERS: Mapping[str, Callable[[Any], tuple[Rule, ...]]] = {
    "keywords": _keywords,
    "pii": _pii,
    "secrets": _secrets,
    "patterns": _patterns,
}
"""Every detector by the value of its `use`."""


def build_detectors(sensitivity: Sensitivity, ranks: Mapping[str, int]) -> Scanner:
    return Scanner(
        tuple(
            RuleSet(settings.use, ranks[settings.label], BUILDERS[settings.use](settings))
            for settings in sensitivity.detectors
        ),
        limit=sensitivity.scan_bytes,
    )
