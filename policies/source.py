"""YAML text into plain data, keeping the line and column of every key and value.

Stricter than YAML 1.1 where YAML 1.1 surprises people: `no` and `on` are text, `022` and `22:00` are text, a
key may stand only once in a mapping, and aliases may not blow a small file up into a large one.
Variables are `${NAME}` and `${NAME:-default}`; `$${` writes a literal `${`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from policies.errors import Problem

MAX_NODES = 200_000
"""Values a file may expand to, aliases counted each time they are used."""
MAX_DEPTH = 60
MAX_CHARS = 16 * 1024 * 1024

Path = tuple[str | int, ...]
Position = tuple[int, int]

_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\$\{")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML with the scalar types of the YAML 1.2 core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    (
        "float",
        r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


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
        """The position of `path`, or of its nearest ancestor that is in the file."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, (1, 1))

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
        line, column = self.locate(path, key=key)
        return Problem(self.file, line, column, message, hint, severity, code)


def parse(text: str, file: str, env: Mapping[str, str]) -> tuple[list[Document], list[Problem]]:
    """All documents in `text`, and every problem met on the way. Empty documents are left out."""
    if len(text) > MAX_CHARS:
        return [], [Problem(file, 0, 0, f"the file is over {MAX_CHARS} characters")]
    loader = _Loader(text)
    documents: list[Document] = []
    problems: list[Problem] = []
    try:
        while loader.check_node():
            node = loader.get_node()
            reader = _Reader(file, env, loader)
            data = reader.read(node, ())
            problems += reader.problems
            if data is not None:
                faults = frozenset((p.line, p.column) for p in reader.problems)
                documents.append(Document(file, data, reader.keys, reader.values, faults))
    except _TooLarge as error:
        problems.append(error.problem)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = (error.problem or "not YAML").strip()
        context = f" {error.context}" if error.context else ""
        if context and error.context_mark and error.context_mark.line + 1 != line:
            context += f" that begins on line {error.context_mark.line + 1}"
        problems.append(Problem(file, line, column, f"not valid YAML: {what}{context}", _yaml_hint(what)))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        code = ord(error.character) if isinstance(error.character, str) else int(error.character)
        what = f"the character U+{code:04X}"
        problems.append(Problem(file, line, column, f"not valid YAML: {what} is not allowed here"))
    except RecursionError:
        problems.append(Problem(file, 0, 0, f"nested deeper than {MAX_DEPTH} levels"))
    finally:
        loader.dispose()
    return documents, problems


def _yaml_hint(problem: str) -> str:
    if "'\\t'" in problem or "cannot start any token" in problem:
        return "indent with spaces, and quote text that begins with a special character"
    if "mapping values are not allowed" in problem:
        return "quote text that contains ': '"
    if "alias" in problem:
        return "an alias (*name) needs an anchor (&name) above it"
    return ""


def _short(tag: str) -> str:
    """A tag as people write it."""
    return f"!!{tag.removeprefix('tag:yaml.org,2002:')}" if tag.startswith("tag:yaml.org,2002:") else tag


class _TooLarge(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Reader:
    """Turns one composed YAML tree into data; collects positions and problems."""

    def __init__(self, file: str, env: Mapping[str, str], loader: Any) -> None:
        self.file, self.env, self.loader = file, env, loader
        self.keys: dict[Path, Position] = {}
        self.values: dict[Path, Position] = {}
        self.problems: list[Problem] = []
        self.nodes = 0

    def complain(self, node: yaml.Node, message: str, hint: str = "") -> None:
        self.problems.append(self._at(node, message, hint))

    def _at(self, node: yaml.Node, message: str, hint: str = "") -> Problem:
        mark = node.start_mark
        return Problem(self.file, mark.line + 1, mark.column + 1, message, hint)

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _TooLarge(self._at(node, f"expands to more than {MAX_NODES} values", "use fewer aliases (*name)"))
        if len(path) > MAX_DEPTH:
            raise _TooLarge(self._at(node, f"nested deeper than {MAX_DEPTH} levels"))
        self.values[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if not node.tag.startswith("tag:yaml.org,2002:") or "/" in node.tag:
            self.complain(node, f"the tag {_short(node.tag)} is not supported", "write the plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                self.complain(key_node, "a key must be plain text")
                continue
            where = (*path, key)
            if key == "<<":
                self.complain(key_node, "merge keys (<<) are not supported", "write the fields out")
                continue
            if key in data:
                first = self.keys[where]
                self.complain(
                    key_node,
                    f"'{key}' stands twice in this mapping, first on line {first[0]}",
                    "remove one of them: which one wins would be luck",
                )
                continue
            self.keys[where] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            data[key] = self.read(value_node, where)
        return data

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag, text = node.tag, node.value
        if "${" in text:
            text = self._interpolate(node, text)
            if not node.style:  # a plain scalar may stand for a number: ${REPLICAS}
                tag = self.loader.resolve(yaml.ScalarNode, text, (True, False))
        match tag.rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                # A number of thousands of digits would be slow to read and is never meant.
                return int(text) if len(text) < 20 else self._too_long(node)
            case "float":
                return float(text)
            case "str":
                return text
            case _:
                self.complain(node, f"the tag {_short(tag)} is not supported", "write the plain value")
                return None

    def _too_long(self, node: yaml.ScalarNode) -> None:
        self.complain(node, "this number has too many digits", "put quotes around it if it is text")

    def _interpolate(self, node: yaml.ScalarNode, text: str) -> str:
        def replace(found: re.Match[str]) -> str:
            if found[0] == "$${":
                return "${"
            name = found["name"]
            if name is None:
                self.complain(node, "a variable is not closed or not named", "write ${NAME}, or $${ for a literal ${")
                return ""
            value = self.env.get(name)
            if value is None:
                value = found["default"]
            if value is None:
                self.complain(
                    node,
                    f"the environment variable {name} is not set",
                    f"set it, or give a default: ${{{name}:-value}}",
                )
                return ""
            return value

        return _VARIABLE.sub(replace, text)
