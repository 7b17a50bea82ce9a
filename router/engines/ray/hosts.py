"""Backends that are too big for the router's process: a deployment for each, and how the service sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from backends.calls import Answer, Call
from backends.errors import BackendError, Failed, RequestRejected, Unreachable
from backends.registry import BUILDERS
from backends.tensors import ModelMetadata
from policies.schema import Backend as BackendSpec
from policies.schema import Batching
from router.stamps import Stamp, stamp

OWN_DEPLOYMENT = ("torch",)
"""Protocols whose models get a deployment of their own rather than a place in the router's process."""


class BackendHost:
    """One in-process backend in a process of its own."""

    async def __init__(self, spec: BackendSpec, folder: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self._backend = BUILDERS[spec.protocol](spec, Path(folder), None)
        await self._backend.start()

    async def send(self, call: Call) -> Answer | BackendError | RequestRejected:
        """Expected failures come back as values: a raised one would arrive wrapped in Ray's own."""
        try:
            return await self._backend.send(call)
        except (BackendError, RequestRejected) as error:
            return error

    async def metadata(self, model: str) -> ModelMetadata | None:
        return await self._backend.metadata(model)

    async def probe(self) -> None:
        await self._backend.probe()


def models_of(spec: BackendSpec, folder: Path) -> list[tuple[str, Stamp, Batching | None]]:
    """What a deployment has loaded, and how it runs that: another file is another model."""
    return [(name, stamp(folder / (model.artifact or "")), model.batching) for name, model in spec.models.items()]


class HostedBackend:
    """A BackendHost as the service sees it."""

    def __init__(self, spec: BackendSpec, handle: Any) -> None:
        self.spec = spec
        self._handle = handle

    async def start(self) -> None:
        if self._handle is None:
            raise Failed(f"{self.spec.name}: it is new or has other models, and needs a new deployment: serve again")

    async def send(self, call: Call) -> Answer:
        result = await self._remote("send", call)
        if isinstance(result, BackendError | RequestRejected):
            raise result
        assert isinstance(result, Answer)
        return result

    async def probe(self) -> None:
        await self._remote("probe")

    async def metadata(self, model: str) -> ModelMetadata | None:
        found: ModelMetadata | None = await self._remote("metadata", model)
        return found

    async def aclose(self) -> None: ...

    async def _remote(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except ray.exceptions.RayActorError:
            raise Unreachable(f"{self.spec.name}: its process is gone") from None
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise Failed(f"{self.spec.name}: its deployment failed ({type(error).__name__})") from error
