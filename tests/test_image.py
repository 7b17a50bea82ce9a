"""The Dockerfile against the tree and against the rules that matter; `make image-proof` carries it out."""

from __future__ import annotations

import re
import sys

import pytest
from conftest import ROOT

from tests.image.prove import context, instructions
from tools.image_requirements import CLOSURE, blocks, closure, strip

DOCKERFILE = instructions((ROOT / "Dockerfile").read_text())


def all_of(word: str) -> list[str]:
    return [rest for found, rest in DOCKERFILE if found == word]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the list is written by the lowest Python, as the lock is")
def test_the_list_of_what_goes_in_is_that_of_the_dependencies():
    assert CLOSURE.read_text() == closure(), "write it anew: python tools/image_requirements.py --closure"


def test_everything_on_it_is_locked_with_hashes():
    names = [line for line in CLOSURE.read_text().splitlines() if line[0] not in "#["]
    locked = blocks()
    assert len(names) > 80
    assert all("--hash=sha256:" in locked[name] for name in names)


def test_every_base_is_pinned_by_its_digest():
    assert {rest.split()[0] for rest in all_of("FROM")} == {"${PYTHON_IMAGE}"}
    (base,) = (rest for rest in all_of("ARG") if rest.startswith("PYTHON_IMAGE="))
    assert re.fullmatch(r"PYTHON_IMAGE=[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base)
    assert ":latest" not in base


def test_it_runs_as_nobody_special_and_installs_nothing_loosely():
    assert all_of("USER")[-1] == "10001:10001", "as numbers: runAsNonRoot cannot tell names"
    assert "ADD" not in dict(DOCKERFILE)
    runs = " && ".join(all_of("RUN"))
    assert "sudo" not in runs
    assert "apt-get" not in runs
    for install in re.findall(r"pip (?:install|wheel) [^&;]*", runs):
        assert "--no-cache-dir" in install
        assert (
            "--require-hashes" in install or "--no-index" in install or "torch.txt" in install or "--no-deps" in install
        )
    assert {"EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "LABEL"} <= dict(DOCKERFILE).keys()


def test_what_is_copied_gets_through_dockerignore_and_nothing_else_does(tmp_path):
    context(tmp_path)
    for rest in all_of("COPY"):
        words = [word for word in rest.split() if not word.startswith("--")]
        if "--from" not in rest:
            assert all((tmp_path / source).exists() for source in words[:-1]), rest
    sent = {path.name for path in tmp_path.iterdir()}
    assert sent == {"LICENSE", "README.md", "pyproject.toml", "requirements", "policies", "backends", "router", "tools"}
    assert not (tmp_path / "router" / "demo").exists()
    assert not list(tmp_path.rglob("*.pyc"))
    assert (tmp_path / "router" / "engines" / "ray" / "application.py").is_file()


def test_what_is_stripped_leaves_nothing_that_looks_for_it(tmp_path):
    packages = tmp_path / "lib" / "python3.12" / "site-packages"
    (packages / "_distutils_hack").mkdir(parents=True)
    (packages / "distutils-precedence.pth").write_text("import _distutils_hack\n")
    (packages / "router" / "cli").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    strip(tmp_path, torch=False)
    assert sorted(one.name for one in packages.iterdir()) == ["router"]
