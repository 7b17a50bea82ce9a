"""A parsed call and its hints, or facts from a file, as the `Request` that a decision is made from."""

from __future__ import annotations

import msgspec

from policies.compile import CompiledPolicy
from policies.schema import HttpRequest, RequestFacts
from policies.sensitivity.labels import Label, label
from policies.types import Request
from router.errors import ApiError, bad_request
from router.hints import Hints, parse_hints
from router.wire import oip, openai
from router.wire.parsed import Parsed


def build_request(
    parsed: Parsed, hints: Hints, policy: CompiledPolicy, body_bytes: int, decision_id: str
) -> tuple[Request, Label]:
    """The request with its label. Its id is the caller's where the caller gave one."""
    texts = parsed.texts() if policy.detectors else ()
    found = label(policy.default_label, len(policy.levels) - 1, policy.detectors, texts, header=hints.label)
    request = Request(
        id=hints.request_id or decision_id,
        model=parsed.model,
        task=parsed.task,
        protocol=parsed.wire,
        label=found.rank,
        usage=hints.usage,
        tokens_in=parsed.tokens_in,
        tokens_out=parsed.tokens_out,
        body_bytes=body_bytes,
        deadline_ms=(hints.ttft_ms or hints.latency_ms) if parsed.stream else hints.latency_ms,
        stream=parsed.stream,
        no_fallback=hints.no_fallback,
    )
    return request, found


def from_facts(facts: RequestFacts, policy: CompiledPolicy) -> Request:
    """Raises ApiError 400 for a label that the policy does not know."""
    serving = [target for target in policy.targets if target.model == facts.model]
    task = facts.task or (serving[0].tasks[0] if serving else "")
    wires = [wire for target in serving if task in target.tasks for wire in target.protocols]
    try:
        rank = policy.default_label if facts.label is None else policy.rank(facts.label)
    except KeyError:
        raise bad_request(f"unknown sensitivity level '{facts.label}'", f"levels: {', '.join(policy.levels)}") from None
    return Request(
        id=facts.id,
        model=facts.model,
        task=task,
        protocol=facts.protocol or (wires[0] if wires else "openai"),
        tenant=facts.tenant,
        label=rank,
        usage=facts.usage,
        tokens_in=facts.tokens_in,
        tokens_out=facts.tokens_out,
        body_bytes=facts.body_bytes,
        deadline_ms=facts.deadline_ms,
        stream=facts.stream,
        no_fallback=facts.no_fallback,
    )


def from_http(http: HttpRequest, policy: CompiledPolicy, limit: int) -> Request:
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
    return build_request(parsed, parse_hints(headers.items(), policy), policy, len(body), "explain")[0]
