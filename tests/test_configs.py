"""The recipes in configs/: each is sound, tested, explained on one page, and does what that page shows."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from conftest import run_command as run

from policies.explain import as_dict
from policies.schema import Case
from router.policytests import run_file

RECIPES = sorted(path.parent for path in (ROOT / "configs").glob("*/policy.yaml"))
"""Warnings that a recipe may have: its README says which parts this version only decides."""
recipes = pytest.mark.parametrize("recipe", RECIPES, ids=[path.name for path in RECIPES])


def flat(text):
    """Words with single spaces between them, without the frames of tables and without how many requests `diff` made."""
    words = re.sub(r" of \d+ requests move", " of so many requests move", text)
    return " ".join(re.sub(r"[│┃|]", " ", words).split())


def test_there_are_recipes():
    assert len(RECIPES) >= 6


@recipes
def test_check_finds_nothing(recipe, capsys):
    status, out, _ = run(capsys, "check", recipe, "--json")
    assert (status, json.loads(out)["problems"]) == (0, [])


@recipes
def test_its_tests_pass_and_cover_all(recipe, capsys):
    status, out, _ = run(capsys, "test", recipe, "--coverage", "--fail-under", "100")
    assert status == 0, out


@recipes
def test_its_readme_names_every_rule_and_constraint(recipe):
    readme = (recipe / "README.md").read_text()
    policy = yaml.safe_load((recipe / "policy.yaml").read_text())
    for group in ("rules", "constraints", "budgets", "limits"):
        for one in policy.get(group, ()):
            assert f"`{one['name']}`" in readme, one["name"]


@recipes
def test_nothing_moves_between_it_and_itself(recipe, capsys):
    status, out, _ = run(capsys, "diff", recipe, recipe, "--json")
    assert (status, json.loads(out)["moved"]) == (0, 0)


@recipes
def test_explain_decides_as_test_does(recipe, capsys, tmp_path):
    file, results = run_file(recipe / "policy_test.yaml", {})
    compared = 0
    for result in results:
        down = _down(result.case)
        if result.decision is None or down is None:
            continue
        asked = tmp_path / "request.yaml"
        asked.write_text(json.dumps(result.case.request.model_dump(exclude_unset=True)))
        flags = [flag for backend in down for flag in ("--down", backend)]
        when = result.case.now or file.test.now
        status, out, _ = run(
            capsys, "explain", recipe, "--request", asked, "--now", when, "--seed", result.case.seed, *flags, "--json"
        )
        assert status == 0
        expected = json.dumps(as_dict(result.decision, file.policy))
        same = expected.replace("down, as the test says", "down, as --down says")
        assert json.loads(out) == json.loads(same), result.case.name
        compared += 1
    assert compared


def _down(case: Case) -> list[str] | None:
    """The backends that are down; None where more is given than `explain` has flags for."""
    if case.given.spent or any(one.model_fields_set != {"down"} for one in case.given.backends.values()):
        return None
    return [name for name, one in case.given.backends.items() if one.down]


@recipes
def test_its_readme_shows_what_really_happens(recipe, capsys, tmp_path, monkeypatch):
    """Every line of a text block stands in what the commands of the bash block before it print."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```bash\n(.*?)^```\n\n```text\n(.*?)^```", (recipe / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) >= 2
    named = set()
    for commands, shown in blocks:
        said = []
        for line in commands.splitlines():
            before, pipe, last = line.rpartition(" | ")
            words = shlex.split(last)
            if words[0] != "pointsman":
                assert words[0] in ("cp", "sed"), line
                subprocess.run(words, check=True)
                continue
            fed = subprocess.run(["bash", "-c", before], check=True, capture_output=True, text=True).stdout
            monkeypatch.setattr("sys.stdin", io.StringIO(fed if pipe else ""))
            _, out, err = run(capsys, *words[1:])
            said.append(out + err)
            named.add(words[1])
        for line in shown.splitlines():
            assert flat(line) in flat("\n".join(said)), f"{line}\n--- in ---\n{said}"
    assert {"check", "test", "explain", "diff"} <= named
    assert Path("configs", recipe.name, "policy.yaml").read_text() == (recipe / "policy.yaml").read_text()
