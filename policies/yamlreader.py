"""YAML text into plain data with the place of every key and value: scalars, variables, includes, and their limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from policies.errors import Position, Problem

MAX_NODES = 200_000
"""Values a file may expand to: aliases counted each time they are used, included files with the one that names them."""
MAX_DEPTH = 60
MAX_CHARS = 16 * 1024 * 1024
MAX_FILES = 200
"""Files that one may include, counted each time."""
MAX_INCLUDES = 8
"""How deep files may include files."""

Path = tuple[str | int, ...]
Include = Callable[[str, str], tuple[str, str]]
"""(file that includes, path as written there) -> (name of the included file, its text). Raises OSError or
UnicodeDecodeError."""

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


class TooLarge(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def compose(text: str, file: str) -> Iterator[yaml.Node]:
    """The nodes of each document. Raises TooLarge, or what `syntax_problem` puts into words."""
    if len(text) > MAX_CHARS:
        raise TooLarge(Problem(file, 0, 0, f"the file is over {MAX_CHARS} characters"))
    loader = _Loader(text)
    try:
        while loader.check_node():
            yield loader.get_node()
    finally:
        loader.dispose()


SYNTAX_ERRORS = (yaml.MarkedYAMLError, yaml.reader.ReaderError, RecursionError)


def syntax_problem(error: Exception, text: str, file: str) -> Problem:
    match error:
        case yaml.MarkedYAMLError():
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            what = (error.problem or "not YAML").strip()
            context = f" {error.context}" if error.context else ""
            if context and error.context_mark and error.context_mark.line + 1 != line:
                context += f" that begins on line {error.context_mark.line + 1}"
            return Problem(file, line, column, f"not valid YAML: {what}{context}", _hint(what))
        case yaml.reader.ReaderError():
            line = text.count("\n", 0, error.position) + 1
            column = error.position - text.rfind("\n", 0, error.position)
            code = ord(error.character) if isinstance(error.character, str) else int(error.character)
            return Problem(file, line, column, f"not valid YAML: the character U+{code:04X} is not allowed here")
        case _:
            return Problem(file, 0, 0, f"nested deeper than {MAX_DEPTH} levels")


def _hint(problem: str) -> str:
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


class Reader:
    """Turns one composed document into data; collects positions and problems, also those of the files it includes."""

    def __init__(self, file: str, env: Mapping[str, str], include: Include | None) -> None:
        self.env, self.include = env, include
        self.keys: dict[Path, Position] = {}
        self.values: dict[Path, Position] = {}
        self.problems: list[Problem] = []
        self._nodes = self._includes = 0
        self._open = [file]  # the file being read, and those that include it before it

    def _at(self, node: yaml.Node) -> Position:
        return Position(node.start_mark.line + 1, node.start_mark.column + 1, self._open[-1])

    def complain(self, node: yaml.Node, message: str, hint: str = "") -> None:
        line, column, file = self._at(node)
        self.problems.append(Problem(file, line, column, message, hint))

    def read(self, node: yaml.Node, path: Path) -> Any:
        self._count(node, path)
        self.values[path] = self._at(node)
        if not node.tag.startswith("tag:yaml.org,2002:") or "/" in node.tag:
            self.complain(node, f"the tag {_short(node.tag)} is not supported", "write the plain value")
            return None
        if isinstance(node, yaml.MappingNode):
            named = _included(node)
            return self._mapping(node, path) if named is None else self._included(named, path)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, path)
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _count(self, node: yaml.Node, path: Path) -> None:
        self._nodes += 1
        line, column, file = self._at(node)
        if self._nodes > MAX_NODES:
            told = f"expands to more than {MAX_NODES} values"
            raise TooLarge(Problem(file, line, column, told, "use fewer aliases (*name)"))
        if len(path) > MAX_DEPTH:
            raise TooLarge(Problem(file, line, column, f"nested deeper than {MAX_DEPTH} levels"))

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        items: list[Any] = []
        for item in node.value:
            named = _included(item)
            if named is None:
                items.append(self.read(item, (*path, len(items))))
                continue
            found = self._included(named, path, len(items))
            items += found if isinstance(found, list) else [found]
        return items

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
                    f"'{key}' stands twice in this mapping, first on line {first.line}",
                    "remove one of them: which one wins would be luck",
                )
                continue
            self.keys[where] = self._at(key_node)
            data[key] = self.read(value_node, where)
        return data

    # --- includes -------------------------------------------------------------------------------------------------

    def _included(self, node: yaml.ScalarNode, path: Path, first: int | None = None) -> Any:
        """What the file holds, as if it stood here. `first`: the place of its first item in the list around it."""
        written = self._interpolate(node, node.value) if "${" in node.value else node.value
        if self.include is None:
            self.complain(node, "files cannot be included here")
            return None
        self._includes += 1
        if self._includes > MAX_FILES:
            line, column, file = self._at(node)
            raise TooLarge(Problem(file, line, column, f"more than {MAX_FILES} files are included"))
        if len(self._open) > MAX_INCLUDES:
            self.complain(node, f"files include each other more than {MAX_INCLUDES} deep", "is there a circle?")
            return None
        try:
            name, text = self.include(self._open[-1], written)
        except OSError as error:
            why = error.strerror or type(error).__name__
            self.complain(node, f"cannot include '{written}': {why}", "paths start from the folder of this file")
            return None
        except UnicodeDecodeError:
            self.complain(node, f"cannot include '{written}': not UTF-8", "save it as UTF-8")
            return None
        self._open.append(name)
        try:
            if name.endswith(".txt"):
                return self._lines(text, path, first or 0)
            return self._yaml(node, text, name, path, first)
        finally:
            self._open.pop()

    def _lines(self, text: str, path: Path, first: int) -> list[str]:
        """A list of words: one a line, without empty lines and those that begin with #."""
        words: list[str] = []
        for number, line in enumerate(text.splitlines(), 1):
            word = line.strip()
            if word and not word.startswith("#"):
                self._nodes += 1
                if self._nodes > MAX_NODES:
                    raise TooLarge(Problem(self._open[-1], number, 1, f"expands to more than {MAX_NODES} values"))
                self.values[(*path, first + len(words))] = Position(number, 1, self._open[-1])
                words.append(word)
        return words

    def _yaml(self, node: yaml.ScalarNode, text: str, name: str, path: Path, first: int | None) -> Any:
        try:
            roots = list(compose(text, name))
            if len(roots) != 1:
                self.problems.append(Problem(name, 0, 0, "an included file holds one YAML document"))
                return None
            root = roots[0]
            if first is None:
                return self.read(root, path)
            if not isinstance(root, yaml.SequenceNode):
                return self.read(root, (*path, first))
            items: list[Any] = []
            for item in root.value:
                items.append(self.read(item, (*path, first + len(items))))
            return items
        except SYNTAX_ERRORS as error:
            self.problems.append(syntax_problem(error, text, name))
            return None

    # --- scalars --------------------------------------------------------------------------------------------------

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag, text = node.tag, node.value
        if "${" in text:
            text = self._interpolate(node, text)
            if not node.style:  # a plain scalar may stand for a number: ${REPLICAS}
                tag = _resolve(text)
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


def _included(node: yaml.Node) -> yaml.ScalarNode | None:
    """The path in `{include: path}`, or None for every other node."""
    if not isinstance(node, yaml.MappingNode) or len(node.value) != 1:
        return None
    key, value = node.value[0]
    is_include = isinstance(key, yaml.ScalarNode) and key.value == "include" and isinstance(value, yaml.ScalarNode)
    return value if is_include else None


def _resolve(text: str) -> str:
    """The tag that a plain scalar of this text has."""
    loader = _Loader("")
    try:
        tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))
        return tag
    finally:
        loader.dispose()
