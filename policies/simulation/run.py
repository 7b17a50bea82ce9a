"""One policy, and the traffic that it is tried with: request by request, each decided in the situation that the
decisions before it have made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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
from policies.types import Decision, RefusalCode, Request, Snapshot, Target, Value


class Ended(Value, frozen=True, gc=False):
    """How a request would have ended. Times in milliseconds from its arrival."""

    request: Request
    decision: Decision
    outcome: str  # as the live router counts them
    ms: float
    target: Target | None = None  # that answered
    ttft_ms: float | None = None  # of a stream
    charges: tuple[Charge, ...] = ()
    reached: tuple[Target, ...] = ()  # whom it was sent to, also in vain and as a copy
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


class _Served(NamedTuple):
    """An answer, once a place was free for it."""

    target: Target
    waited_ms: float  # since the request had come
    ms: float
    ttft_ms: float
    charge: Charge
    measured: bool
    given_up: bool  # it would have come too late


@dataclass(slots=True)
class _Attempts:
    """Of one request, so far."""

    at: float  # when the next one begins, in seconds since 1970
    reached: list[Target] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)


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
        request = translation.request(arrival)
        self._spending.begin(arrival.at)
        if not arrival.snapshot.ledger_lost:
            amounts = dict(translation.spent(arrival))
            self._spending.know(request, self.policy, amounts, arrival.snapshot.now)
        in_flight = self._places.in_flight(arrival.at)
        snapshot = translation.snapshot(arrival, in_flight, self._spending.used)
        decision = decide(request, snapshot, self.policy, arrival.seed)
        if translation.turned_away(arrival):
            return Ended(request, decision, REFUSED[RefusalCode.POLICY_NO_BACKEND], 0.0)
        if decision.refusal is not None:
            return Ended(request, decision, REFUSED[decision.refusal.code], 0.0)
        self._spending.admit(decision, request)
        case = _Case(arrival, request, snapshot, decision)
        ended, copied = self._tried(case), decision.shadow
        if copied is None:
            return ended
        begin = self._places.begins(copied.target.backend_index, arrival.at)
        copy = self._served(case, copied.target, begin, purpose="copy")
        return replace(ended, charges=(*ended.charges, copy.charge), reached=(*ended.reached, copied.target))

    def _tried(self, case: _Case) -> Ended:
        """The attempts, one after the other: those fail that failed then, and of a cascade those are not sure enough
        that were not."""
        arrival, request, decision = case.arrival, case.request, case.decision
        so_far, failed, judged = _Attempts(arrival.at), dict(arrival.failed), dict(arrival.judged)
        latest_ms = min(request.deadline_ms or math.inf, arrival.time_ms or math.inf)
        best: _Served | None = None
        left = list(decision.attempts)
        while left and (best is None or not _sure(decision, judged.get(best.target.backend))):
            target = left.pop(0).target
            if best is not None and target.quality <= best.target.quality:
                continue
            begin = self._places.begins(target.backend_index, so_far.at)
            waited_ms = (begin - arrival.at) * 1000
            if waited_ms >= latest_ms:  # its turn would come too late
                continue
            so_far.reached.append(target)
            if target.backend in failed:
                so_far.at = begin + failed[target.backend] / 1000
                self._places.take(target.backend_index, begin, so_far.at)
                if target.backend == arrival.broke and not decision.resume:
                    return _ended(case, so_far, "stream_broken", (so_far.at - arrival.at) * 1000)
                continue
            served = self._served(case, target, begin, waited_ms, latest_ms)
            so_far.charges.append(served.charge)
            if served.given_up:
                break
            so_far.at, best = begin + served.ms / 1000, served
        if best is not None:
            return _answered(case, so_far, best)
        if not so_far.reached:  # it waited in vain for the first
            self._places.wait(decision.attempts[0].target.backend_index, arrival.at + latest_ms / 1000)
            return _ended(case, so_far, "deadline", latest_ms)
        took_ms = (so_far.at - arrival.at) * 1000
        if so_far.charges or took_ms >= latest_ms:  # an answer was given up, or no time is left for another attempt
            return _ended(case, so_far, "deadline", latest_ms)
        return _ended(case, so_far, "upstream_error", took_ms)

    def _served(
        self,
        case: _Case,
        target: Target,
        begin: float,
        waited_ms: float = 0.0,
        latest_ms: float = math.inf,
        purpose: str = "answer",
    ) -> _Served:
        """By `target`, from `begin` on. What is not there at the latest (of a stream, its first token) is given up."""
        arrival, request, snapshot = case.arrival, case.request, case.snapshot
        took, measured = self._paces.of(target, arrival, request, snapshot, self._seed)
        ms, ttft_ms, within_ms = took.ms, min(took.ms, took.first), latest_ms - waited_ms
        tokens, counted = arrival.tokens or (request.tokens_in, request.tokens_out), arrival.tokens is not None
        given_up = (ttft_ms if request.stream else ms) > within_ms
        if given_up:
            ms, purpose, tokens, counted = within_ms, "unused", (tokens[0], 0), False
        self._places.take(target.backend_index, begin, begin + ms / 1000)
        estimated = sum(tokens) > 0 and (arrival.estimated or not counted)
        intensity = snapshot.g_per_kwh[target.backend_index] if snapshot.g_per_kwh else None
        made = charge(target, purpose, *tokens, estimated, ms / 1000, intensity)
        self._spending.charge(case.decision, request, target, sum(tokens), made.usd)
        return _Served(target, waited_ms, ms, ttft_ms, made, measured, given_up)

    def _translation(self, was: CompiledPolicy) -> Translation:
        found = self._translations.get(was.digest)
        if found is None:
            found = self._translations[was.digest] = Translation.between(was, self.policy)
        return found


def _sure(decision: Decision, confidence: float | None) -> bool:
    """Whether an answer is not judged, or sure enough: as far as is known, that is."""
    cascade = None if decision.strategy is None else decision.strategy.cascade
    return cascade is None or confidence is None or confidence >= cascade.escalate_below_confidence


def _ended(case: _Case, so_far: _Attempts, outcome: str, ms: float) -> Ended:
    reached = tuple(so_far.reached)
    return Ended(case.request, case.decision, outcome, ms, charges=tuple(so_far.charges), reached=reached)


def _answered(case: _Case, so_far: _Attempts, by: _Served) -> Ended:
    """The last good answer is used; what was paid for others is not."""
    used = by.charge
    charges = [one if one is used else replace(one, purpose="unused") for one in so_far.charges]
    return Ended(
        case.request,
        case.decision,
        "ok",
        by.waited_ms + by.ms,
        by.target,
        by.waited_ms + by.ttft_ms if case.request.stream else None,
        tuple(charges),
        tuple(so_far.reached),
        baseline_usd(case.decision.baselines, used.tokens_in, used.tokens_out, case.snapshot),
        by.measured,
    )
