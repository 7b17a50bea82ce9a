"""The `pointsman` command, as a person and as a script would use it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from conftest import ROOT, THREE_TIERS
from conftest import run_command as run

POLICY = """
kind: Policy
constraints:
  - {name: commercial, match: {usage: commercial}, require: {licence.commercial_use: true}}
rules:
  - {name: cheap, match: {task: chat}, objective: {cost: {weight: 1}, quality: {weight: 1}}}
"""


@pytest.fixture
def folder(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text.replace("kind: ", "apiVersion: pointsman/v1\nkind: "))

    write("fleet.yaml", THREE_TIERS)
    write("policy.yaml", POLICY)
    return tmp_path


# --- check --------------------------------------------------------------------------------------------------------


def test_check_of_a_good_folder(folder, capsys):
    status, out, err = run(capsys, "check", folder)
    assert (status, err) == (0, "2 file(s) checked: 0 error(s), 1 warning(s)\n")
    assert "warning PM103: no request can reach 'cloud'" in out
    assert run(capsys, "check", "--strict", folder)[0] == 1


def test_check_as_json(folder, capsys):
    (folder / "policy.yaml").write_text("apiVersion: pointsman/v1\nkind: Policy\nrulez: []\n")
    status, out, _ = run(capsys, "check", folder, "--json")
    found = json.loads(out)
    assert status == 1
    assert (found["files"], found["errors"]) == (2, 1)
    problem = found["problems"][0]
    assert (problem["line"], problem["column"], problem["severity"]) == (3, 1, "error")
    assert "rules" in problem["hint"]


def test_check_of_files_that_are_not_there(tmp_path, capsys):
    status, out, _ = run(capsys, "check", tmp_path / "none.yaml")
    assert status == 1
    assert "No such file" in out
    status, _, err = run(capsys, "check", tmp_path)
    assert status == 2
    assert "no YAML files" in err


LEVELS = """
kind: Policy
sensitivity: {levels: [public, internal, confidential, restricted, phi]}
"""


def test_check_of_a_folder_knows_the_levels_of_its_policy(folder, capsys):
    fleet = folder / "fleet.yaml"
    fleet.write_text(fleet.read_text().replace("clearance: restricted", "clearance: phi"))
    policy = folder / "policy.yaml"
    policy.write_text(LEVELS.replace("kind: ", "apiVersion: pointsman/v1\nkind: "))
    status, out, _ = run(capsys, "check", folder)
    assert (status, "error" in out) == (0, False)
    policy.write_text(policy.read_text() + "rulez: []\n")
    status, out, _ = run(capsys, "check", folder)
    assert status == 1
    assert "unknown sensitivity level" not in out, "what is wrong is the policy, not the fleet"
    fleet.write_text(fleet.read_text().replace("clearance: phi", "clearance: phy"))
    policy.write_text(policy.read_text().replace("rulez: []\n", ""))
    assert "unknown sensitivity level 'phy'" in run(capsys, "check", folder)[1]


def test_check_of_a_folder_looks_at_the_tests_of_its_policies_too(folder, capsys):
    cases = (
        "apiVersion: pointsman/v1\nkind: PolicyTest\ntests:\n  - {name: a, request: {model: chat}, expect: {EXPECT}}\n"
    )
    (folder / "policy_test.yaml").write_text(cases.replace("EXPECT", "backend: nobody"))
    status, out, _ = run(capsys, "check", folder)
    assert (status, "there is no backend 'nobody'" in out) == (1, True)
    (folder / "policy_test.yaml").write_text(cases.replace("EXPECT", "backend: cloud"))
    assert run(capsys, "check", folder)[0] == 0, "whether a test passes is for `pointsman test` to say"


# --- explain ------------------------------------------------------------------------------------------------------


def explained(capsys, *arguments):
    status, out, err = run(capsys, "explain", *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_explain_shows_every_backend_with_its_score_term_by_term_or_its_rejection(folder, capsys):
    found = explained(capsys, folder, "--model", "chat", "--label", "confidential", "--usage", "commercial")
    assert found["backend"] == "edge"
    assert found["rule"] == "cheap"
    assert found["constraints"] == ["commercial"]
    candidate = found["candidates"][0]
    assert [term["scorer"] for term in candidate["terms"]] == ["cost", "quality"]
    assert candidate["score"] == pytest.approx(sum(t["weight"] * t["value"] for t in candidate["terms"]), abs=1e-5)
    rejected = {entry["backend"]: [by["filter"] for by in entry["by"]] for entry in found["rejected"]}
    assert rejected == {"onprem": ["constraint"], "cloud": ["clearance", "constraint"]}


def test_explain_for_a_person_says_the_same(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = run(capsys, "explain", folder, "--model", "chat", "--label", "confidential", "--usage", "commercial")
    for part in ("constraints  commercial", "rule         cheap", "goes to      edge (edge)", "0.50 x 0.300 quality",
                 "label confidential is above its clearance public", "licence.commercial_use is false"):  # fmt: skip
        assert part in out


def test_explain_a_refusal(folder, capsys):
    found = explained(capsys, folder, "--model", "chat", "--label", "restricted", "--down", "edge")
    assert found["backend"] is None
    assert found["refusal"]["code"] == "backends_unavailable"
    found = explained(capsys, folder, "--model", "chatt")
    assert found["refusal"]["code"] == "model_not_found"


def test_explain_reads_facts_from_a_file_and_flags_go_over_them(folder, capsys):
    file = folder.parent / "request.yaml"
    file.write_text("model: chat\nlabel: restricted\ntokens_in: 10\n")
    assert explained(capsys, folder, "--request", file)["label"] == "restricted"
    assert explained(capsys, folder, "--request", file, "--label", "confidential")["label"] == "confidential"


def test_explain_reads_a_request_as_a_client_would_send_it(folder, capsys, monkeypatch, tmp_path):
    policy = folder / "policy.yaml"
    detectors = "sensitivity: {detectors: [{use: keywords, words: [社外秘], label: restricted}]}"
    policy.write_text(f"{policy.read_text()}\n{detectors}\n")
    request = {
        "path": "/v1/chat/completions",
        "headers": {"x-usage": "audit"},
        "body": {"model": "chat", "messages": [{"role": "user", "content": "これは社外秘です"}]},
    }
    file = tmp_path.parent / "http.json"
    file.write_text(json.dumps(request))
    assert explained(capsys, folder, "--request", file)["label"] == "restricted"
    status, _, err = run(capsys, "explain", folder, "--request", file, "--label", "public")
    assert status == 1
    assert "--label cannot change" in err


def test_explain_takes_the_tenant_of_a_request_with_a_body(folder, capsys, tmp_path):
    policy = folder / "policy.yaml"
    policy.write_text(
        f"{policy.read_text()}\nsensitivity: {{floors: [{{match: {{tenant: clinic}}, label: restricted}}]}}\n"
    )
    file = tmp_path.parent / "tenant.yaml"
    body = "body: {model: chat, messages: [{role: user, content: Hi}]}"
    file.write_text(f"path: /v1/chat/completions\ntenant: clinic\n{body}\n")
    assert explained(capsys, folder, "--request", file)["label"] == "restricted"
    file.write_text(f"path: /v1/chat/completions\n{body}\n")
    assert explained(capsys, folder, "--request", file)["label"] == "internal"


EVERYTHING = """
kind: Policy
sensitivity: {default: public}
rules:
  - name: all
    transform: pseudonymise
    strategy: {hedge: {}}
    split: {weights: {cloud: 1}}
    shadow: {backend: onprem}
    notice: Placeholders only.
"""


def test_explain_tells_a_person_what_the_rule_asks_besides(folder, tmp_path, capsys):
    (folder / "policy.yaml").write_text(EVERYTHING.replace("kind: ", "apiVersion: pointsman/v1\nkind: "))
    file = tmp_path.parent / "facts.yaml"
    file.write_text("{model: chat, label: confidential, masked_label: public, entities: [EMAIL]}")
    status, out, err = run(capsys, "explain", folder, "--request", file)
    assert (status, err) == (0, "")
    for line in (
        "found        EMAIL_ADDRESS",
        "goes to      cloud (cloud)",
        "picked by    the rule's split",
        "transform    pseudonymise: what is sent has the label public",
        "strategy     hedge",
        "copied to    onprem",
        "notice       Placeholders only.",
    ):
        assert line in out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: chat\nlabl: public\n", "request.yaml:2:1: error: unknown field 'labl'"),
        ("[1]", "request.yaml:1:1"),
        ("path: /v1/nothing\nbody: {}\n", "no inference path '/v1/nothing'"),
        ("path: /v1/chat/completions\nbody: {}\n", "model"),
        ("path: /v1/chat/completions\n", "'body' is missing"),
        ("model: chat\nlabel: secret\n", "unknown sensitivity level 'secret'"),
        ("a: [", "request.yaml:"),
    ],
)
def test_explain_of_a_request_that_is_wrong(folder, tmp_path, capsys, text, says):
    file = tmp_path.parent / "request.yaml"
    file.write_text(text)
    status, _, err = run(capsys, "explain", folder, "--request", file)
    assert status == 1
    assert says in err


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["explain"], ["serve"], ["explain", "."], ["explain", ".", "--model", "x", "--tokens-in", "-1"],
        ["serve", ".", "--port", "0"], ["serve", ".", "--port", "x"], ["serve", ".", "--max-body", "3XB"],
        ["serve", ".", "--deadline", "nan"], ["serve", ".", "--engine", "k8s"], ["unknown"],
    ],
)  # fmt: skip
def test_misuse_is_status_2_with_a_readable_reason(capsys, arguments):
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert "pointsman" in err
    assert "_port" not in err


def test_an_unknown_backend_to_take_down(folder, capsys):
    status, _, err = run(capsys, "explain", folder, "--model", "chat", "--down", "clod")
    assert status == 2
    assert "did you mean 'cloud'" in err


# --- serve --------------------------------------------------------------------------------------------------------


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


BROKEN = """apiVersion: pointsman/v1
kind: Fleet
backends:
  - name: plant
    tier: edge
    region: jp
    protocol: onnx
    models: {a: {task: x, artifact: missing.onnx}}
  - name: cloud
    tier: cloud
    region: us
    protocol: openai
    url: http://127.0.0.1:9
    api_key: {env: POINTSMAN_TEST_NOT_SET}
    tls: {ca_file: missing.pem}
    models: {b: {task: chat}}
"""


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_serve_refuses_to_start_and_lists_every_reason(tmp_path, capsys, engine):
    (tmp_path / "fleet.yaml").write_text(BROKEN)
    (tmp_path / "policy.yaml").write_text("apiVersion: pointsman/v1\nkind: Policy\nrulez: []\n")
    status, out, err = run(capsys, "serve", tmp_path, "--engine", engine)
    assert (status, out) == (1, "")
    for reason in (
        "fleet.yaml:8:", "no file missing.onnx", "the environment variable POINTSMAN_TEST_NOT_SET is not set",
        "no file missing.pem", "policy.yaml:3:1: error: unknown field 'rulez'", "4 problem(s)",
    ):  # fmt: skip
        assert reason in err


def test_serve_refuses_an_artefact_that_is_not_a_model(tmp_path, capsys):
    (tmp_path / "fleet.yaml").write_text(BROKEN.split("  - name: cloud")[0])
    (tmp_path / "missing.onnx").write_bytes(b"this is no model")
    port, admin_port = free_ports(2)
    status, _, err = run(capsys, "serve", tmp_path, "--engine", "local", "--port", port, "--admin-port", admin_port)
    assert status == 1
    assert "plant" in err
    assert "missing.onnx" in err


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_serve_says_which_port_is_taken(folder, capsys, engine):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = run(capsys, "serve", folder, "--engine", engine, "--port", port)
    assert status == 1
    assert f"port {port} on 127.0.0.1 is in use" in err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_told_to_stop_and_then_ends_well(folder, signum):
    port, admin = free_ports(2)
    command = [sys.executable, "-m", "router", "serve", str(folder), "--engine", "local"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--admin-port", str(admin)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "pointsman is ready (local engine" in process.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5) as reply:
            assert json.load(reply)["ready"] is True
        process.send_signal(signum)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in err
    finally:
        process.kill()


def test_serve_listens_beyond_this_machine_only_with_tenants_or_when_told_to(folder, capsys):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        beyond = ["serve", folder, "--engine", "local", "--host", "0.0.0.0", "--port", taken.getsockname()[1]]
        status, _, err = run(capsys, *beyond)
        assert status == 1
        assert "no document of kind Tenants, and the router listens on 0.0.0.0" in err
        _, _, err = run(capsys, *beyond, "--allow-anonymous")
        assert "warning: listening on 0.0.0.0 without tenants" in err
        assert "is in use" in err
        (folder / "tenants.yaml").write_text(
            "apiVersion: pointsman/v1\nkind: Tenants\ntenants: [{name: acme, keys: [{sha256: " + "a" * 64 + "}]}]\n"
        )
        _, _, err = run(capsys, *beyond)
        assert "warning" not in err
        assert "is in use" in err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--admin-host", "0.0.0.0"), "the admin API on 0.0.0.0 needs a token"),
        (("--admin-token-env", "NOT_SET_HERE"), "the environment variable NOT_SET_HERE holds no admin token"),
        (("--admin-token-file", "/nowhere"), "cannot be read"),
        (("--admin-token-env", "SHORT_TOKEN"), "less than 16 characters"),
    ],
)
def test_the_admin_api_beyond_this_machine_needs_a_token(folder, capsys, monkeypatch, flags, says):
    monkeypatch.setenv("SHORT_TOKEN", "hunter2")
    status, _, err = run(capsys, "serve", folder, "--engine", "local", *flags)
    assert status == 2
    assert says in err
    assert "hunter2" not in err


def test_key_new_prints_a_key_once_and_what_makes_it_valid(capsys):
    status, out, err = run(capsys, "key", "new", "--tenant", "acme-dev")
    key, *lines = out.splitlines()
    assert status == 0
    assert len(key) > 40
    assert key not in err and key not in "".join(lines)
    assert lines[0] == "  - name: acme-dev"
    assert hashlib.sha256(key.encode()).hexdigest() in lines[2]
    _, out, _ = run(capsys, "key", "new", "--json")
    other = json.loads(out)
    assert other["key"] != key
    assert hashlib.sha256(other["key"].encode()).hexdigest() == other["sha256"]
    assert run(capsys, "key", "new", "--tenant", "a b")[0] == 2
