"""What changed in meaning between two policies: which requests move, from where to where, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.compile import CompiledPolicy
from policies.decide import decide
from policies.facts import UnknownLevel, request_from
from policies.grid import Probe
from policies.schema import DetectorSettings, Ner, Sensitivity
from policies.types import Decision, Snapshot

OWN_PREMISES = {"edge": 1, "onprem": 1, "cloud": 0}
"""Trust by tier: a cloud is somebody else's machine; edge and on-prem are one's own."""
NOWHERE = 2
"""A request that is refused reaches nobody at all."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request ends up: who gets it, who may get it next, under what rule and label."""

    backend: str | None
    attempts: tuple[str, ...]
    rule: str
    label: str
    refusal: str | None
    trust: tuple[int, int]  # of the tier that gets it, and of the least trusted that may be tried or gets a copy
    copied_to: str | None

    def __str__(self) -> str:
        if self.backend is None:
            return f"refused ({self.refusal})"
        more = f" then {', '.join(self.attempts[1:])}" if len(self.attempts) > 1 else ""
        copy = f", copied to {self.copied_to}" if self.copied_to else ""
        return f"{self.backend}{more}{copy}"


@dataclass(frozen=True, slots=True)
class Move:
    """A request that two policies treat differently."""

    probe: Probe
    before: Place
    after: Place
    why: str

    @property
    def loses_trust(self) -> bool:
        """Whether it now goes, or may go, to a less trusted tier than before."""
        return any(now < then for now, then in zip(self.after.trust, self.before.trust, strict=True))

    @property
    def relocates(self) -> bool:
        """Whether it goes elsewhere; otherwise only the rule or the label has another name."""
        return (self.before.backend, self.before.attempts, self.before.copied_to) != (
            self.after.backend,
            self.after.attempts,
            self.after.copied_to,
        )


def compare(old: CompiledPolicy, new: CompiledPolicy, probes: Iterable[Probe], seed: int = 0) -> list[Move]:
    """The probes that move, in their order. Fleets are taken at rest."""
    moves = []
    for probe in probes:
        (before, first), (after, second) = (_place(policy, probe, seed) for policy in (old, new))
        if before != after:
            moves.append(Move(probe, before, after, why(first, second, before, after)))
    return moves


def _place(policy: CompiledPolicy, probe: Probe, seed: int) -> tuple[Place, Decision | None]:
    try:
        request = request_from(probe.facts, policy, probe.now)
    except UnknownLevel:
        return Place(None, (), "", probe.facts.label or "", "unknown level", (NOWHERE, NOWHERE), None), None
    decision = decide(request, at_rest(policy, probe.now), policy, seed)
    return placed(decision, policy), decision


def placed(decision: Decision, policy: CompiledPolicy) -> Place:
    """Where `policy` has sent a request."""
    chosen, shadow = decision.chosen, decision.shadow
    reached = [c.target.tier for c in decision.attempts] + ([shadow.target.tier] if shadow else [])
    return Place(
        chosen.target.backend if chosen else None,
        tuple(candidate.target.backend for candidate in decision.attempts),
        decision.rule,
        policy.levels[decision.label],
        str(decision.refusal.code) if decision.refusal else None,
        (
            OWN_PREMISES[chosen.target.tier] if chosen else NOWHERE,
            min((OWN_PREMISES[tier] for tier in reached), default=NOWHERE),
        ),
        shadow.target.backend if shadow else None,
    )


def weakened(old: Sensitivity, new: Sensitivity) -> list[str]:
    """What detectors no longer find, or no longer raise as high, in sentences. No grid of facts shows that: it holds
    labels, not texts."""
    told: list[str] = []
    before, after = ({_named(one): one for one in policy.detectors} for policy in (old, new))
    for use, was in before.items():
        now = after.get(use)
        if now is None:
            told.append(f"detector {use} is gone")
            continue
        if _rank(now.label, new.levels) < _rank(was.label, new.levels):
            told.append(f"detector {use} raises to {now.label} only, not to {was.label}")
        for field, what in _FOUND_BY.items():
            lost = _lost(getattr(was, field, None), getattr(now, field, None))
            told += [f"detector {use} no longer looks for {what} {name}" for name in lost]
    if _rank(new.unscannable, new.levels) < _rank(old.unscannable, new.levels):
        told.append(f"what no detector can read is no longer {old.unscannable}")
    return told


def _named(detector: DetectorSettings) -> str:
    """Each model finds something of its own."""
    return f"ner with {detector.model}" if isinstance(detector, Ner) else detector.use


_FOUND_BY = {"words": "the word", "patterns": "the pattern", "entities": "entities of type", "regions": "numbers of"}


def _rank(level: str | None, levels: Sequence[str]) -> int:
    """No level is the lowest; one that is not there any more counts as the highest."""
    return -1 if level is None else levels.index(level) if level in levels else len(levels)


def _lost(was: Any, now: Any) -> list[str]:
    """Names that the setting had and has no more. No `entities` means all of them."""
    if isinstance(was, Mapping):
        now = now or {}
        return [name for name, pattern in was.items() if now.get(name) != pattern]
    if was is None:
        return ["others"] if now is not None else []
    return [] if now is None else [one for one in was if one not in now]


def at_rest(policy: CompiledPolicy, now: float) -> Snapshot:
    """A fleet that is healthy, idle and unmeasured, and has spent nothing."""
    count = len(policy.fleet.backends)
    return Snapshot(
        (None,) * count, (0,) * count, (None,) * len(policy.targets), now=now, g_per_kwh=policy.g_per_kwh(now)
    )


def why(first: Decision | None, second: Decision | None, before: Place, after: Place) -> str:
    """The first difference that explains the move: label, constraints, rejections, rule, then scores."""
    if first is None or second is None:
        return "the level is known to one of the policies only"
    if before.label != after.label:
        return f"label {before.label} is now {after.label}"
    if before.backend is None and after.backend is None and before.refusal != after.refusal:
        return f"refused as {after.refusal}, before as {before.refusal}"
    added = [name for name in second.constraints if name not in first.constraints]
    removed = [name for name in first.constraints if name not in second.constraints]
    gone = {(r.backend, r.filter): r.reason for r in second.rejected}
    if added or removed:
        told = [*(f"constraint {name} now applies" for name in added), *(f"no longer {name}" for name in removed)]
        return "; ".join(told)
    for backend in before.attempts:
        for (name, by), reason in gone.items():
            if name == backend:
                return f"{backend} is now rejected by {by}: {reason}"
    known = {one.target.backend for one in second.ranked} | {one.backend for one in second.rejected}
    for backend in before.attempts:
        if backend not in known:
            return f"{backend} is not in the fleet any more"
    for rejection in first.rejected:
        if rejection.backend in after.attempts:
            return f"{rejection.backend} was rejected by {rejection.filter}: {rejection.reason}"
    if before.rule != after.rule:
        return f"rule {before.rule} is now {after.rule}"
    if second.picker != first.picker or before.attempts[:1] != after.attempts[:1]:
        return f"rule {after.rule} prefers otherwise"
    return f"rule {after.rule} has another fallback or shadow"
