"""Which dashboards there are, and where they are committed."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import backends, costs, overview, policy, tenants
from dashboards.board import text

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "grafana"


def dashboards() -> dict[str, Dashboard]:
    """By the name of the file."""
    return {f"{module.__name__.rpartition('.')[2]}.json": module.dashboard()
            for module in (overview, policy, backends, costs, tenants)}  # fmt: skip


def texts() -> dict[str, str]:
    return {name: text(made) for name, made in dashboards().items()}
