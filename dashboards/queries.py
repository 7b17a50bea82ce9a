"""Pieces of PromQL. `$job` and `$instance` are variables of every dashboard."""

from __future__ import annotations

CHOSEN = 'job=~"$job", instance=~"$instance"'
RECORDED = 'job=~"$job"'
"""Recording rules have summed the instances, but for those that say so in their names."""


def of(name: str, *matchers: str) -> str:
    """A metric, of the routers that were chosen."""
    return f"{name}{{{', '.join((CHOSEN, *matchers))}}}"


def recorded(name: str, *matchers: str) -> str:
    return f"{name}{{{', '.join((RECORDED, *matchers))}}}"


def rate(name: str, *matchers: str) -> str:
    """By the second."""
    return f"rate({of(name, *matchers)}[$__rate_interval])"


def grown(name: str, *matchers: str) -> str:
    """Over the time that the dashboard shows."""
    return f"increase({of(name, *matchers)}[$__range])"


def total(expr: str, *by: str) -> str:
    return f"sum by ({', '.join(by)}) ({expr})" if by else f"sum({expr})"


def share(part: str, whole: str) -> str:
    """0 where there is nothing at all. The least that a rate or an increase can be is far above 1e-9."""
    return f"({part}) / clamp_min({whole}, 1e-9)"


def or_zero(expr: str) -> str:
    return f"{expr} or vector(0)"


def or_none(expr: str, label: str, value: float = 0, text: str = "none") -> str:
    """One series that says so where there is none. `or vector(0)` would add one to those that there are."""
    return f'{expr} or (label_replace(vector({value:g}), "{label}", "{text}", "", "") unless on () ({expr}))'


def quantile(q: float, name: str, *matchers: str, by: tuple[str, ...] = ()) -> str:
    """Nothing, and not NaN, where there was nothing to measure."""
    return f"histogram_quantile({q}, {total(rate(f'{name}_bucket', *matchers), 'le', *by)}) >= 0"


def among(label: str) -> str:
    """Those that the variable of this name has chosen."""
    return f'{label}=~"${label}"'
