"""Facts that somebody wrote down, as the `Request` that a decision is made from."""

from __future__ import annotations

import hashlib

from policies.compile import CompiledPolicy
from policies.errors import did_you_mean
from policies.schema import RequestFacts
from policies.sensitivity.entities import canonical
from policies.types import Request

_ROUTES = {"chat": "/v1/chat/completions", "completion": "/v1/completions", "embedding": "/v1/embeddings"}


class UnknownLevel(ValueError):
    """A level that the policy does not have. The message says which there are."""


def session_key(session: str) -> str:
    """What a session is known by: it is the caller's text, so decisions and records hold a digest of it."""
    return hashlib.blake2b(session.encode(), digest_size=8).hexdigest() if session else ""


def request_from(facts: RequestFacts, policy: CompiledPolicy, now: float) -> Request:
    """The request as it would be labelled at `now`: a stated label counts as found, and floors still hold."""
    serving = [target for target in policy.targets if target.model == facts.model]
    task = facts.task or (serving[0].tasks[0] if serving else "")
    wires = [wire for target in serving if task in target.tasks for wire in target.protocols]
    wire = facts.protocol or (wires[0] if wires else "openai")
    usual = _ROUTES.get(task, "") if wire == "openai" else f"/v2/models/{facts.model}/infer"
    tenant = policy.tenant(facts.tenant)
    request = Request(
        id=facts.id,
        model=facts.model,
        task=task,
        protocol=wire,
        tenant=facts.tenant,
        usage=facts.usage or tenant.usage_default,
        tokens_in=facts.tokens_in,
        tokens_out=facts.tokens_out,
        body_bytes=facts.body_bytes,
        deadline_ms=facts.deadline_ms,
        stream=facts.stream,
        no_fallback=facts.no_fallback,
        route=facts.route or usual,
        session=session_key(facts.session),
        caller_region=facts.caller_region,
        entities=frozenset(canonical(name) for name in facts.entities),
        headers={name: value for name, value in facts.headers.items() if name in policy.headers},
        labels=facts.labels,
    )
    floor = max(policy.floor(request, now), tenant.floor)
    return request.labelled(
        max(floor, _rank(facts.label, policy, 0)),
        None if facts.masked_label is None else max(floor, _rank(facts.masked_label, policy, 0)),
    )


def _rank(level: str | None, policy: CompiledPolicy, absent: int) -> int:
    if level is None:
        return absent
    try:
        return policy.rank(level)
    except KeyError:
        raise UnknownLevel(f"unknown sensitivity level '{level}'; {did_you_mean(level, policy.levels)}") from None
