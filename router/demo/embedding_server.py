"""A real embedding model with an OpenAI-compatible API.

    python -m router.demo.embedding_server --port P [--alias NAME]

The model is WordLlama (averaged token embeddings, 256 dimensions), whose weights ship in its package: good
for likeness of meaning in English, and so small that a CPU embeds thousands of sentences a second.

`POST /v1/embeddings`, `GET /v1/models`, `GET /health`, on 127.0.0.1 only. Vectors have unit length, as
OpenAI's do. `dimensions` may be 64, 128 or 256: the model is trained to be cut there.
"""

import argparse
import base64
import importlib.util
import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from router.demo.lifeline import live_with_parent

DIMENSIONS = (64, 128, 256)
MAX_INPUTS = 2048
MAX_TOKENS = 8192
MAX_BODY = 8 * 2**20
# A batch is padded to its longest text: this, times MAX_TOKENS, bounds the memory of one call to 64 MiB.
_BATCH = 8


class Refusal(Exception):
    """What the caller got wrong, with the fields of OpenAI's errors."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


@dataclass(frozen=True)
class Question:
    """A checked request: what to embed and how to answer."""

    texts: list[str]
    dimensions: int
    as_base64: bool


def load() -> Any:
    """The model, from its package folder; raises FileNotFoundError rather than download anything."""
    found = importlib.util.find_spec("wordllama")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("the demo's embedding model comes with wordllama: run `make setup`")
    from wordllama import WordLlama

    folder = Path(found.submodule_search_locations[0])
    return WordLlama.load(cache_dir=folder, dim=max(DIMENSIONS), disable_download=True)


def create_app(model: Any, alias: str) -> Starlette:
    """The server for one loaded model, known to callers as `alias`."""

    async def embeddings(request: Request) -> JSONResponse:
        question = parse(await _body(request), alias)
        vectors, tokens = await run_in_threadpool(embed, model, question)
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, question.as_base64)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": alias, "usage": usage})

    async def models(_: Request) -> JSONResponse:
        entry = {"id": alias, "object": "model", "created": 0, "owned_by": "wordllama"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ],
        exception_handlers={Refusal: _refused},
    )


def parse(body: bytes, alias: str) -> Question:
    """Check a request's body; raises Refusal naming the parameter at fault."""
    try:
        asked = json.loads(body)
    except ValueError:
        raise Refusal("the body is not JSON") from None
    if not isinstance(asked, dict):
        raise Refusal("the body must be a JSON object")
    if not isinstance(model := asked.get("model"), str):
        raise Refusal("model must be a string", "model")
    if model != alias:
        raise Refusal(f"no model {model!r} here, only {alias!r}", "model", "model_not_found", 404)
    texts = [asked["input"]] if isinstance(asked.get("input"), str) else asked.get("input")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refusal("input must be a string or a list of strings (arrays of tokens are not taken)", "input")
    if len(texts) > MAX_INPUTS:
        raise Refusal(f"input has {len(texts)} strings, more than {MAX_INPUTS}", "input")
    encoding = asked.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise Refusal("encoding_format must be 'float' or 'base64'", "encoding_format")
    dimensions = asked.get("dimensions")
    if dimensions is not None and (isinstance(dimensions, bool) or dimensions not in DIMENSIONS):
        raise Refusal(f"dimensions must be one of {', '.join(map(str, DIMENSIONS))}", "dimensions")
    return Question(texts, dimensions or max(DIMENSIONS), encoding == "base64")


def embed(model: Any, question: Question) -> tuple[NDArray[np.float32], int]:
    """Unit vectors, FP32 [texts, dimensions], and how many tokens were read.

    Raises Refusal for a text without tokens (it has no direction) or with more than MAX_TOKENS.
    """
    # Padding, which the tokenizer adds, is masked out and not charged.
    counts = [sum(encoded.attention_mask) for encoded in model.tokenize(question.texts)]
    for index, count in enumerate(counts):
        if not 0 < count <= MAX_TOKENS:
            raise Refusal(f"input {index} has {count} tokens; it must have 1 to {MAX_TOKENS}", "input")
    vectors = model.embed(question.texts, batch_size=_BATCH)[:, : question.dimensions]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), sum(counts)


def _written(vector: NDArray[np.float32], as_base64: bool) -> str | list[float]:
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise Refusal(f"the body is larger than {MAX_BODY} bytes", status=413)
    return bytes(body)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    facts = {"message": error.message, "type": "invalid_request_error", "param": error.param, "code": error.code}
    return JSONResponse({"error": facts}, status_code=error.status)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m router.demo.embedding_server", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--alias", default="wordllama-256", help="the model's name in the API")
    options = parser.parse_args(arguments)
    live_with_parent()
    import uvicorn

    try:
        app = create_app(load(), options.alias)
    except (OSError, ImportError) as error:
        print(f"error: no embedding server on port {options.port}: {error}", file=sys.stderr)
        return 1
    # uvicorn ends in good order and then raises the signal again; without this it would count as a failure.
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: sys.exit(0))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
