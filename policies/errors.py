"""What can be wrong with a fleet or a policy, and where.

Problem            one finding: file:line:column, what is wrong, what to write instead
ConfigurationError raised with *all* problems of a configuration at once
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple


class Position(NamedTuple):
    """A place in a file, counted from 1."""

    line: int
    column: int
    file: str


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One finding in a configuration. `line` and `column` count from 1; 0 means "the file as a whole"."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    severity: str = "error"  # error | warning
    code: str = ""  # of a lint, such as PM101

    @property
    def position(self) -> Position:
        return Position(self.line, self.column, self.file)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        code = f" {self.code}" if self.code else ""
        text = f"{place}: {self.severity}{code}: {self.message}"
        return f"{text}\n    {self.hint}" if self.hint else text

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


class ConfigurationError(Exception):
    """A fleet or policy that must not go live. `problems` holds every error found, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(p) for p in self.problems))


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """A hint naming the closest allowed word, or all of them when they are few. Empty when there are none. Words in
    a sequence keep their order, which may mean something."""
    choices = list(dict.fromkeys(allowed)) if isinstance(allowed, Sequence) else sorted(set(allowed))
    close = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if not choices:
        return ""
    shown = ", ".join(choices[:20]) + (", …" if len(choices) > 20 else "")
    return f"write one of: {shown}"
