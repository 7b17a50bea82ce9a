"""The requests of a decision log, as a simulation takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policies.compile import CompiledPolicy
from policies.simulation.traffic import Answered, Arrival
from router.decisionlog.chain import Verification
from router.decisionlog.files import chains, lines
from router.decisionlog.record import UNKNOWN_MODEL, situation
from router.report.tally import STRANGE, Tally

_FAILED = ("failed", "unreachable", "timeout", "bad_answer", "broken", "internal")
"""Outcomes of an attempt that another policy would not have spared it. How full a backend is, is simulated."""
_LOST = ("upstream_error", "stream_broken", "deadline", "internal")
"""Outcomes of a request whose only attempt has failed."""


@dataclass(slots=True)
class Logged:
    """One pass over a log."""

    paths: list[Path]
    policies: Mapping[str, CompiledPolicy]  # that may have decided, by digest
    tally: Tally  # takes what really happened to the requests that are simulated
    others: Counter[str] = field(default_factory=Counter)  # requests that another policy decided, by its digest
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
            self.tally.add(record)
        if "id" not in record or not self.tally.since <= record["at"] < self.tally.until:
            return None
        policy = self.policies.get(record["policy"])
        if policy is None:
            self.others[record["policy"]] += 1
            return None
        if record["request"]["model"] == UNKNOWN_MODEL or "outcome" not in record:
            self.nameless += 1
            return None
        request, label, snapshot = situation(record, policy)
        outcome = record["outcome"]
        answers = [one for one in outcome.get("charges", ()) if one.get("purpose", "answer") == "answer"]
        answer = answers[0] if answers else None
        arrival = Arrival(
            record["at"],
            policy,
            request,
            label,
            snapshot,
            None if answer is None else _answered(outcome, answer, policy),
            tuple(_failures(record)),
            record.get("seed", 0),
            None if answer is None else (answer.get("tokens_in", 0), answer.get("tokens_out", 0)),
            answer is not None and answer.get("estimated", False),
        )
        self.tally.add(record)
        return arrival


def _answered(outcome: Mapping[str, Any], answer: Mapping[str, Any], policy: CompiledPolicy) -> Answered:
    (target,) = (one for one in policy.targets if (one.backend, one.model) == (answer["backend"], answer["model"]))
    ms = max(answer["seconds"] * 1000, 0.001)
    first = outcome.get("ttft_ms")
    return Answered(target, ms, None if first is None else min(max(first - (outcome["ms"] - ms), 0.001), ms))


def _failures(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The backends that were tried and have not answered."""
    outcome, attempts = record["outcome"], record["decision"].get("attempts")
    steps = outcome.get("steps")
    if steps is None:
        if outcome["outcome"] in _LOST and outcome.get("attempts") and attempts:
            yield attempts[0][0], outcome["ms"]
        return
    answered = {step["backend"] for step in steps if step["outcome"] == "ok"}
    failed = {step["backend"]: step["ms"] for step in steps if step["outcome"] in _FAILED}
    yield from ((backend, ms) for backend, ms in failed.items() if backend not in answered)
