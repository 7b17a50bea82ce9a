"""The requests of a decision log, as a simulation takes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from policies.accounts import Charge
from policies.compile import CompiledPolicy
from policies.simulation.traffic import Answered, Arrival
from policies.types import Snapshot
from router.decisionlog.chain import Verification
from router.decisionlog.files import chains, lines
from router.decisionlog.record import UNKNOWN_MODEL, Outcome, situation
from router.report.tally import STRANGE, TIERS, Tally

_FAILED = ("failed", "unreachable", "timeout", "bad_answer", "broken", "internal")
"""Outcomes of an attempt that another policy would not have spared it. How full a backend is, is simulated."""
_LOST = ("upstream_error", "stream_broken", "deadline", "internal")
"""Outcomes of a request whose only attempt has failed."""


_DIGEST = re.compile(r"[0-9a-f]{16}\Z")
_WORD = re.compile(r"[a-z_]{1,40}\Z")
_MOST = 1e12
"""Tokens, seconds, milliseconds and dollars beyond which a record is none of ours."""


@dataclass(slots=True)
class Logged:
    """One pass over a log."""

    paths: list[Path]
    policies: Mapping[str, CompiledPolicy]  # that may have decided, by digest
    tally: Tally  # takes what really happened to the requests that are simulated
    others: Counter[str] = field(default_factory=Counter)  # requests that another policy decided, by its digest
    outside: int = 0  # requests before the tally begins, or after its end
    nameless: int = 0  # requests for a model that nobody served, or that were over before they were decided
    broken: list[str] = field(default_factory=list)  # chains that are not as they were written

    def chains(self) -> Iterator[Iterator[Arrival]]:
        """Of each writer the requests, in the order in which they ended."""
        for writer, files in chains(self.paths).items():
            yield self._arrivals(writer, files)

    def _arrivals(self, writer: str, files: list[Path]) -> Iterator[Arrival]:
        chain, strange = Verification(), False
        for record in chain.read(lines(files)):
            try:
                arrival = self._arrival(record)
            except STRANGE:
                strange = True
                continue
            if arrival is not None:
                yield arrival
        if chain.broken or strange:
            self.broken.append(writer)

    def _arrival(self, record: dict[str, Any]) -> Arrival | None:
        """None for what is no request, or none that can be decided again."""
        if record.get("event") == "copy":
            self._copy(record)
        if "id" not in record or "request" not in record:
            return None
        digest = record["policy"]
        if not _DIGEST.match(digest):
            raise ValueError("no digest")
        if not self.tally.since <= record["at"] < self.tally.until:
            self.outside += 1
            return None
        policy = self.policies.get(digest)
        if policy is None:
            self.others[digest] += 1
            return None
        if record["request"]["model"] == UNKNOWN_MODEL or "outcome" not in record:
            self.nameless += 1
            return None
        arrival = _sound(record, msgspec.convert(record["outcome"], Outcome), policy)
        self.tally.add(record)
        return arrival

    def _copy(self, record: dict[str, Any]) -> None:
        """What a copy has cost counts where its request does; older versions did not write whose policy it was."""
        if record.get("policy", next(iter(self.policies))) in self.policies:
            for charge in msgspec.convert(record["charges"], list[Charge]):
                _check(charge)
            self.tally.add(record)


def _sound(record: Mapping[str, Any], outcome: Outcome, policy: CompiledPolicy) -> Arrival:
    """The arrival of a record. Raises one of STRANGE where no router has written it, whatever its hash says: what is
    wrong with it would otherwise be met in the middle of a decision, or on somebody's terminal."""
    request, label, snapshot = situation(record, policy)
    backends, targets = len(policy.backend_names), len(policy.targets)
    by_backend = (snapshot.unavailable, snapshot.in_flight)
    by_target = (snapshot.latency_ms, snapshot.ttft_ms or snapshot.latency_ms, snapshot.growth or snapshot.latency_ms)
    if {len(one) for one in by_backend} != {backends} or {len(one) for one in by_target} != {targets}:
        raise ValueError("another fleet")
    ranks = [request.label, request.masked_label or 0, *(rank for _, rank in label.raised_by)]
    if not all(0 <= rank < len(policy.levels) for rank in ranks):
        raise ValueError("another level")
    if not _WORD.match(outcome.outcome) or outcome.backend not in (None, *policy.backend_names):
        raise ValueError("no such end")
    for charge in outcome.charges or ():
        _check(charge)
    steps = outcome.steps or ()
    for amount in (outcome.ms, outcome.ttft_ms or 0.0, outcome.cost_usd or 0.0, *(float(step["ms"]) for step in steps)):
        if not 0 <= amount < _MOST:
            raise ValueError("no amount")
    answers = [one for one in outcome.charges or () if one.purpose == "answer"]
    answer = answers[0] if answers else None
    tokens = None if answer is None else (answer.tokens_in, answer.tokens_out)
    if tokens is None and outcome.tokens_out is not None:
        tokens = outcome.tokens_in or 0, outcome.tokens_out
    return Arrival(
        record["at"],
        policy,
        request,
        label,
        snapshot,
        None if answer is None else _answered(outcome, answer, policy),
        failed=tuple(_failures(outcome, record["decision"].get("attempts"), _full(snapshot, policy))),
        broke=(outcome.backend or "") if outcome.outcome == "stream_broken" else "",
        time_ms=outcome.ms if outcome.outcome == "deadline" else None,
        judged=tuple(_judged(outcome)),
        seed=record.get("seed", 0),
        tokens=tokens,
        estimated=answer is not None and answer.estimated,
    )


def _check(charge: Charge) -> None:
    amounts = charge.seconds, charge.usd, charge.tokens_in, charge.tokens_out, charge.energy_j, charge.carbon_g
    if not all(0 <= amount < _MOST for amount in amounts) or charge.tier not in TIERS:
        raise ValueError("no such charge")


def _answered(outcome: Outcome, answer: Charge, policy: CompiledPolicy) -> Answered:
    (target,) = (one for one in policy.targets if (one.backend, one.model) == (answer.backend, answer.model))
    ms, first = max(answer.seconds * 1000, 0.001), outcome.ttft_ms
    return Answered(target, ms, None if first is None else min(max(first - (outcome.ms - ms), 0.001), ms))


def _full(snapshot: Snapshot, policy: CompiledPolicy) -> frozenset[str]:
    """The backends that had no place when the request came."""
    targets = policy.targets
    return frozenset(one.backend for one in targets if snapshot.in_flight[one.backend_index] >= one.max_in_flight)


def _failures(
    outcome: Outcome, attempts: Sequence[tuple[str, float]] | None, full: frozenset[str]
) -> Iterator[tuple[str, float]]:
    """The backends that were tried and have not answered. One that was full took too long for that: how full it is, and
    how long that takes, is simulated."""
    if outcome.steps is None:
        lost = outcome.outcome in _LOST and outcome.attempts and attempts
        if lost and attempts and not (outcome.outcome == "deadline" and attempts[0][0] in full):
            yield attempts[0][0], outcome.ms
        return
    answered = {step["backend"] for step in outcome.steps if step["outcome"] == "ok"}
    failed = {step["backend"]: step for step in outcome.steps if step["outcome"] in _FAILED}
    for backend, step in failed.items():
        if backend not in answered and not (step["outcome"] == "timeout" and backend in full):
            yield backend, step["ms"]


def _judged(outcome: Outcome) -> Iterator[tuple[str, float]]:
    """How sure answers were, of a cascade that went on. One whose confidence could not be read had none."""
    for step in outcome.steps or ():
        if step["outcome"] == "ok" and ("confidence" in step or step["backend"] != outcome.backend):
            yield step["backend"], float(step.get("confidence", 0.0))
