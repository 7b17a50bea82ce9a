"""The second check of clearance, where the call leaves: independent of `decide`, in front of every backend.

It reads the fleet and the levels by itself, so that a mistake in the evaluator, a fallback list or a future path
cannot send anything above clearance. What it does not know it refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from backends.calls import Answer, Backend, Call
from backends.tensors import ModelMetadata
from policies.schema import Fleet

log = logging.getLogger("pointsman.guard")


class EgressBlocked(Exception):
    """A call above its backend's clearance was about to leave. A defect elsewhere; the call did not leave."""


class GuardedBackend:
    """A backend that cannot be sent anything above its clearance."""

    def __init__(
        self, backend: Backend, fleet: Fleet, levels: tuple[str, ...], on_block: Callable[[str], None]
    ) -> None:
        self.spec = backend.spec
        self._backend = backend
        self._on_block = on_block
        stated = next((entry.clearance for entry in fleet.backends if entry.name == backend.spec.name), None)
        self._permitted = levels[: levels.index(stated) + 1] if stated in levels else levels[:1]
        self._levels = levels

    async def send(self, call: Call) -> Answer:
        label = self._levels[call.label] if 0 <= call.label < len(self._levels) else None
        if label not in self._permitted:
            name = self.spec.name
            log.error("egress blocked: label %s to backend %s, request %s", label, name, call.request_id)
            self._on_block(name)
            raise EgressBlocked(f"a request labelled {label} must not go to {name}")
        return await self._backend.send(call)

    async def start(self) -> None:
        await self._backend.start()

    async def probe(self) -> None:
        await self._backend.probe()

    async def metadata(self, model: str) -> ModelMetadata | None:
        return await self._backend.metadata(model)

    async def aclose(self) -> None:
        await self._backend.aclose()
