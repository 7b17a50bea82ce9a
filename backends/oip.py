"""Backends that speak the Open Inference Protocol v2 over HTTP: Triton, KServe, MLServer, another Pointsman."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from backends.calls import Answer, Call
from backends.errors import BadAnswer, Failed
from backends.jsonbody import NotJson, decode
from backends.oip_codec import HEADER_LENGTH, WireError, decode_answer, encode_request
from backends.remote import RemoteBackend
from backends.tensors import DATATYPES, ModelMetadata, TensorSpec


class OipBackend(RemoteBackend):
    async def send(self, call: Call) -> Answer:
        assert call.infer is not None, "the capability filter lets only tensor calls come here"
        parts, header_length = encode_request(call.infer)
        headers = [
            ("content-type", "application/octet-stream"),
            (HEADER_LENGTH, str(header_length)),
            ("x-request-id", call.request_id),
            *call.trace,
        ]
        response = await self._request("POST", f"{self._model_path(call.model)}/infer", headers, parts)
        await self.refuse(response)
        length = response.header(HEADER_LENGTH)
        try:
            return Answer(infer=decode_answer(response.body, int(length) if length is not None else None))
        except (WireError, ValueError):
            raise BadAnswer(f"{self.spec.name} answered 200 with a body that is no inference answer") from None

    async def probe(self) -> None:
        response = await self._request("GET", "/v2/health/ready")
        if response.status != 200:
            raise Failed(f"{self.spec.name} answered {response.status} to GET /v2/health/ready")

    async def metadata(self, model: str) -> ModelMetadata | None:
        response = await self._request("GET", self._model_path(model))
        await self.refuse(response)
        try:
            body = decode(response.body)
            return ModelMetadata(
                str(body.get("platform", "")),
                tuple(_spec(item) for item in body["inputs"]),
                tuple(_spec(item) for item in body["outputs"]),
            )
        except (NotJson, KeyError, TypeError, AttributeError, ValueError):
            raise BadAnswer(f"{self.spec.name} answered with unreadable metadata") from None

    def _model_path(self, model: str) -> str:
        return f"/v2/models/{quote(self.spec.models[model].upstream or model, safe='')}"


def _spec(item: dict[str, Any]) -> TensorSpec:
    if item["datatype"] not in DATATYPES:
        raise ValueError(item["datatype"])
    return TensorSpec(str(item["name"]), item["datatype"], tuple(int(d) for d in item["shape"]))
