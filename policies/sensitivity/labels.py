"""The label of a request: the highest of everything known about it. It only rises; doubt means the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.sensitivity.detectors import Detector


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
    that fails, and text that could not be read, raise the label to `top`.
    """
    raised: list[tuple[str, int]] = [("floor", floor)]
    entities: dict[str, int] = {}
    if header is not None:
        raised.append(("header", header))
    if detectors and texts is None:
        raised.append(("unreadable", top))
    for detector in detectors if texts is not None else ():
        try:
            found = detector.scan(texts or ())
        except Exception:  # whatever went wrong in a detector, the answer is the same: assume the worst
            raised.append((f"{detector.name}:failed", top))
            continue
        for entity, count in found.items():
            entities[entity] = entities.get(entity, 0) + count
            raised.append((f"{detector.name}:{entity}", detector.label))
    rank = max(rank for _, rank in raised)
    return Label(rank, tuple(raised), entities)
