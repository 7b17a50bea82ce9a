"""One policy, and the traffic that it is tried with: request by request, each decided in the situation that the
decisions before it have made."""

from __future__ import annotations

import math
from typing import NamedTuple

from msgspec.structs import replace

from policies.accounts import Charge, baseline_usd, charge
from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.outcomes import REFUSED, slo_met
from policies.simulation.paces import Paces
from policies.simulation.places import Places
from policies.simulation.spending import Spending
from policies.simulation.traffic import Arrival
from policies.simulation.translation import Translation
from policies.types import Decision, Request, Snapshot, Target, Value


class Ended(Value, frozen=True, gc=False):
    """How a request would have ended. Times in milliseconds from its arrival."""

    request: Request
    decision: Decision
    outcome: str  # as the live router counts them
    ms: float
    target: Target | None = None  # that answered
    ttft_ms: float | None = None  # of a stream
    charges: tuple[Charge, ...] = ()
    baseline_usd: float | None = None
    measured: bool = True  # whether the log holds answers of that target; otherwise the fleet's word was taken

    @property
    def slo_met(self) -> bool | None:
        return slo_met(self.outcome, self.decision, self.ms, self.ttft_ms)


class _Case(NamedTuple):
    """A request that is decided, in the situation that it met."""

    arrival: Arrival
    request: Request
    snapshot: Snapshot
    decision: Decision

    def ended(self, outcome: str, ms: float, *charges: Charge) -> Ended:
        return Ended(self.request, self.decision, outcome, ms, charges=charges)


class _Served(NamedTuple):
    """What an answer takes once a place is free for it."""

    ms: float
    ttft_ms: float
    charge: Charge
    measured: bool


class Simulation:
    """Under one policy. Requests must come in order of their arrival."""

    def __init__(self, policy: CompiledPolicy, paces: Paces, seed: int = 0) -> None:
        """`seed` is that of the times drawn; ties are broken as they were by the router."""
        self.policy = policy
        self._paces = paces
        self._seed = seed
        self._places = Places([spec.limits.max_in_flight for spec in policy.fleet.backends])
        self._spending = Spending(policy.quotas)
        self._translations: dict[str, Translation] = {}

    def arrive(self, arrival: Arrival) -> Ended:
        translation = self._translation(arrival.policy)
        spent = self._spending.at(arrival.at)
        if arrival.snapshot.spent and arrival.answered is not None:
            self._spending.begin_with(translation.spent(arrival))
        request = translation.request(arrival)
        snapshot = translation.snapshot(arrival, self._places.in_flight(arrival.at), spent)
        case = _Case(arrival, request, snapshot, decide(request, snapshot, self.policy, arrival.seed))
        decision = case.decision
        if decision.refusal is not None:
            return case.ended(REFUSED[decision.refusal.code], 0.0)
        self._spending.admit(decision, request)
        ended = self._tried(case)
        copied = decision.shadow
        if copied is None or self._places.begins(copied.target.backend_index, arrival.at) > arrival.at:
            return ended
        return replace(ended, charges=(*ended.charges, self._served(case, copied.target, arrival.at, "copy").charge))

    def _tried(self, case: _Case) -> Ended:
        """The attempts, one after the other: those fail that failed then."""
        arrival, request = case.arrival, case.request
        at, failed = arrival.at, dict(arrival.failed)
        latest_ms = math.inf if request.deadline_ms is None else request.deadline_ms
        for candidate in case.decision.attempts:
            target = candidate.target
            begin = self._places.begins(target.backend_index, at)
            waited_ms = (begin - arrival.at) * 1000
            if waited_ms >= latest_ms:
                return case.ended("deadline", latest_ms)
            if target.backend in failed:
                at = begin + failed[target.backend] / 1000
                self._places.take(target.backend_index, begin, at)
                continue
            served = self._served(case, target, begin, within_ms=latest_ms - waited_ms)
            if served.charge.purpose != "answer":
                return case.ended("deadline", latest_ms, served.charge)
            return Ended(
                request,
                case.decision,
                "ok",
                waited_ms + served.ms,
                target,
                waited_ms + served.ttft_ms if request.stream else None,
                (served.charge,),
                baseline_usd(case.decision.baselines, served.charge.tokens_in, served.charge.tokens_out, case.snapshot),
                served.measured,
            )
        return case.ended("upstream_error", (at - arrival.at) * 1000)

    def _served(
        self, case: _Case, target: Target, begin: float, purpose: str = "answer", within_ms: float = math.inf
    ) -> _Served:
        """By `target`, from `begin` on. What is not there `within_ms` (of a stream, its first token) is given up."""
        arrival, request, snapshot = case.arrival, case.request, case.snapshot
        took, measured = self._paces.of(target, arrival, request, snapshot, self._seed)
        ms, ttft_ms = took.ms, min(took.ms, took.first)
        if (ttft_ms if request.stream else ms) > within_ms:
            ms, purpose = within_ms, "unused"
        self._places.take(target.backend_index, begin, begin + ms / 1000)
        tokens = arrival.tokens or (request.tokens_in, request.tokens_out)
        intensity = snapshot.g_per_kwh[target.backend_index] if snapshot.g_per_kwh else None
        estimated = sum(tokens) > 0 and (arrival.estimated or arrival.tokens is None)
        made = charge(target, purpose, *tokens, estimated, ms / 1000, intensity)
        self._spending.charge(case.decision, request, target, sum(tokens), made.usd)
        return _Served(ms, ttft_ms, made, measured)

    def _translation(self, was: CompiledPolicy) -> Translation:
        found = self._translations.get(was.digest)
        if found is None:
            found = self._translations[was.digest] = Translation.between(was, self.policy)
        return found
