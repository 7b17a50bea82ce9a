"""YAML text into documents, keeping the file, line and column of every key and value.

Stricter than YAML 1.1 where YAML 1.1 surprises people: `no` and `on` are text, `022` and `22:00` are text, a
key may stand only once in a mapping, and aliases may not blow a small file up into a large one.
Variables are `${NAME}` and `${NAME:-default}`; `$${` writes a literal `${`. `{include: path}` stands for what the
file at that path holds: YAML, or the lines of a .txt file as a list; in a list, a list is spliced in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policies.errors import Position, Problem
from policies.yamlreader import SYNTAX_ERRORS, Include, Path, Reader, TooLarge, compose, syntax_problem

__all__ = ["Document", "Include", "Path", "Position", "parse"]


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its data, and where each path of it stands."""

    file: str
    data: Any
    keys: Mapping[Path, Position] = field(repr=False)
    values: Mapping[Path, Position] = field(repr=False)
    faults: frozenset[Position] = frozenset()  # where reading went wrong: what follows from it needs no telling

    @property
    def kind(self) -> str | None:
        kind = self.data.get("kind") if isinstance(self.data, dict) else None
        return kind if isinstance(kind, str) else None

    def locate(self, path: Path, *, key: bool = False) -> Position:
        """The position of `path`, or of its nearest ancestor that was written somewhere."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, Position(1, 1, self.file))

    def part(self, path: Path) -> Document:
        """What stands at `path`, as a document of its own with its positions in the file."""
        data = self.data
        for step in path:
            data = data[step]
        size = len(path)
        return replace(
            self,
            data=data,
            keys={found[size:]: at for found, at in self.keys.items() if found[:size] == path},
            values={found[size:]: at for found, at in self.values.items() if found[:size] == path},
        )

    def problem(
        self, path: Path, message: str, hint: str = "", *, key: bool = False, severity: str = "error", code: str = ""
    ) -> Problem:
        line, column, file = self.locate(path, key=key)
        return Problem(file, line, column, message, hint, severity, code)


def parse(
    text: str, file: str, env: Mapping[str, str], include: Include | None = None
) -> tuple[list[Document], list[Problem]]:
    """All documents in `text`, and every problem met on the way. Empty documents are left out."""
    documents: list[Document] = []
    problems: list[Problem] = []
    try:
        for node in compose(text, file):
            reader = Reader(file, env, include)
            data = reader.read(node, ())
            problems += reader.problems
            if data is not None:
                faults = frozenset(problem.position for problem in reader.problems)
                documents.append(Document(file, data, reader.keys, reader.values, faults))
    except TooLarge as error:
        problems.append(error.problem)
    except SYNTAX_ERRORS as error:
        problems.append(syntax_problem(error, text, file))
    return documents, problems
