"""Names of people, places and organisations, as a language model sees them: `{use: ner}`.

The model itself is not here: whoever compiles a policy brings a function that asks it (`Recognisers`). Without one
every scan fails, which means the top label. What a model calls things is translated to the types of `entities`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from policies.sensitivity.normalise import normalise, original_spans
from policies.sensitivity.rules import Entity


class Named(NamedTuple):
    """What a model found in a text: from where to where, in characters, and what it calls it."""

    start: int
    end: int
    label: str


Recognise = Callable[[Sequence[str], float], list[list[Named]]]
"""(texts, seconds) -> the names in each text. Raises where it has no answer in that time."""
Recognisers = Callable[[str], Recognise]
"""A model by its name."""

_PEOPLE = ("PERSON", "PER", "Person", "NAME")
_PLACES = (
    "GPE", "LOC", "FAC", "LOCATION", "City", "County", "Province", "Country", "Region_Other", "Domestic_Region", "Spa",
    "GPE_Other", "Location_Other", "Postal_Address", "Address_Other", "Station", "Airport", "Island", "Facility_Other",
)  # fmt: skip
_ORGANISATIONS = (
    "ORG", "ORGANIZATION", "Company", "Company_Group", "Corporation_Other", "Organization_Other", "Show_Organization",
    "Government", "Political_Party", "Political_Organization_Other", "International_Organization", "School",
    "Sports_Team", "Sports_Organization_Other", "Public_Institution", "Military", "Religious_Organization",
)  # fmt: skip
LABELS: Mapping[str, str] = (
    dict.fromkeys(_PEOPLE, "PERSON")
    | dict.fromkeys(_PLACES, "LOCATION")
    | dict.fromkeys(_ORGANISATIONS, "ORGANIZATION")
)
"""What models call things -> our type: OntoNotes 5 and CoNLL 2003 as spaCy's models use them, Sekine's extended
hierarchy as GiNZA does."""
TYPES: tuple[str, ...] = ("PERSON", "LOCATION", "ORGANIZATION")


def none_here(model: str) -> Recognise:
    """For those that only read a policy, and label no text."""

    def fail(texts: Sequence[str], seconds: float) -> list[list[Named]]:
        raise RuntimeError("no model is loaded here")

    return fail


@dataclass(frozen=True, slots=True)
class Ner:
    """A detector that tells places."""

    label: int
    entities: frozenset[str]
    seconds: float  # for all texts of one scan
    recognise: Recognise = field(repr=False, compare=False)
    labels: Mapping[str, str] = field(default_factory=lambda: LABELS, repr=False)
    name: str = "ner"

    def scan(self, texts: Iterable[str], /) -> Mapping[str, int]:
        return Counter(entity.type for found in self.find(list(texts)) for entity in found)

    def find(self, texts: Sequence[str], /) -> list[list[Entity]]:
        """Of each text its names, at places in it as it was given. A model reads the normalised text."""
        normal = [normalise(text) for text in texts]
        wanted = list(dict.fromkeys(text for text in normal if _has_letters(text)))
        answers = self.recognise(wanted, self.seconds) if wanted else []
        if len(answers) != len(wanted):
            raise ValueError("an answer for each text is needed")
        known = dict(zip(wanted, answers, strict=True))
        return [self._entities(text, read, known.get(read, [])) for text, read in zip(texts, normal, strict=True)]

    def _entities(self, text: str, read: str, names: Sequence[Named]) -> list[Entity]:
        if any(not 0 <= name.start < name.end <= len(read) for name in names):
            raise ValueError("a place outside the text")
        kept = [(name, kind) for name in names if (kind := self.labels.get(name.label)) in self.entities]
        places = original_spans(text, [(name.start, name.end) for name, _ in kept])
        return [Entity(*place, str(kind), 0.85) for place, (_, kind) in zip(places, kept, strict=True)]


def _has_letters(text: str) -> bool:
    return any(char.isalpha() for char in text)
