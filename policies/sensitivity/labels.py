"""The label of a request: the highest of everything known about it. It only rises; doubt means the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.sensitivity.scanner import Detector, Scanner


@dataclass(frozen=True, slots=True)
class Label:
    """A sensitivity label with its provenance: what raised it, and to which rank. No text, only types."""

    rank: int
    raised_by: tuple[tuple[str, int], ...]
    entities: Mapping[str, int]


def label(
    floor: int,
    top: int,
    detectors: Sequence[Detector],
    texts: Sequence[str] | None,
    *,
    header: int | None = None,
) -> Label:
    """max(the policy's floor for the request, caller's header, detectors).

    `texts` is everything in the request that can carry text, or None when it could not be read. A detector
    that fails, a scan that ran out of bounds, and text that could not be read, raise the label to `top`.
    """
    raised: list[tuple[str, int]] = [("floor", floor)]
    entities: dict[str, int] = {}
    if header is not None:
        raised.append(("header", header))
    if detectors and texts is None:
        raised.append(("unreadable", top))
    if detectors and texts is not None:
        scanner = detectors if isinstance(detectors, Scanner) else Scanner(others=tuple(detectors))
        for outcome in scanner.outcomes(texts):
            if outcome.found is None:
                raised.append((f"{outcome.name}:failed", top))
                continue
            for entity, count in outcome.found.items():
                entities[entity] = entities.get(entity, 0) + count
                raised.append((f"{outcome.name}:{entity}", outcome.label))
    rank = max(rank for _, rank in raised)
    return Label(rank, tuple(raised), entities)
