"""Lints about detectors."""

from __future__ import annotations

from collections.abc import Iterator

from policies.errors import Problem
from policies.lint.context import Linted
from policies.match import all_matches, parts


def detector_unused(linted: Linted) -> Iterator[Problem]:
    if any(part.entities is not None for match in all_matches(linted.policy) for part in parts(match)):
        return
    if any(rule.transform is not None for rule in linted.policy.rules):
        return
    levels, default = linted.compiled.levels, linted.compiled.default_label
    for i, detector in enumerate(linted.policy.sensitivity.detectors):
        if levels.index(detector.label) <= default:
            yield linted.in_policy(
                ("sensitivity", "detectors", i, "label"),
                "PM105",
                f"detector '{detector.use}' raises to {detector.label}, and every request is {levels[default]} anyway",
            )
