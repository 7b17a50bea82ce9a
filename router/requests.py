"""A parsed call and its hints as the `Request` that a decision is made from."""

from __future__ import annotations

import msgspec

from policies.compile import CompiledPolicy
from policies.schema import HttpRequest
from policies.sensitivity.labels import Label, label
from policies.types import Request
from router.errors import ApiError
from router.hints import Hints, parse_hints
from router.wire import oip, openai
from router.wire.parsed import Parsed


def build_request(
    parsed: Parsed,
    hints: Hints,
    policy: CompiledPolicy,
    body_bytes: int,
    decision_id: str,
    now: float,
    tenant: str = "anonymous",
) -> tuple[Request, Label]:
    """The request with its label. Its id is the caller's where the caller gave one; `now` is seconds since 1970."""
    request = Request(
        id=hints.request_id or decision_id,
        model=parsed.model,
        task=parsed.task,
        protocol=parsed.wire,
        tenant=tenant,
        usage=hints.usage,
        tokens_in=parsed.tokens_in,
        tokens_out=parsed.tokens_out,
        body_bytes=body_bytes,
        deadline_ms=(hints.ttft_ms or hints.latency_ms) if parsed.stream else hints.latency_ms,
        stream=parsed.stream,
        no_fallback=hints.no_fallback,
        route=parsed.path,
        session=hints.session,
        caller_region=hints.caller_region,
        headers=hints.headers,
        labels={n: v for n, v in {**parsed.labels(), **hints.labels}.items() if n in policy.label_names},
    )
    texts = parsed.texts() if policy.detectors else ()
    if texts and hints.request_id:
        texts = [*texts, hints.request_id]  # it goes to the backend too
    found = label(policy.floor(request, now), len(policy.levels) - 1, policy.detectors, texts, header=hints.label)
    return request.labelled(found.rank, None, frozenset(found.entities)), found


def from_http(http: HttpRequest, policy: CompiledPolicy, limit: int, now: float) -> Request:
    """The request that the data API would make of this one. Raises the ApiError that it would answer with."""
    body = msgspec.json.encode(http.body)
    headers = {name.lower().encode(): value.encode() for name, value in http.headers.items()}
    model = oip.match_model(http.path)
    if http.path in openai.TASKS:
        parsed = openai.parse(http.path, body)
    elif model is not None and model[1] == "infer":
        parsed = oip.parse(model[0], headers, body, policy, limit)
    else:
        raise ApiError("not_found", f"no inference path '{http.path[:100]}'", f"try {', '.join(openai.TASKS)}")
    hints = parse_hints(headers.items(), policy)
    return build_request(parsed, hints, policy, len(body), "explain", now, http.tenant)[0]
