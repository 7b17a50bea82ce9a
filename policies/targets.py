"""A fleet's entries as the targets that decisions choose between, and the attributes that constraints ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from policies.schema import Backend, BackendModel, Fleet
from policies.types import Target

WIRES: Mapping[str, tuple[str, ...]] = {
    "openai": ("openai",),
    "oip": ("oip",),
    "onnx": ("oip",),
    "torch": ("oip",),
    "fake": ("openai", "oip"),
}
"""Which wires a backend of each protocol can answer."""


def build_targets(fleet: Fleet, ranks: Mapping[str, int], g_per_kwh: Sequence[float]) -> tuple[Target, ...]:
    """Every model at every backend, in the fleet's order. `g_per_kwh` of each backend, whatever the hour."""
    targets: list[Target] = []
    for b, backend in enumerate(fleet.backends):
        clearance = ranks[backend.clearance] if backend.clearance is not None else 0
        for name in backend.models:
            targets.append(_target(len(targets), b, backend, name, clearance, g_per_kwh[b]))
    return tuple(targets)


def attributes(backend: Backend, model: BackendModel, g_per_kwh: float) -> dict[str, str | float | bool]:
    """What a constraint may require of a target, by dotted name. What is not stated is left out."""
    stated: dict[str, Any] = {
        "name": backend.name, "tier": backend.tier, "region": backend.region, "zone": backend.zone,
        "protocol": backend.protocol, "quality": model.quality, "context_tokens": model.context_tokens,
        "licence.spdx": model.licence.spdx, "licence.commercial_use": model.licence.commercial_use,
        "price.per_request": backend.price.per_request, "price.input_per_mtok": backend.price.input_per_mtok,
        "price.output_per_mtok": backend.price.output_per_mtok,
        "carbon.zone": backend.carbon.zone, "carbon.g_per_kwh": g_per_kwh,
        "retention.days": backend.retention.days, "retention.training": backend.retention.training,
    }  # fmt: skip
    stated |= {f"labels.{name}": value for name, value in backend.labels.items()}
    return {name: value for name, value in stated.items() if value is not None}


def _target(index: int, backend_index: int, backend: Backend, name: str, clearance: int, g_per_kwh: float) -> Target:
    model, price = backend.models[name], backend.price
    amortised = price.reserved_per_hour / 3600 / price.capacity_rps if price.capacity_rps else 0.0
    return Target(
        index=index,
        backend=backend.name,
        backend_index=backend_index,
        model=name,
        tier=backend.tier,
        region=backend.region,
        tasks=model.tasks,
        protocols=WIRES[backend.protocol],
        clearance=clearance,
        quality=model.quality or 0.0,
        context_tokens=model.context_tokens,
        max_in_flight=backend.limits.max_in_flight,
        max_queued=backend.limits.max_queued,
        prior_ms=backend.latency.prior_ms,
        prior_ttft_ms=backend.latency.prior_ttft_ms or backend.latency.prior_ms,
        usd_per_request=price.per_request + amortised,
        reserved_usd=amortised,
        usd_per_token_in=price.input_per_mtok / 1e6,
        usd_per_token_out=price.output_per_mtok / 1e6,
        usd_per_second=price.per_second,
        active_w=backend.energy.active_w,
        g_per_kwh=g_per_kwh,
        attributes=attributes(backend, model, g_per_kwh),
    )
