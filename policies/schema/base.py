"""What every model of the YAML shares: how it is read, and the kinds of values that fields take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

API_VERSION = "pointsman/v1"

T = TypeVar("T")
Items = Annotated[list[T], Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Sentence = Annotated[str, Field(min_length=1, max_length=500)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


def shape(value: Any) -> str:
    """Which arm of a union a written value belongs to, as the tag of that arm."""
    return "§map" if isinstance(value, Mapping) else "§list" if isinstance(value, list) else "§scalar"


def map_or_scalar(value: Any) -> str:
    return "§map" if isinstance(value, Mapping) else "§scalar"
