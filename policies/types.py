"""The values the decision library takes and gives. All frozen; times in milliseconds, money in USD.

A sensitivity label is its rank in the policy's `sensitivity.levels`: 0 is the lowest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from policies.schema import Slo, Strategy

NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Value(msgspec.Struct, frozen=True, gc=False):
    """What is made for every request. Frozen like the dataclasses, and ten times cheaper to make; `replace` is that of
    msgspec.structs. (No cycles through them, so the garbage collector need not look.)"""


class Request(
    Value, frozen=True, gc=False, omit_defaults=True, rename={"label": "rank", "masked_label": "masked_rank"}
):
    """What a decision needs to know of an inference call. Never its payload: the decision log writes it down as it is,
    without what is not known, and with labels called what they are, ranks."""

    id: str
    model: str
    task: str
    protocol: str = "openai"  # the wire the caller speaks: openai | oip
    tenant: str = "anonymous"
    label: int = 0
    usage: str = ""
    tokens_in: int = 0
    tokens_out: int = 0  # most tokens the answer may have; an estimate where the caller gives no limit
    body_bytes: int = 0
    deadline_ms: float | None = None
    stream: bool = False
    no_fallback: bool = False
    route: str = ""  # path of the API that was called
    session: str = ""
    caller_region: str = ""
    entities: frozenset[str] = frozenset()  # types found by detectors; never values
    masked_label: int | None = None  # the label once pseudonymised; None: it cannot be
    headers: Mapping[str, str] = NOTHING  # those that the policy allows
    labels: Mapping[str, str] = NOTHING  # what the caller calls it

    def __repr__(self) -> str:  # without what callers write into headers
        return f"Request(id={self.id!r}, model={self.model!r}, task={self.task!r}, tenant={self.tenant!r}, …)"

    def labelled(self, label: int, masked_label: int | None, entities: frozenset[str] | None = None) -> Request:
        return replace(
            self, label=label, masked_label=masked_label, entities=self.entities if entities is None else entities
        )


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one backend: the thing a decision chooses. Prices are per single token or request."""

    index: int  # position in Policy.targets
    backend: str
    backend_index: int  # position in the fleet
    model: str
    tier: str
    region: str
    tasks: tuple[str, ...]
    protocols: tuple[str, ...]  # the wires it can answer
    clearance: int
    quality: float
    context_tokens: int | None
    max_in_flight: int
    max_queued: int
    prior_ms: float
    prior_ttft_ms: float
    usd_per_request: float  # with `reserved_usd`
    reserved_usd: float  # a request's share of what is paid by the hour, at full capacity
    usd_per_token_in: float
    usd_per_token_out: float
    usd_per_second: float  # of being served
    active_w: float
    g_per_kwh: float
    attributes: Mapping[str, str | float | bool] = field(repr=False, hash=False)


class Bounds(Value, frozen=True, gc=False):
    """The least that any of some targets has: what is within all of them, a filter need not ask each for."""

    clearance: int
    context_tokens: int | None  # None: none of them has a limit
    places: int  # requests being served or queued at a backend
    batch_places: int  # likewise, where those of a batch may queue


class Snapshot(Value, frozen=True, gc=False):
    """The state of the fleet at one moment, as parallel tuples: by backend, and by target where said so."""

    unavailable: tuple[str | None, ...]  # by backend: why it must not be used now, or None
    in_flight: tuple[int, ...]  # by backend: requests being served or queued
    latency_ms: tuple[float | None, ...]  # by target: measured, or None for "use the prior"
    ttft_ms: tuple[float | None, ...] = ()  # likewise, to the first token of a stream; empty: none measured
    now: float = 0.0  # seconds since 1970, UTC
    spent: Mapping[tuple[int, str], float] = NOTHING
    """(quota's index, key) -> what its period has used so far or may not use here; what is absent has used nothing."""
    growth: tuple[tuple[float, float] | None, ...] = ()
    """By target: the usual size of what `latency_ms` was measured of, and the ms of each unit more; None: not known. Of
    generated text the size is the answer's tokens, of tensors the request's KiB."""
    busy: tuple[bool, ...] = ()
    """By backend: whether it has been full, and is not yet free enough again. Empty: as in_flight says now."""
    ledger_lost: bool = False  # what is spent elsewhere is not known
    back_in_s: tuple[float, ...] = ()
    """By backend: when one that is ejected, or asked to be left alone, may be tried again; 0: now, or not known."""
    g_per_kwh: tuple[float, ...] = ()  # by backend: what its power emits now; empty: as the targets say

    def is_busy(self, target: Target) -> bool:
        """Whether others that have room come before it."""
        if self.busy:
            return self.busy[target.backend_index]
        return self.in_flight[target.backend_index] >= target.max_in_flight


class Estimate(Value, frozen=True, gc=False):
    """What a request is expected to take at a target."""

    latency_ms: float  # to the whole answer
    ttft_ms: float  # to the first token
    cost_usd: float
    energy_j: float
    carbon_g: float


class Candidate(Value, frozen=True, gc=False):
    """A target that passed every filter, with the score that ranked it."""

    target: Target
    score: float  # sum of weight * value over the terms, in [0, 1]
    values: tuple[float, ...]  # of each term of Decision.objective, in [0, 1]
    estimate: Estimate


class Rejection(NamedTuple):
    """A backend that may not take the request: which filter said so, and why."""

    backend: str
    filter: str
    reason: str


class RefusalCode(StrEnum):
    MODEL_NOT_FOUND = "model_not_found"
    POLICY_NO_BACKEND = "policy_no_backend"
    UNAUTHORIZED = "unauthorized"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    USAGE_NOT_ALLOWED = "usage_not_allowed"
    OVERLOADED = "overloaded"
    RATE_LIMITED = "rate_limited"
    BUDGET_EXHAUSTED = "budget_exhausted"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    BACKENDS_UNAVAILABLE = "backends_unavailable"


@dataclass(frozen=True, slots=True)
class Refusal:
    code: RefusalCode
    message: str
    hint: str = ""
    retry_after_s: float | None = None  # when it may be worth trying again


class Decision(Value, frozen=True, gc=False):
    """The evaluator's result, which is also its trace.

    `ranked` holds every allowed candidate, best first; `attempts` the ones execution may try, in order.
    """

    request_id: str
    policy: str  # digest of the policy and fleet that decided
    seed: int
    label: int
    sent_label: int  # of what leaves: below `label` only where `transform` removes what raised it
    rule: str
    objective: tuple[tuple[str, float], ...]  # (scorer, its share of the weights)
    constraints: tuple[str, ...]
    picker: str  # what put the first candidate first: score | split
    ranked: tuple[Candidate, ...]
    attempts: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...]
    refusal: Refusal | None
    transform: str | None
    strategy: Strategy | None
    shadow: Candidate | None
    quotas: tuple[int, ...]  # indices of the budgets and limits that the request counts against
    notices: tuple[str, ...]
    priority: str = "interactive"  # interactive | batch: who is served first where requests wait
    spilled: tuple[str, ...] = ()  # backends that others come before because they are full
    resume: bool = False  # whether a stream that breaks is gone on with elsewhere
    slo: Slo | None = None  # the objective of the rule
    retry_share: float = 0.0  # most further attempts at backends that have failed, as a share of requests
    baselines: tuple[Target, ...] = ()  # one of which would have answered, were everything in the cloud

    @property
    def chosen(self) -> Candidate | None:
        return self.ranked[0] if self.ranked else None
