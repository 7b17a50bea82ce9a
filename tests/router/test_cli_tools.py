"""`pointsman test`, `diff` and `check --explain`, as somebody types them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from conftest import THREE_TIERS
from conftest import run_command as run

POLICY = """apiVersion: pointsman/v1
kind: Policy
sensitivity: {default: public}
constraints:
  - {name: jp, match: {tenant: jp}, require: {region: "jp-*"}}
rules:
  - {name: batch, match: {usage: batch}, objective: {cost: {weight: 1}}}
  - {name: quick, objective: {latency: {weight: 1}}}
"""
TESTS = """apiVersion: pointsman/v1
kind: PolicyTest
tests:
  - {name: quick goes to the edge, request: {model: chat}, expect: {rule: quick, backend: edge}}
  - {name: 日本に留まる, request: {model: chat, tenant: jp, label: restricted}, expect: {constraints: [jp]}}
"""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "policies"
    path.mkdir()
    (path / "fleet.yaml").write_text("apiVersion: pointsman/v1" + THREE_TIERS)
    (path / "policy.yaml").write_text(POLICY)
    (path / "policy_test.yaml").write_text(TESTS)
    return path


# --- test ---------------------------------------------------------------------------------------------------------


def test_good_tests(folder, capsys):
    status, out, _ = run(capsys, "test", folder)
    assert status == 0
    assert "  ok    日本に留まる" in out
    assert out.endswith("2 passed, 0 failed\n")


def test_the_tests_of_a_mounted_config_map_are_run_once(folder, capsys):
    """Kubernetes mounts one as links to a hidden folder beside them."""
    hidden = folder / "..2026_01_01"
    hidden.mkdir()
    for file in list(folder.glob("*.yaml")):
        file.rename(hidden / file.name)
        file.symlink_to(hidden / file.name)
    status, out, _ = run(capsys, "test", folder)
    assert (status, out.count("..2026")) == (0, 0)
    assert out.endswith("2 passed, 0 failed\n")


def test_a_failure_says_what_where_and_why(folder, capsys):
    (folder / "policy_test.yaml").write_text(TESTS.replace("backend: edge", "backend: cloud"))
    status, out, _ = run(capsys, "test", folder)
    assert status == 1
    assert "FAIL  quick goes to the edge" in out
    assert "backend: expected cloud, got edge" in out
    assert "policy_test.yaml:4" in out
    assert "goes to      edge (edge)" in out, "the explanation"
    assert "1 passed, 1 failed" in out


def test_only_some(folder, capsys):
    assert run(capsys, "test", folder, "--run", "quick")[1].endswith("1 passed, 0 failed\n")
    assert run(capsys, "test", folder, "--run", "*留まる")[1].endswith("1 passed, 0 failed\n")
    assert run(capsys, "test", folder, "--run", "nothing")[0] == 2


def test_coverage(folder, capsys):
    status, out, _ = run(capsys, "test", folder, "--coverage")
    assert status == 0
    assert "never: rule batch speaks" in out
    assert "of 6 (83.3 %)" in out
    assert run(capsys, "test", folder, "--fail-under", "80")[0] == 0
    assert run(capsys, "test", folder, "--fail-under", "90")[0] == 1
    more = "  - {name: cheap, request: {model: chat, usage: batch}, expect: {rule: batch}}\n"
    (folder / "batch_test.yaml").write_text(TESTS.partition("  - ")[0] + more)
    status, out, _ = run(capsys, "test", folder, "--fail-under", "100")
    assert (status, "(100.0 %)" in out) == (0, True), "files about one configuration count together"


def test_junit(folder, capsys, tmp_path):
    (folder / "policy_test.yaml").write_text(TESTS.replace("backend: edge", "backend: cloud"))
    (folder / "broken_test.yaml").write_text(TESTS.replace("rule: quick", "rule: quik"))
    assert run(capsys, "test", folder, "--junit", tmp_path / "junit.xml")[0] == 1
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert sum(int(suite.get("tests")) for suite in root) == 2
    assert [case.get("message") for case in root.iter("failure")] == ["backend: expected cloud, got edge"]
    assert [case.get("message") for case in root.iter("error")] == ["there is no rule 'quik'"]


def test_json(folder, capsys):
    (folder / "policy_test.yaml").write_text(TESTS.replace("backend: edge", "backend: cloud"))
    status, out, _ = run(capsys, "test", folder, "--json", "--coverage")
    found = json.loads(out)
    assert (status, found["passed"], found["failed"]) == (1, 1, 1)
    first = found["files"][0]["tests"][0]
    assert first["decision"]["backend"] == "edge"
    assert found["coverage"][0]["never"] == ["rule batch speaks"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TESTS.replace("kind: PolicyTest", "kind: Policy"), "error"),
        (TESTS.replace("expect: {rule", "expct: {rule"), "unknown field 'expct'"),
        (TESTS.replace("quick goes to the edge", "日本に留まる"), "a second case named '日本に留まる'"),
        (TESTS.replace("constraints: [jp]", "constraints: [pj]"), "there is no constraint 'pj'"),
        ("", "must hold one document of kind PolicyTest"),
    ],
)
def test_a_file_of_tests_that_is_wrong(folder, capsys, text, says):
    (folder / "policy_test.yaml").write_text(text)
    status, out, _ = run(capsys, "test", folder)
    assert status == 1
    assert says in out
    assert "policy_test.yaml" in out


def test_a_policy_that_does_not_compile(folder, capsys):
    (folder / "policy.yaml").write_text(POLICY.replace("rules:", "rulez:"))
    status, out, _ = run(capsys, "test", folder)
    assert status == 1
    assert "unknown field 'rulez'" in out


def test_misuse(folder, capsys, tmp_path):
    (folder / "policy_test.yaml").unlink()
    assert run(capsys, "test", folder)[0] == 2
    assert run(capsys, "test", tmp_path / "nope_test.yaml")[0] == 2
    assert run(capsys, "test")[0] == 2
    assert run(capsys, "test", folder, "--fail-under", "101")[0] == 2


def test_other_configurations_and_variables_of_a_test(folder, capsys):
    other = folder.parent / "tests"
    other.mkdir()
    (folder / "policy.yaml").write_text(POLICY.replace("tenant: jp", "tenant: '${WHO}'"))
    (other / "x_test.yaml").write_text(
        TESTS.replace(
            "tests:", "configuration: [../policies/fleet.yaml, ../policies/policy.yaml]\nenv: {WHO: jp}\ntests:"
        )
    )
    assert run(capsys, "test", other)[0] == 0
    assert run(capsys, "test", folder)[0] == 1, "without the variable"


# --- check --------------------------------------------------------------------------------------------------------


def test_what_a_code_means(capsys):
    status, out, _ = run(capsys, "check", "--explain", "pm101")
    assert (status, out.startswith("PM101  A rule is shadowed by an earlier one.\n\n")) == (0, True)
    status, _, err = run(capsys, "check", "--explain", "PM999")
    assert (status, "no lint 'PM999'" in err) == (2, True)
    assert run(capsys, "check")[0] == 2


# --- diff ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def changed(folder):
    path = folder.parent / "changed"
    path.mkdir()
    for file in folder.iterdir():
        (path / file.name).write_text(file.read_text())
    return path


def test_nothing_moves(folder, changed, capsys):
    status, out, _ = run(capsys, "diff", folder, changed)
    assert (status, "nothing moves" in out, "at rest" in out) == (0, True, False)
    (changed / "policy.yaml").write_text(POLICY.replace("name: quick", "notice: hello, name: quick"))
    status, out, _ = run(capsys, "diff", folder, changed)
    assert (status, "nothing moves" in out, "at rest" in out) == (0, True, True)


def test_an_example_is_written_as_people_write_it(folder, changed, capsys):
    match = '{labels: {batch: "true"}, time: {between: "20:00-21:00"}}'
    slow = f"rules: [{{name: night, match: {match}, objective: {{cost: {{weight: 1}}}}}}]"
    head = "apiVersion: pointsman/v1\nkind: Policy\n"
    (folder / "policy.yaml").write_text(f"{head}{slow}\n")
    (changed / "policy.yaml").write_text(f"{head}{slow.replace('name: night', 'name: late')}\n")
    out = " ".join(run(capsys, "diff", folder, changed)[1].replace("│", " ").split())
    assert "batch=true" in out
    assert "2026-01-05T20:00:00Z" in out


def test_less_trust_is_exit_status_1(folder, changed, capsys):
    (changed / "policy.yaml").write_text(POLICY.replace("quick, objective: {latency", "quick, objective: {quality"))
    status, out, _ = run(capsys, "diff", folder, changed)
    assert status == 1
    assert "LESS TRUSTED" in out
    assert "rule quick prefers otherwise" in out
    assert run(capsys, "diff", changed, folder)[0] == 0, "the way back gains trust"


def test_json_lists_every_request_that_moves(folder, changed, capsys):
    (changed / "policy.yaml").write_text(POLICY.replace('region: "jp-*"', "region: jp-west"))
    status, out, _ = run(capsys, "diff", folder, changed, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["moved"] == len(found["moves"]) > 0
    assert all(move["request"]["tenant"] == "jp" for move in found["moves"])


def test_over_given_requests(folder, changed, capsys, tmp_path):
    (changed / "policy.yaml").write_text(POLICY.replace('region: "jp-*"', "region: jp-west"))
    file = tmp_path / "requests.jsonl"
    file.write_text('{"model": "chat", "tenant": "jp"}\n{"model": "chat"}\n')
    status, out, _ = run(capsys, "diff", folder, changed, "--requests", file, "--json")
    assert (status, json.loads(out)["moved"], json.loads(out)["requests"]) == (0, 1, 2)
    file.write_text('{"model": "chat"}\n{"modl": "chat"}\n')
    status, _, err = run(capsys, "diff", folder, changed, "--requests", file)
    assert (status, "unknown field 'modl'" in err) == (2, True)
    assert run(capsys, "diff", folder, changed, "--requests", tmp_path / "nope")[0] == 2


def test_diff_of_what_does_not_compile(folder, changed, capsys):
    (changed / "policy.yaml").write_text("{")
    status, _, err = run(capsys, "diff", folder, changed)
    assert (status, "not valid YAML" in err) == (2, True)
