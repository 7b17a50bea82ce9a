"""`pointsman scan`, as a person and as a script would use it."""

from __future__ import annotations

import io
import json
import sys

import pytest

from router.cli import main

POLICY = """
apiVersion: pointsman/v1
kind: Policy
sensitivity:
  levels: [open, secret]
  default: open
  detectors: [{use: patterns, patterns: {PART: 'PN-[0-9]{6}'}, label: secret}]
"""


@pytest.fixture
def scan(capsys, monkeypatch, tmp_path):
    def run(text, *arguments, stdin=False):
        if stdin:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
            file = "-"
        else:
            file = str(tmp_path / "texts")
            (tmp_path / "texts").write_bytes(text)
        try:
            status = main(["scan", *map(str, arguments), file])
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, [json.loads(line) for line in out.splitlines()], err

    return run


@pytest.mark.parametrize("stdin", [False, True])
def test_a_line_is_a_text(scan, stdin):
    text = "hello\n電話は０９０－１２３４－５６７８です\npassword: Zt8Wv3Bn6Y\n\n".encode()
    status, found, _ = scan(text, stdin=stdin)
    assert status == 0
    assert [one["label"] for one in found] == ["internal", "confidential", "restricted", "internal"]
    assert found[1]["entities"] == [{"type": "PHONE_NUMBER", "start": 3, "end": 16, "score": 0.7}]


def test_a_line_may_be_an_object(scan):
    lines = [{"text": "a\ntaro@example.com", "id": 1}, {"no": "text here: taro@example.com"}]
    status, found, _ = scan("\n".join(map(json.dumps, lines)).encode())
    assert status == 0
    assert [(e["type"], e["start"]) for e in found[0]["entities"]] == [("EMAIL_ADDRESS", 2)]
    assert found[1]["entities"][0]["type"] == "EMAIL_ADDRESS"


def test_the_text_is_never_shown(scan):
    status, found, err = scan(b'taro@example.com\n{"text": ["taro@example.com"]}\ntaro@example.com \xff\n')
    assert status == 1
    assert "line 2" in err and "line 3" in err
    assert [one["label"] for one in found] == ["confidential", "restricted", "restricted"]
    assert "taro" not in json.dumps(found) + err


def test_a_policy_says_what_to_look_for(scan, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    status, found, _ = scan(b"PN-123456 taro@example.com\nnothing\n", "--policy", tmp_path / "policy.yaml")
    assert status == 0
    assert [one["label"] for one in found] == ["secret", "open"]
    assert [e["type"] for e in found[0]["entities"]] == ["PART"]


def test_a_bad_policy_is_told_of(scan, tmp_path, capsys):
    (tmp_path / "policy.yaml").write_text(POLICY.replace("[0-9]", "[0-9"))
    status, found, err = scan(b"x\n", "--policy", tmp_path / "policy.yaml")
    assert (status, found) == (1, [])
    assert "policy.yaml:7:" in err
    (tmp_path / "policy.yaml").write_text("")
    assert scan(b"x\n", "--policy", tmp_path / "policy.yaml")[0] == 1


def test_misuse(capsys, tmp_path):
    assert main(["scan", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
