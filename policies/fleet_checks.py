"""What can be wrong with a fleet beyond its schema."""

from __future__ import annotations

from collections.abc import Iterator

from policies.checks import check_duplicates, web_url
from policies.errors import Problem
from policies.schema import Backend, BackendModel, Fleet
from policies.source import Document, Path

IN_PROCESS = ("onnx", "torch")


def check_fleet(fleet: Fleet, document: Document) -> Iterator[Problem]:
    yield from check_duplicates(document, "backend", "backends", [backend.name for backend in fleet.backends])
    for i, backend in enumerate(fleet.backends):
        yield from _check_backend(backend, document, ("backends", i))
    named = fleet.baseline.backend
    if named is not None and named not in [backend.name for backend in fleet.backends if backend.tier == "cloud"]:
        clouds = ", ".join(backend.name for backend in fleet.backends if backend.tier == "cloud")
        yield document.problem(
            ("baseline", "backend"),
            f"'{named}' is no cloud backend of this fleet",
            f"there are: {clouds}" if clouds else "leave `baseline` out: without a cloud there are no savings to count",
        )


def _check_backend(backend: Backend, document: Document, path: Path) -> Iterator[Problem]:
    protocol, remote = backend.protocol, backend.protocol in ("openai", "oip")
    if remote and backend.url is None:
        yield document.problem(
            path, f"'{backend.name}' speaks {protocol} but has no 'url'", "add `url: http://host:port`"
        )
    if backend.url is not None:
        yield from _check_url(backend.url, document, (*path, "url"), remote, protocol)
    for name in ("api_key", "tls"):
        if getattr(backend, name) is not None and not remote:
            yield document.problem(
                (*path, name), f"'{name}' has no meaning for protocol {protocol}", "remove it", key=True
            )
    key = backend.api_key
    if key is not None and (key.env is None) == (key.file is None):
        yield document.problem((*path, "api_key"), "'api_key' takes exactly one of 'env' and 'file'")
    if backend.script is not None and protocol != "fake":
        yield document.problem(
            (*path, "script"), "only a backend of protocol fake has a 'script'", "remove it", key=True
        )
    if backend.price.reserved_per_hour and backend.price.capacity_rps is None:
        yield document.problem(
            (*path, "price", "reserved_per_hour"),
            "'reserved_per_hour' needs 'capacity_rps' beside it, or a request's share of it is unknown",
            "add `capacity_rps: …`, the requests per second this hardware can do",
        )
    for name, model in backend.models.items():
        yield from _check_model(model, protocol, document, (*path, "models", name))


def _check_url(url: str, document: Document, path: Path, remote: bool, protocol: str) -> Iterator[Problem]:
    if not remote:
        yield document.problem(path, f"a backend of protocol {protocol} has no 'url'", "remove it", key=True)
        return
    parts = web_url(url)
    # The URL itself may hold a secret (user:password@), so no message repeats it.
    if parts is None:
        yield document.problem(path, "not a URL of the form http(s)://host[:port][/prefix]")
    elif parts.username is not None or parts.password is not None:
        yield document.problem(path, "a URL must not carry a user or password", "use `api_key: {env: NAME}`")
    elif parts.query or parts.fragment:
        yield document.problem(path, "a base URL has no '?' or '#' part", "remove it")


def _check_model(model: BackendModel, protocol: str, document: Document, path: Path) -> Iterator[Problem]:
    if protocol in IN_PROCESS and model.artifact is None:
        suffix = {"onnx": ".onnx", "torch": ".pt2"}[protocol]
        yield document.problem(path, f"model '{path[-1]}' has no 'artifact'", f"add `artifact: path/to/model{suffix}`")
    if protocol not in IN_PROCESS and model.artifact is not None:
        yield document.problem((*path, "artifact"), f"protocol {protocol} loads no artifact", "remove it", key=True)
    if protocol not in IN_PROCESS and model.batching is not None:
        hint = f"remove it: only models that the router runs itself ({', '.join(IN_PROCESS)}) are batched by it"
        yield document.problem(
            (*path, "batching"), f"'batching' has no meaning for protocol {protocol}", hint, key=True
        )
