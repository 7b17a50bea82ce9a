"""Lints: what is valid and probably not meant. Warnings with stable codes; `pointsman check --explain CODE`.

To add one: a function that yields Problems, its code in CODES, one line in LINTS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from policies.errors import Problem
from policies.lint.codes import CODES
from policies.lint.context import Linted
from policies.lint.fleet import backend_unreachable, clearance_loose
from policies.lint.requests import constraint_leaves_none, quota_matches_nothing
from policies.lint.rules import (
    cascade_leads_nowhere,
    fallback_never_fires,
    matches_unserved,
    objective_term_without_weight,
    rule_shadowed,
    slo_out_of_reach,
    split_out_of_reach,
)
from policies.lint.sensitivity import detector_unused

LINTS: tuple[Callable[[Linted], Iterator[Problem]], ...] = (
    rule_shadowed,
    constraint_leaves_none,
    backend_unreachable,
    clearance_loose,
    detector_unused,
    objective_term_without_weight,
    slo_out_of_reach,
    fallback_never_fires,
    quota_matches_nothing,
    matches_unserved,
    split_out_of_reach,
    cascade_leads_nowhere,
)

__all__ = ["CODES", "LINTS", "Linted", "lint"]


def lint(linted: Linted) -> list[Problem]:
    """Every finding, in file order."""
    return sorted({problem for one in LINTS for problem in one(linted)})
