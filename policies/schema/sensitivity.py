"""Of a Policy: the levels, and what raises a request to one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from policies.schema.base import Items, Model, Name, Positive
from policies.schema.conditions import Match


class Keywords(Model):
    """Words of your own. Full-width and half-width forms, and upper and lower case, count as the same."""

    use: Literal["keywords"] = Field(description="the detector", examples=["keywords"])
    words: Items[Annotated[str, Field(min_length=1)]] = Field(
        description="words and phrases; a long list may stand in a file of its own: `{include: words.txt}`",
        examples=[["社外秘", "CONFIDENTIAL"]],
    )
    label: str = Field(description="the level that a finding raises the request to", examples=["confidential"])


class Pii(Model):
    """Personal data: e-mail addresses, phone numbers, card numbers, identity numbers and the like, found by pattern and
    check digit. Names of people have no pattern, so it does not find them. Plain web addresses are found only where
    `entities` names URL: a public address is no personal data."""

    use: Literal["pii"] = Field(description="the detector", examples=["pii"])
    entities: Items[str] | None = Field(
        default=None,
        description="only these types. Absent: all that it finds, but URL",
        examples=[["EMAIL_ADDRESS", "CREDIT_CARD"]],
    )
    regions: Items[str] = Field(
        default=["JP", "US", "GB", "DE"],
        description="countries (ISO 3166) whose national phone numbers count; international ones always do",
        examples=[["JP", "FR", "IN"]],
    )
    label: str = Field(description="the level that a finding raises the request to", examples=["confidential"])


class Secrets(Model):
    """Credentials: keys of clouds and services, private keys, tokens, passwords in web addresses."""

    use: Literal["secrets"] = Field(description="the detector", examples=["secrets"])
    label: str = Field(description="the level that a finding raises the request to", examples=["restricted"])


class Patterns(Model):
    """Patterns of the organisation's own, such as numbers of parts or customers; found after Unicode normalisation."""

    use: Literal["patterns"] = Field(description="the detector", examples=["patterns"])
    patterns: Annotated[dict[str, Annotated[str, Field(min_length=1, max_length=2000)]], Field(min_length=1)] = Field(
        description="type of entity, in capitals: a regular expression (RE2 syntax); a finding spans at most 512 bytes",
        examples=[{"PART_NUMBER": "\\bPN-[0-9]{6}\\b"}],
    )
    label: str = Field(description="the level that a finding raises the request to", examples=["confidential"])


class Ner(Model):
    """Names of people, places and organisations, found by a spaCy model that you install beside the router. It runs in
    a process of its own. Without an answer in time a request has the top level. A model finds most names, not all."""

    use: Literal["ner"] = Field(description="the detector", examples=["ner"])
    model: Annotated[str, Field(min_length=1)] = Field(
        description="the model's package, or the folder that it is in", examples=["ja_ginza", "en_core_web_lg"]
    )
    entities: Items[str] = Field(
        default=["PERSON", "LOCATION", "ORGANIZATION"],
        description="only these types",
        examples=[["PERSON"]],
    )
    labels: dict[str, str] = Field(
        default={},
        description="what the model calls things: the type that is. The labels of spaCy's and GiNZA's models are known",
        examples=[{"PATIENT": "PERSON"}],
    )
    timeout_ms: Positive = Field(
        default=2000,
        description="longest that it may take for all texts of a request; after that the request has the top level",
        examples=[500],
    )
    label: str = Field(description="the level that a finding raises the request to", examples=["confidential"])


def _detector(value: Any) -> str:
    use = value.get("use") if isinstance(value, dict) else getattr(value, "use", None)
    return f"§{use}"


DetectorSettings = Annotated[
    Annotated[Keywords, Tag("§keywords")]
    | Annotated[Pii, Tag("§pii")]
    | Annotated[Secrets, Tag("§secrets")]
    | Annotated[Patterns, Tag("§patterns")]
    | Annotated[Ner, Tag("§ner")],
    Discriminator(_detector),
]


class Floor(Model):
    """A level that matching requests have at least, whatever else is known of them; also once pseudonymised."""

    match: Match = Field(
        default=Match(),
        description="which requests. It cannot ask for `label` or `entities`",
        examples=[{"route": "/v2/*"}],
    )
    label: str = Field(description="the level that they have at least", examples=["restricted"])


class Sensitivity(Model):
    """The levels, and what raises a request to one. A request's label is the highest level that anything gives it."""

    levels: Items[Name] = Field(
        default=["public", "internal", "confidential", "restricted"],
        description="the levels, lowest first",
        examples=[["public", "internal", "secret"]],
    )
    default: str = Field(
        default="internal", description="the level of a request of which nothing else is known", examples=["internal"]
    )
    detectors: list[DetectorSettings] = Field(
        default=[],
        description="what looks into requests, and the level that a finding gives",
        examples=[[{"use": "pii", "label": "confidential"}]],
    )
    scan_bytes: Annotated[int, Field(gt=0)] = Field(
        default=8 * 1024 * 1024,
        description="most text of one request that the detectors look into; a request with more has the top level",
        examples=[1048576],
    )
    unscannable: str | None = Field(
        default=None,
        description="the least level of requests with something that no detector can read: pictures, sound, files, "
        "tensors of numbers. Absent: nothing is raised for that",
        examples=["confidential"],
    )
    floors: list[Floor] = Field(
        default=[],
        description="levels that requests have at least, by tenant, route or other facts",
        examples=[[{"match": {"tenant": "hospital-*"}, "label": "confidential"}]],
    )
