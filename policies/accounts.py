"""What an answer has cost, by the fleet's prices: money, energy, carbon; and what the cloud would have asked for it.

The same functions price what the live router counts, what `report` sums up, and what a test recomputes.
"""

from __future__ import annotations

from collections.abc import Sequence

from policies.estimate import carbon_g, cost_usd, energy_j
from policies.types import Snapshot, Target, Value


class Charge(Value, frozen=True, gc=False, omit_defaults=True):
    """One answer that has to be paid for, used or not."""

    backend: str
    tier: str
    model: str
    seconds: float  # for which it was served
    usd: float  # what is paid by the hour counts with its share at full capacity
    purpose: str = "answer"  # answer | unused (hedges, escalations, calls given up) | broken (ended early) | copy
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: bool = False  # whether the tokens are: the backend told none
    reserved_usd: float = 0.0  # of `usd`, its share of what is paid by the hour
    energy_j: float = 0.0  # modelled from watts and seconds
    carbon_g: float = 0.0

    @property
    def marginal_usd(self) -> float:
        """What this answer alone has added."""
        return self.usd - self.reserved_usd


def charge(
    target: Target,
    purpose: str,
    tokens_in: int,
    tokens_out: int,
    estimated: bool,
    seconds: float,
    g_per_kwh: float | None = None,
) -> Charge:
    """`g_per_kwh` is what the power emits now; None: as the fleet says."""
    usd = cost_usd(target, tokens_in, tokens_out, seconds)
    joules = energy_j(target, seconds) if target.active_w else 0.0
    return Charge(
        target.backend,
        target.tier,
        target.model,
        seconds,
        usd,
        purpose,
        tokens_in,
        tokens_out,
        estimated,
        target.reserved_usd,
        joules,
        carbon_g(joules, target.g_per_kwh if g_per_kwh is None else g_per_kwh) if joules else 0.0,
    )


def baseline_usd(alternatives: Sequence[Target], tokens_in: int, tokens_out: int, snapshot: Snapshot) -> float | None:
    """What an answer of so many tokens would have cost at the cheapest of these; None where there are none."""
    least = None
    for target in alternatives:
        cost = cost_usd(target, tokens_in, tokens_out, _seconds(target, snapshot) if target.usd_per_second else 0.0)
        if least is None or cost < least:
            least = cost
    return least


def competing(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Those that may be the cheapest of these: without any that another never asks more than."""
    kept: list[Target] = []
    for target in targets:
        if not any(_never_dearer(other, target) for other in kept):
            kept = [other for other in kept if not _never_dearer(target, other)] + [target]
    return tuple(kept)


def _never_dearer(one: Target, other: Target) -> bool:
    return (
        one.usd_per_request <= other.usd_per_request
        and one.usd_per_token_in <= other.usd_per_token_in
        and one.usd_per_token_out <= other.usd_per_token_out
        and not one.usd_per_second
    )


def _seconds(target: Target, snapshot: Snapshot) -> float:
    measured = snapshot.latency_ms[target.index]
    return (target.prior_ms if measured is None else measured) / 1000
