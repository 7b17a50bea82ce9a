"""The documents against the code: what they show compiles, and what they name exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

from policies.compile import compile_documents
from policies.source import Document, parse
from router.cli import main
from router.errors import STATUS

README = ROOT / "README.md"
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("[!.]*/README.md"),
        *ROOT.glob("configs/*/README.md"),
    ]
)
PACKAGES = "policies|backends|router|dashboards|configs|tests|benchmarks|docs|helm|requirements"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """Every line of a bash block and every piece of code in a sentence."""
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks(path, "bash") for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", prose)


def named(path: Path, command: str) -> set[str]:
    """The first words that follow `command` where it is used."""
    found = (re.match(rf"(?:\.venv/bin/)?{command} ([a-z-]+)", line.strip()) for line in commands(path))
    return {match[1] for match in found if match}


def table(path: Path, columns: int) -> list[list[str]]:
    """The rows of every table with so many columns, without code marks."""
    rows = [line.strip("|").split("|") for line in path.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows if len(row) == columns]


def of_kind(kind: str) -> list[Document]:
    documents = []
    for block in blocks(README, "yaml"):
        found, problems = parse(block, "README.md", {})
        assert not problems
        documents += [document for document in found if document.kind == kind]
    return documents


def test_the_readme_has_fleets_and_a_policy():
    assert len(of_kind("Fleet")) == 2
    assert len(of_kind("Policy")) == 1


@pytest.mark.parametrize("fleet", of_kind("Fleet"), ids=str)
@pytest.mark.parametrize("policy", of_kind("Policy"), ids=str)
def test_every_fleet_compiles_with_every_policy(fleet, policy):
    compiled, problems = compile_documents([fleet, policy])
    assert problems == []
    assert compiled is not None


def test_the_first_example_passes_check_and_does_what_the_readme_says(tmp_path, capsys):
    for block in blocks(README, "yaml")[:2]:
        file = re.match(r"# first/(\w+\.yaml)\n", block)
        assert file
        (tmp_path / file[1]).write_text(block)
    assert main(["check", str(tmp_path)]) == 0
    assert main(["explain", str(tmp_path), "--model", "chat", "--label", "confidential"]) == 0
    said = " ".join(re.sub(r"[│┃]", " ", capsys.readouterr().out).split())
    shown = next(block for block in blocks(README, "text") if block.startswith("request      model"))
    for line in shown.splitlines():
        assert " ".join(line.split()) in said


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_python_blocks_are_python(path):
    for block in blocks(path, "python"):
        ast.parse(block)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_make_target_exists(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named(path, "make") <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_subcommand_exists(path, capsys):
    for command in named(path, "pointsman"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, f"{name(path)} names pointsman {command}"


def test_the_readme_names_the_commands_it_is_about():
    assert {"run", "test"} <= named(README, "make")
    assert {"check", "explain", "serve"} <= named(README, "pointsman")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_to_a_file_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith("NNNN"):  # the template's own
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_path_and_test_that_is_named_exists(path):
    text = path.read_text()
    for file, _, test in re.findall(rf"`((?:{PACKAGES})/[\w./-]*)(::(\w+))?`", text):
        place = ROOT / file
        assert place.exists(), file
        if test:
            assert re.search(rf"^def {test}\(", place.read_text(), re.MULTILINE), f"{file} has no {test}"


def test_the_table_of_errors_is_the_codes():
    told = {code: int(status) for status, code, _ in table(README, 3) if status.isdigit()}
    assert told == {str(code): status for code, status in STATUS.items()}
