"""Detectors by the value of their `use`. What they find raises the label; their failure raises it to the top.

To add one that is made of patterns: its schema in `policies.schema`, a line in BUILDERS. One that looks for itself,
as `ner` does, implements `Detector`, or `Locator` where what it finds is to be masked, and goes to
`Scanner(others=…)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policies.schema import Keywords, Patterns, Pii, Secrets, Sensitivity
from policies.schema import Ner as NerSettings
from policies.sensitivity import credentials, pii
from policies.sensitivity.entities import canonical
from policies.sensitivity.keywords import Pattern, Words
from policies.sensitivity.ner import LABELS, Ner, Recognisers, none_here
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
"""Every detector that is made of patterns, by the value of its `use`."""


def build_detectors(
    sensitivity: Sensitivity, ranks: Mapping[str, int], recognisers: Recognisers = none_here
) -> Scanner:
    """`recognisers` knows the models that `ner` may name."""
    return Scanner(
        tuple(
            RuleSet(settings.use, ranks[settings.label], BUILDERS[settings.use](settings))
            for settings in sensitivity.detectors
            if not isinstance(settings, NerSettings)
        ),
        tuple(
            _ner(settings, ranks[settings.label], recognisers)
            for settings in sensitivity.detectors
            if isinstance(settings, NerSettings)
        ),
        limit=sensitivity.scan_bytes,
    )


def _ner(settings: NerSettings, label: int, recognisers: Recognisers) -> Ner:
    entities = frozenset(map(canonical, settings.entities))
    labels = {**LABELS, **{name: canonical(kind) for name, kind in settings.labels.items()}}
    return Ner(label, entities, settings.timeout_ms / 1000, recognisers(settings.model), labels)
