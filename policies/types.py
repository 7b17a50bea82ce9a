"""The values the decision library takes and gives. All frozen; times in milliseconds, money in USD.

A sensitivity label is its rank in the policy's `sensitivity.levels`: 0 is the lowest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Request:
    """What a decision needs to know of an inference call. Never its payload."""

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
    usd_per_request: float
    usd_per_token_in: float
    usd_per_token_out: float
    active_w: float
    g_per_kwh: float
    attributes: Mapping[str, str | float | bool] = field(repr=False, hash=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the fleet at one moment, as parallel tuples: by backend, and by target where said so."""

    unavailable: tuple[str | None, ...]  # by backend: why it must not be used now, or None
    in_flight: tuple[int, ...]  # by backend: requests being served or queued
    latency_ms: tuple[float | None, ...]  # by target: measured, or None for "use the prior"


class Estimate(NamedTuple):
    """What a request is expected to take at a target. (A named tuple: made for every candidate of every
    request, and three times cheaper to make than a frozen dataclass.)"""

    latency_ms: float
    cost_usd: float
    energy_j: float
    carbon_g: float


class Candidate(NamedTuple):
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
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    BACKENDS_UNAVAILABLE = "backends_unavailable"


@dataclass(frozen=True, slots=True)
class Refusal:
    code: RefusalCode
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The evaluator's result, which is also its trace.

    `ranked` holds every allowed candidate, best first; `attempts` the ones execution may try, in order.
    """

    request_id: str
    policy: str  # digest of the policy and fleet that decided
    seed: int
    label: int
    rule: str
    objective: tuple[tuple[str, float], ...]  # (scorer, its share of the weights)
    constraints: tuple[str, ...]
    ranked: tuple[Candidate, ...]
    attempts: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...]
    refusal: Refusal | None

    @property
    def chosen(self) -> Candidate | None:
        return self.ranked[0] if self.ranked else None
