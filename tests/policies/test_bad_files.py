"""What `pointsman check` says of broken files, to the letter.

Each tests/testdata/bad/NAME.yaml has its expected text in NAME.txt. To accept a new text after reading it:
POINTSMAN_ACCEPT=1 pytest tests/policies/test_bad_files.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import ROOT

from router.cli import main

BAD = ROOT / "tests" / "testdata" / "bad"
FILES = sorted(BAD.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_exact_text(path: Path, monkeypatch, capsys):
    monkeypatch.chdir(BAD)
    monkeypatch.delenv("POINTSMAN_TEST_NOT_SET", raising=False)
    status = main(["check", path.name])
    said = capsys.readouterr().out
    expected = path.with_suffix(".txt")
    if os.environ.get("POINTSMAN_ACCEPT"):
        expected.write_text(said)
    assert said == expected.read_text()
    assert status == 1
    assert "Traceback" not in said


def test_the_whole_folder_at_once(monkeypatch, capsys):
    """Every file is told of, none hides another, and each text is part of the whole."""
    monkeypatch.chdir(BAD)
    assert main(["check", "."]) == 1
    said = capsys.readouterr().out
    for path in FILES:
        for line in path.with_suffix(".txt").read_text().splitlines():
            assert line in said


def test_no_secret_is_repeated(monkeypatch, capsys):
    monkeypatch.chdir(BAD)
    main(["check", "."])
    said = capsys.readouterr().out
    assert "hunter2" not in said
    assert "sk-123" not in said


def test_every_expected_text_has_its_file():
    assert {p.stem for p in BAD.glob("*.txt")} == {p.stem for p in FILES}
