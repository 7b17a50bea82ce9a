"""What goes to a backend and what comes back, whatever its protocol."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from backends.tensors import InferAnswer, InferRequest, ModelMetadata
from policies.schema import Backend as BackendSpec
from policies.types import Value


class Call(Value, frozen=True):
    """One inference call as the client made it. Exactly one of `body` and `infer` is the payload."""

    model: str  # the client's name for the model
    path: str  # the OpenAI path, such as /v1/chat/completions; "" for Open Inference Protocol calls
    body: bytes = b""  # JSON, as the client sent it
    stream: bool = False
    infer: InferRequest | None = None
    request_id: str = ""
    repeatable: bool = True  # whether it may be sent twice: it leaves nothing behind at the backend
    label: int = 0  # the request's sensitivity, for the guard where the connection is dialled

    def __repr__(self) -> str:  # never the payload
        return f"Call(model={self.model!r}, path={self.path!r}, request_id={self.request_id!r}, …)"


class Usage(NamedTuple):
    """Tokens as the backend counted them."""

    tokens_in: int
    tokens_out: int

    @classmethod
    def told(cls, tokens_in: int, tokens_out: int) -> Usage | None:
        """What a backend says it counted; None where that cannot be."""
        return cls(tokens_in, tokens_out) if 0 <= tokens_in < 2**31 and 0 <= tokens_out < 2**31 else None


class Chunks(Protocol):
    """A body as it arrives. `aclose` ends it early and frees what it holds; it may be called at any time, twice too.
    A failure while it arrives raises BackendError."""

    def __aiter__(self) -> Chunks: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


class Answer(Value, frozen=True):
    """A good answer: a whole JSON body, a stream that has begun, or tensors."""

    body: bytes | None = None
    chunks: Chunks | None = None  # server-sent events; the first has arrived
    infer: InferAnswer | None = None
    usage: Usage | None = None
    together: int = 0  # requests that the model ran as one with this, itself included; 0: it does not batch

    def __repr__(self) -> str:  # never the payload
        return f"Answer(usage={self.usage!r}, …)"


class Backend(Protocol):
    """Something that can answer. `send` raises only what backends.errors lists."""

    spec: BackendSpec

    async def start(self) -> None:
        """Load what must be loaded. Raises BackendError when it cannot."""

    async def send(self, call: Call) -> Answer: ...

    async def probe(self) -> None:
        """Cheap sign of life; raises BackendError when there is none."""

    async def metadata(self, model: str) -> ModelMetadata | None:
        """Inputs and outputs of a tensor model; None where the backend cannot say."""

    async def aclose(self) -> None: ...
