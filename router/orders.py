"""What all processes of a router are told at once, whichever of them was asked: to reload, to log at another level."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

Order = Callable[..., Awaitable[Any]]
"""Carries it out in this process. Arguments and result can be sent to another one; it raises nothing."""
Everywhere = Callable[..., Awaitable[list[Any]]]
"""Has an order, by name and arguments, carried out in every process, this one included: what each of them says."""

RELOAD, LOG_LEVEL, DRAIN = "reload", "log-level", "drain"


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of a reload. `policy` is the digest that is live now."""

    outcome: str  # swapped | unchanged | refused
    policy: str
    problems: tuple[str, ...] = ()


class Orders:
    """Those that this process knows. `everywhere`, and `on_this_node` for what concerns one machine only, reach this
    process alone, until an engine with several replaces them."""

    def __init__(self, known: Mapping[str, Order]) -> None:
        self._known = dict(known)
        self.everywhere: Everywhere = self._alone
        self.on_this_node: Everywhere = self._alone

    def learn(self, name: str, order: Order) -> None:
        self._known[name] = order

    async def obey(self, name: str, *arguments: str) -> Any:
        return await self._known[name](*arguments)

    async def _alone(self, name: str, *arguments: str) -> list[Any]:
        return [await self.obey(name, *arguments)]
