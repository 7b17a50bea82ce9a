"""A parsed call and its hints as the `Request` that a decision is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from policies.compile import CompiledPolicy
from policies.facts import session_key
from policies.schema import HttpRequest
from policies.sensitivity.labels import Label, declassified, label
from policies.sensitivity.pseudonyms import Pseudonyms, mask_copies, mask_strings, strings_of
from policies.tenants import ANONYMOUS, Tenant
from policies.types import NOTHING, Request
from router.errors import ApiError
from router.hints import Hints, parse_hints
from router.wire import oip, openai
from router.wire.parsed import Parsed

_KEPT = frozenset({"model"})
"""Fields of a body that name things for the router, and are not masked."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A call with its entities replaced by placeholders, and the map that puts them back. Lives as long as the
    request; kept nowhere."""

    content: Any = field(repr=False)  # decoded JSON
    pseudonyms: Pseudonyms


class Built(NamedTuple):
    request: Request
    label: Label
    masked: Masked | None


def build_request(
    parsed: Parsed,
    hints: Hints,
    policy: CompiledPolicy,
    body_bytes: int,
    decision_id: str,
    now: float,
    tenant_name: str = ANONYMOUS,
) -> Built:
    """The request with its label. Its id is the caller's where the caller gave one; `now` is seconds since 1970.

    Raises ApiError 403 where the headers ask for what the tenant may not do."""
    tenant = policy.tenant(tenant_name)
    _check_permitted(tenant, hints)
    request = Request(
        id=hints.request_id or decision_id,
        model=parsed.model,
        task=parsed.task,
        protocol=parsed.wire,
        tenant=tenant_name,
        usage=hints.usage or tenant.usage_default,
        tokens_in=parsed.tokens_in,
        tokens_out=parsed.tokens_out,
        body_bytes=body_bytes,
        deadline_ms=deadline_ms(parsed, hints),
        stream=parsed.stream,
        no_fallback=hints.no_fallback,
        route=parsed.path,
        session=session_key(hints.session) if hints.session else "",
        caller_region=hints.caller_region,
        headers=hints.headers,
        labels=_labels(parsed, hints, policy) if policy.label_names else NOTHING,
    )
    floor = policy.floor(request, now)
    tenant_floor = None if policy.tenants is None else tenant.floor
    unscannable = policy.unscannable if policy.unscannable is not None and parsed.unscannable() else None

    def labelled(texts: Sequence[str] | None, masked: bool = False) -> Label:
        if texts and hints.request_id:
            texts = [*texts, hints.request_id]  # it goes to the backend too
        top = len(policy.levels) - 1
        floors = {"header": hints.label, "tenant": tenant_floor, "unscannable": unscannable}
        found = label(floor, top, policy.detectors, texts, **floors, masked=masked)
        return found if hints.declassify is None else declassified(found, hints.declassify)

    found = labelled(parsed.texts() if policy.detectors else ())
    masked = _mask(parsed, policy) if found.entities and policy.transforms else None
    # What masking has left is looked at as a whole, by the detectors themselves: whatever it missed raises the label.
    left = None if masked is None else labelled(replace(parsed, content=masked.content).texts(), masked=True)
    return Built(
        request.labelled(found.rank, None if left is None else left.rank, frozenset(found.entities) or None),
        found,
        masked,
    )


def _labels(parsed: Parsed, hints: Hints, policy: CompiledPolicy) -> dict[str, str]:
    return {n: v for n, v in {**parsed.labels(), **hints.labels}.items() if n in policy.label_names}


def deadline_ms(parsed: Parsed, hints: Hints) -> float | None:
    """The caller's own: to the first token of a stream, to the whole of any other answer."""
    return (hints.ttft_ms or hints.latency_ms) if parsed.stream else hints.latency_ms


def _mask(parsed: Parsed, policy: CompiledPolicy) -> Masked | None:
    """The call with its entities replaced; None where it is not one of text, or cannot be scanned."""
    if not isinstance(parsed.content, dict):
        return None
    pseudonyms = Pseudonyms()
    try:
        places = policy.detectors.cover(strings_of(parsed.content))
        content = mask_strings(parsed.content, pseudonyms, places.__getitem__, _KEPT)
        content = mask_copies(content, pseudonyms, _KEPT)
    except Exception:  # a detector's failure, or a copy that stays: then it is not known to have been removed
        return None
    return Masked(content, pseudonyms)


def _check_permitted(tenant: Tenant, hints: Hints) -> None:
    if not tenant.known:
        return  # the decision refuses that, and says why
    for asked, may, header, right in (
        (hints.declassify is not None, tenant.may_declassify, "x-declassify", "may_declassify"),
        (hints.trace, tenant.may_debug, "x-pointsman-trace", "may_debug"),
    ):
        if asked and not may:
            raise ApiError(
                "not_permitted",
                f"tenant {tenant.name} may not send {header}",
                f"leave it out, or ask who keeps the tenants for `{right}`",
                param=header,
            )


def from_http(http: HttpRequest, policy: CompiledPolicy, limit: int, now: float) -> Request:
    """The request that the data API would make of this one. Raises the ApiError that it would answer with."""
    body = msgspec.json.encode(http.body)
    headers = {name.lower().encode(): value.encode() for name, value in http.headers.items()}
    model = oip.match_model(http.path)
    if http.path in openai.TASKS:
        parsed = openai.parse(http.path, headers, body, policy)
    elif model is not None and model[1] == "infer":
        parsed = oip.parse(model[0], headers, body, policy, limit)
    else:
        raise ApiError("not_found", f"no inference path '{http.path[:100]}'", f"try {', '.join(openai.TASKS)}")
    hints = parse_hints(headers.items(), policy)
    return build_request(parsed, hints, policy, len(body), "explain", now, http.tenant).request
