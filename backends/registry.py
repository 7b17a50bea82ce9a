"""Which class answers for which protocol: the one table to add a backend to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from backends.calls import Backend
from policies.schema import Backend as BackendSpec

Builder = Callable[[BackendSpec, Path, str | None], Backend]
"""(fleet entry, folder its relative paths start from, API key) -> backend. Imports lazily: nobody pays for what
they do not use."""


def _onnx(spec: BackendSpec, folder: Path, api_key: str | None) -> Backend:
    from backends.onnx import OnnxBackend

    return OnnxBackend(spec, folder)


def _torch(spec: BackendSpec, folder: Path, api_key: str | None) -> Backend:
    from backends.torch import TorchBackend

    return TorchBackend(spec, folder)


def _openai(spec: BackendSpec, folder: Path, api_key: str | None) -> Backend:
    from backends.openai import OpenAIBackend

    return OpenAIBackend(spec, folder, api_key)


def _oip(spec: BackendSpec, folder: Path, api_key: str | None) -> Backend:
    from backends.oip import OipBackend

    return OipBackend(spec, folder, api_key)


def _fake(spec: BackendSpec, folder: Path, api_key: str | None) -> Backend:
    from backends.fake import FakeBackend

    return FakeBackend(spec)


BUILDERS: Mapping[str, Builder] = {"onnx": _onnx, "torch": _torch, "openai": _openai, "oip": _oip, "fake": _fake}
