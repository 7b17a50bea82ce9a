"""The label of a request: the highest of everything known about it. It only rises; doubt means the top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.sensitivity.pseudonyms import PLACEHOLDER
from policies.sensitivity.scanner import Detector, Scanner
from policies.types import Value


class Label(Value, frozen=True, gc=False):
    """A sensitivity label with its provenance: what raised it, and to which rank. No text, only types.

    `declassified_from` is the rank that it had before an authorised tenant lowered it; None where nobody did."""

    rank: int
    raised_by: tuple[tuple[str, int], ...]
    entities: Mapping[str, int]
    declassified_from: int | None = None

    @property
    def why(self) -> tuple[str, ...]:
        """What raised it this high, in words: sources and types of entities, never text."""
        return tuple(_WORDS.get(source, source) for source, rank in self.raised_by if rank == self.rank)

    @property
    def failed(self) -> tuple[str, ...]:
        """The detectors that gave no answer."""
        return tuple(source.removesuffix(":failed") for source, _ in self.raised_by if source.endswith(":failed"))


_WORDS = {
    "floor": "the policy's default or a floor",
    "header": "the header x-data-sensitivity",
    "tenant": "the tenant's floor",
    "unreadable": "text that cannot be read",
    "unscannable": "content that no detector can read",
    "declassified": "a declassification",
}


def label(
    floor: int,
    top: int,
    detectors: Sequence[Detector],
    texts: Sequence[str] | None,
    *,
    header: int | None = None,
    tenant: int | None = None,
    unscannable: int | None = None,
    masked: bool = False,
) -> Label:
    """max(the policy's floor for the request, the tenant's floor, caller's header, detectors, what they cannot read).

    `texts` is everything in the request that can carry text, or None when it could not be read. A detector
    that fails, a scan that ran out of bounds, and text that could not be read, raise the label to `top`. `masked` says
    that what looks like a placeholder in them is one.
    """
    raised: list[tuple[str, int]] = [("floor", floor)]
    entities: dict[str, int] = {}
    if header is not None:
        raised.append(("header", header))
    if tenant is not None:
        raised.append(("tenant", tenant))
    if unscannable is not None:
        raised.append(("unscannable", unscannable))
    if detectors and texts is None:
        raised.append(("unreadable", top))
    if detectors and texts is not None:
        scanner = detectors if isinstance(detectors, Scanner) else Scanner(others=tuple(detectors))
        for outcome in scanner.outcomes(texts, PLACEHOLDER if masked else None):
            if outcome.found is None:
                raised.append((f"{outcome.name}:failed", top))
                continue
            for entity, count in outcome.found.items():
                entities[entity] = entities.get(entity, 0) + count
                raised.append((f"{outcome.name}:{entity}", outcome.label))
    rank = max(rank for _, rank in raised)
    return Label(rank, tuple(raised), entities)


def declassified(found: Label, level: int) -> Label:
    """The label lowered to `level` by an authorised tenant, as far as that goes: it undoes what detectors have found.
    Floors, the caller's header, and doubts (a detector that failed, text that could not be read) hold all the same.
    """
    firm = max(rank for source, rank in found.raised_by if not _is_finding(source, found))
    lowered = max(firm, level)
    if lowered >= found.rank:
        return found
    return Label(lowered, (*found.raised_by, ("declassified", lowered)), found.entities, found.rank)


def _is_finding(source: str, found: Label) -> bool:
    detector, _, entity = source.rpartition(":")
    return bool(detector) and entity != "failed" and entity in found.entities
