"""`pointsman simulate`, as somebody types it: with the log of a router that has served, and with files of requests."""

from __future__ import annotations

import json
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from conftest import SHARED, THREE_TIERS, compile_text, run_command
from conftest import request as ask
from msgspec.structs import replace
from test_execution import at_rest as rests
from test_execution import wait_until

from policies.accounts import charge
from policies.decide import decide
from policies.diff import at_rest
from policies.sensitivity.labels import Label
from router.decisionlog.chain import GENESIS, link, unlink
from router.decisionlog.record import Decided, Outcome, as_record
from router.decisionlog.writer import LogSettings
from router.simulation.ordered import LOOK_AHEAD_S, ordered

FLEET = """
kind: Fleet
backends:
  - {name: edge, tier: edge, region: jp, clearance: restricted, protocol: fake, latency: {prior_ms: 5},
     models: {chat: {task: chat, quality: 0.3}}, script: [{latency_ms: 3}, {latency_ms: 9}],
     limits: {max_in_flight: 2, max_queued: 2}, price: {reserved_per_hour: 0.36, capacity_rps: 1}}
  - {name: cloud, tier: cloud, region: us, protocol: fake, clearance: internal, latency: {prior_ms: 20},
     models: {chat: {task: chat, quality: 0.9}}, script: [{latency_ms: 20}],
     price: {input_per_mtok: 1, output_per_mtok: 2}}
"""
LIVE = """---
kind: Policy
sensitivity: {default: public, detectors: [{use: keywords, words: [社外秘], label: confidential}]}
rules: [{name: quick, objective: {latency: {weight: 1, target_ms: 10}}, slo: {latency_ms: 1000}}]
"""
BEST = LIVE.replace("quick", "best").replace("latency: {weight: 1, target_ms: 10}", "quality: {weight: 1}")
SECRET = "社外秘の計画 sk-proj-1234567890abcdef"


def folder(tmp_path, name, text):
    path = tmp_path / name
    path.mkdir(exist_ok=True)
    (path / "all.yaml").write_text(text.replace("kind: ", "apiVersion: pointsman/v1\nkind: "))
    return path


@pytest.fixture
def served(start_router, tmp_path):
    """The folder of a router's log, and that of the configuration which decided it. The traffic has bursts."""
    router = start_router(FLEET + LIVE, decision_log=LogSettings(tmp_path / "log"))
    rng = random.Random(1)
    texts = [SECRET if rng.random() < 0.3 else "こんにちは" * rng.randint(1, 50) for _ in range(120)]
    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(lambda i: router.chat(texts[i], stream=i % 4 == 0).status, range(120)))
    assert statuses.count(200) > 100
    assert router.chat(model="none").status == 404
    wait_until(lambda: rests(router))
    router.service.log.flush()
    return tmp_path / "log", folder(tmp_path, "live", FLEET + LIVE), statuses


def simulate(capsys, *arguments):
    status, out, err = run_command(capsys, "simulate", *arguments)
    return status, json.loads(out) if "--json" in arguments and out else out, err


# --- with a log ---------------------------------------------------------------------------------------------------


def test_the_same_policy_again_sends_requests_where_they_went(served, capsys):
    log, live, statuses = served
    status, found, _ = simulate(capsys, live, live, "--log", log, "--json")
    assert status == 0
    was, old, new = (found["runs"][name] for name in ("as_it_was", "old", "new"))
    assert found["requests"] == was["total"]["requests"] == 120
    assert was["total"]["answered"] == statuses.count(200)
    assert (found["moved"], found["moves"], found["losing_trust"]) == (0, [], 0)
    assert old == new
    # Who gets a request depends on how full the edge is, to the millisecond, so not every one comes out the same.
    assert found["as_it_was"] > 0.5
    assert old["total"]["answered"] >= 0.8 * was["total"]["answered"]
    assert old["total"]["usd"] == pytest.approx(was["total"]["usd"], rel=0.6)
    assert old["total"]["slo_attained"] == pytest.approx(was["total"]["slo_attained"], abs=0.2)
    assert set(old["labels"]["confidential"]) <= {"edge", "-"}, "the words that were found still count"
    assert "left out: 1 requests that were over before they were decided, or for no model" in found["told"]


def test_another_policy_moves_what_it_may_and_says_so(served, tmp_path, capsys):
    log, live, _ = served
    best = folder(tmp_path, "best", FLEET + BEST)
    status, found, _ = simulate(capsys, live, best, "--log", log, "--json")
    assert status == 1, "requests go to a cloud that did not before"
    (move,) = [one for one in found["moves"] if (one["from"], one["to"]) == ("edge", "cloud")]
    assert move["requests"] == move["losing_trust"] == sum(move["labels"].values()) > 0
    assert set(move["labels"]) == {"public"}
    assert (move["rule"], move["usd"] < 0) == ("best", True)
    assert found["losing_trust"] == sum(one["losing_trust"] for one in found["moves"])
    new = found["runs"]["new"]
    assert set(new["labels"]["public"]) == {"cloud"}
    assert set(new["labels"]["confidential"]) <= {"edge", "-"}
    status, shown, _ = simulate(capsys, live, best, "--log", log)
    assert status == 1
    assert "LESS TRUSTED" in shown and "rule quick is now best" in shown
    assert f"{found['moved']} of 120 requests move; {found['losing_trust']} to where they are trusted less" in shown
    assert "as it was" in shown and "old, simulated" in shown and "new, simulated" in shown
    back = simulate(capsys, best, live, "--log", log, "--was", live, "--json")
    assert back[0] == 0, "the other way they come home"
    assert back[1]["requests"] == 120


def test_no_text_of_a_request_can_come_out(served, tmp_path, capsys):
    log, live, _ = served
    best = folder(tmp_path, "best", FLEET + BEST)
    for more in ((), ("--json",)):
        _, out, err = run_command(capsys, "simulate", live, best, "--log", log, *more)
        assert "社外秘" not in out + err and "sk-proj" not in out + err and "こんにちは" not in out + err


def test_records_of_another_configuration_are_left_out_and_named(served, tmp_path, capsys):
    log, live, _ = served
    digest = compile_text(FLEET + LIVE).digest
    best = folder(tmp_path, "best", FLEET + BEST)
    status, _, err = simulate(capsys, best, "--log", log)
    assert status == 2
    assert "no requests to simulate" in err
    assert f"121 requests that policy {digest} decided" in err and "--was" in err
    status, found, _ = simulate(capsys, best, "--log", log, "--was", live, "--json")
    assert (status, found["requests"], found["new"]) == (0, 120, None)
    assert "new" not in found["runs"]


def test_a_log_that_was_edited_is_told_of(served, capsys):
    log, live, _ = served
    (file,) = log.glob("*.jsonl")
    file.write_text(file.read_text().replace('"tokens_in":', '"tokens_in":1', 1))
    status, out, _ = simulate(capsys, live, live, "--log", log)
    assert status == 1
    assert "NOT AS IT WAS WRITTEN" in out


def test_very_much_more_load(tmp_path, capsys):
    live = folder(tmp_path, "live", THREE_TIERS)
    file = trace(tmp_path, "at,model\n" + "1767614400,chat\n" * 40)
    assert simulate(capsys, live, "--trace", file, "--load", "1000", "--json")[1]["requests"] == 40_000


def test_more_load_than_there_was(served, capsys):
    log, live, _ = served
    status, found, _ = simulate(capsys, live, "--log", log, "--load", "3", "--json")
    assert (status, found["requests"]) == (0, 360)
    assert found["as_it_was"] is None
    assert any("3 times on average" in one for one in found["told"])
    half = simulate(capsys, live, "--log", log, "--load", "0.5", "--json")[1]["requests"]
    assert 40 < half < 80
    assert simulate(capsys, live, "--log", log, "--load", "0.5", "--json")[1]["requests"] == half
    assert simulate(capsys, live, "--log", log, "--load", "0.5", "--seed", "2", "--json")[1]["requests"] != half


def test_a_fleet_with_one_backend_more(served, tmp_path, capsys):
    log, live, _ = served
    more = FLEET + (
        "  - {name: second-edge, tier: edge, region: jp, clearance: restricted, protocol: fake,\n"
        "     latency: {prior_ms: 1}, models: {chat: {task: chat}}}\n"
    )
    status, found, _ = simulate(capsys, live, folder(tmp_path, "more", more + LIVE), "--log", log, "--json")
    assert status == 0
    backends = {row["name"]: row["answered"] for row in found["runs"]["new"]["by"]["backend"]}
    assert backends["second-edge"] == 120
    assert "not measured: chat at second-edge, so 120 answers take as long as the fleet expects" in found["told"]


def test_since_and_until(served, capsys):
    log, live, _ = served
    assert simulate(capsys, live, "--log", log, "--since", "1h", "--json")[1]["requests"] == 120
    status, _, err = simulate(capsys, live, "--log", log, "--since", "1m", "--until", "2m")
    assert (status, err) == (2, "pointsman simulate: --until is not after --since\n")


def written(folder, policy, requests, writer="a"):
    """A log that holds these requests: (at, backends that fail it, the one that answers, ms, facts). It is what a
    router would write that met an idle fleet."""
    folder.mkdir(exist_ok=True)
    prev, found = GENESIS, []
    for seq, (at, failing, backend, ms, facts) in enumerate(requests):
        request, snapshot = replace(ask(**facts), id=f"{writer}-{seq}"), at_rest(policy, at)
        decision, label = decide(request, snapshot, policy), Label(0, (("floor", 0),), {})
        decided = Decided(f"d-{writer}-{seq}", request, label, snapshot, decision, policy)
        target = next(one for one in policy.targets if one.backend == backend)
        steps = [{"backend": name, "kind": "first", "outcome": "failed", "ms": 7.0} for name in failing]
        steps.append({"backend": backend, "kind": "fallback", "outcome": "ok", "ms": ms})
        waited = 7.0 * len(failing)
        outcome = Outcome(
            "ok", len(steps), ms + waited, backend, ms / 4 + waited if request.stream else None,
            steps=steps if failing else None, charges=[charge(target, "answer", 100, 50, False, ms / 1000)],
            slo_met=True,
        )  # fmt: skip
        line, prev = link(prev, seq, msgspec.json.encode(as_record(decided, outcome)))
        found.append(line)
    (folder / f"decisions-{writer}-{0:012d}.jsonl").write_bytes(b"".join(found))
    return folder


def test_a_log_comes_out_again_to_the_request(tmp_path, capsys):
    """Two writers, failures and streams, and nobody in anybody's way."""
    good = "---\nkind: Policy\nsensitivity: {default: public}\nrules: [{name: r, objective: {quality: {weight: 1}}}]\n"
    quick = good.replace("quality: {weight: 1}", "latency: {weight: 1}")
    live, policy, now = (
        folder(tmp_path, "live", THREE_TIERS + good),
        compile_text(THREE_TIERS + good),
        time.time() - 3600,
    )
    for i, writer in enumerate(("a", "b")):
        fails = [n % 3 == 0 for n in range(50)]
        requests = [
            (now + 20 * n + i, ("cloud",) if failed else (), "onprem" if failed else "cloud", 100.0 + n,
             {"stream": n % 2 == 0})
            for n, failed in enumerate(fails)
        ]  # fmt: skip
        written(tmp_path / "log", policy, requests, writer)
    status, found, _ = simulate(capsys, live, live, "--log", tmp_path / "log", "--json")
    was, old = found["runs"]["as_it_was"], found["runs"]["old"]
    assert (status, found["requests"], found["as_it_was"], found["moved"]) == (0, 100, 1.0, 0)
    for name in ("requests", "answered", "slo_attained", "tokens_in", "tokens_out"):
        assert was["total"][name] == old["total"][name]
    for name in ("usd", "p50_ms", "p95_ms"):
        assert was["total"][name] == pytest.approx(old["total"][name], rel=1e-6)

    def answered(text):
        tried = folder(tmp_path, "tried", text)
        new = simulate(capsys, live, tried, "--log", tmp_path / "log", "--json")[1]["runs"]["new"]
        return {row["name"]: row["answered"] for row in new["by"]["backend"]}

    assert answered(THREE_TIERS + quick) == {"edge": 100}
    edge = THREE_TIERS[THREE_TIERS.index("  - name: edge") : THREE_TIERS.index("  - name: onprem")]
    assert answered(THREE_TIERS.replace(edge, "") + quick) == {"onprem": 100}


def relinked(log, change):
    """One record that was answered is changed, and the chain is right all the same."""
    (file,) = log.glob("*.jsonl")
    prev, written, changed = GENESIS, [], False
    for line in file.read_bytes().splitlines(keepends=True):
        record, _ = unlink(line)
        if not changed and record.get("outcome", {}).get("outcome") == "ok":
            change(record)
            changed = True
        seq = record.pop("seq")
        del record["prev"], record["hash"]
        line, prev = link(prev, seq, json.dumps(record).encode())
        written.append(line)
    assert changed
    file.write_bytes(b"".join(written))


def put(path, value):
    def change(record):
        *way, last = path.split(".")
        for step in way:
            record = record[int(step)] if step.isdigit() else record.setdefault(step, {})
        record[int(last) if last.isdigit() else last] = value

    return change


STRANGE = (
    ("policy", "\x1b[31m"), ("at", "noon"), ("request.rank", 99), ("request.masked_rank", 99), ("request.rank", -1),
    ("raised_by", [["floor", "moon"]]), ("state.in_flight", [1]), ("state.latency_ms", [1.0]),
    ("state.unavailable", ["x"]), ("state.ttft_ms", [1.0]), ("state.growth", [[1, 1]]), ("state.spent", 5),
    ("outcome.outcome", 5), ("outcome.outcome", "\x1b[31m"), ("outcome.backend", 5), ("outcome.backend", "moon"),
    ("outcome.ms", -1), ("outcome.ms", "x"), ("outcome.charges.0.tier", "moon"), ("outcome.charges.0.usd", 1e308),
    ("outcome.charges.0.usd", -1.0), ("outcome.charges.0.seconds", 1e308), ("outcome.baseline_usd", "x"),
    ("outcome.charges.0.tokens_out", 10**400), ("outcome.charges.0.tokens_out", -1000000),
    ("outcome.charges.0.tokens_in", "x"), ("outcome.charges.0.model", "moon"),
    ("outcome.steps", [{"backend": "edge", "kind": "first", "outcome": "failed", "ms": "x"}]),
)  # fmt: skip


def test_a_record_that_no_router_has_written_is_left_out_and_told_of(served, tmp_path, capsys):
    log, live, _ = served
    for i, (path, value) in enumerate(STRANGE):
        edited = tmp_path / f"edited-{i}"
        shutil.copytree(log, edited)
        relinked(edited, put(path, value))
        status, shown, _ = simulate(capsys, live, live, "--log", edited)
        assert (status, "NOT AS IT WAS WRITTEN" in shown, "\x1b" in shown) == (1, True, False), (path, value)
        status, found, _ = simulate(capsys, live, live, "--log", edited, "--json")
        assert status == 1
        counted = found["requests"], found["runs"]["as_it_was"]["total"]["requests"]
        assert counted == (119, 119), f"and not half of it: {path} {value}"
        assert "NaN" not in json.dumps(found) and "Infinity" not in json.dumps(found)


def test_copies_count_where_their_requests_do(start_router, tmp_path, capsys):
    text = FLEET + LIVE.replace("slo:", "shadow: {backend: cloud, share: 1}, slo:")
    router = start_router(text, decision_log=LogSettings(tmp_path / "log"))
    for _ in range(20):
        assert router.chat().status == 200
    wait_until(lambda: rests(router))
    router.service.log.flush()
    live, other = folder(tmp_path, "live", text), folder(tmp_path, "other", FLEET + LIVE)
    status, found, _ = simulate(capsys, live, other, "--log", tmp_path / "log", "--json")
    assert status == 0
    was, old, new = (found["runs"][name] for name in ("as_it_was", "old", "new"))
    assert was["purposes"]["copy"] > 0
    assert old["purposes"] == pytest.approx(was["purposes"], rel=0.01)
    assert new["purposes"].get("copy", 0) == 0
    status, _, err = simulate(capsys, other, "--log", tmp_path / "log")
    assert (status, "left out: 20 requests that policy" in err) == (2, True)
    # A copy that took much longer than the last request, and one of a request that is left out.
    (file,) = (tmp_path / "log").glob("*.jsonl")
    lines = [unlink(line)[0] for line in file.read_bytes().splitlines(keepends=True)]
    prev, written = GENESIS, []
    for record in lines:
        if record.get("event") == "copy":
            record["at"] += 200
        seq = record.pop("seq")
        del record["prev"], record["hash"]
        line, prev = link(prev, seq, json.dumps(record).encode())
        written.append(line)
    file.write_bytes(b"".join(written))
    assert simulate(capsys, live, "--log", tmp_path / "log", "--json")[0] == 0
    assert run_command(capsys, "report", tmp_path / "log", "--fleet", live, "--json")[0] == 0


def test_why_there_is_nothing_to_simulate_is_said(served, capsys):
    log, live, _ = served
    (file,) = log.glob("*.jsonl")
    old = file.read_text()
    year = ("--since", "2025-01-01T00:00:00Z", "--until", "2026-01-01T00:00:00Z")
    status, _, err = simulate(capsys, live, "--log", log, *year)
    assert status == 2
    assert "left out: 121 requests before --since (default: 1d) or after --until" in err
    file.write_text(old.replace('"tokens_in":', '"tokens_in":1'))
    status, _, err = simulate(capsys, live, "--log", log, *year)
    assert (status, "NOT AS IT WAS WRITTEN" in err) == (1, True)


# --- in which order -----------------------------------------------------------------------------------------------


def test_requests_come_in_the_order_of_their_arrival_whoever_wrote_them():
    from policies.simulation.paces import Paces
    from tests.policies.test_simulation import arrival, policy

    live = policy()
    rng = random.Random(3)
    at = sorted(rng.uniform(1e9, 1e9 + 5000) for _ in range(600))
    ended = sorted(at, key=lambda moment: moment + rng.uniform(0, LOOK_AHEAD_S * 0.9))
    chains = [[arrival(live, moment, id=str(moment)) for moment in ended[i::3]] for i in range(3)]
    found = [one.at for one in ordered(chains, Paces())]
    assert found == at
    late = [arrival(live, 1e9 + 5 * LOOK_AHEAD_S), arrival(live, 1e9 + 7 * LOOK_AHEAD_S), arrival(live, 1e9)]
    moments = [one.at for one in ordered([late], Paces())]
    assert moments == sorted(moments), "one that took too long comes late, and not before others"


# --- with a file --------------------------------------------------------------------------------------------------


def trace(tmp_path, text, name="trace.csv"):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "at,model,tokens_in,generated,label,stream\n2026-01-05T12:00:00Z,chat,100,300,,false\n"
                  "1767614401,chat,100,300,confidential,true\n"),
        ("t.jsonl", '{"at": "2026-01-05T12:00:00Z", "model": "chat", "tokens_in": 100, "generated": 300}\n\n{"at": '
                    '1767614401, "model": "chat", "tokens_in": 100, "generated": 300, "label": "confidential"}\n'),
    ],
)  # fmt: skip
def test_a_file_of_requests(tmp_path, capsys, name, text):
    live = folder(tmp_path, "live", THREE_TIERS + "---\nkind: Policy\nsensitivity: {default: public}\n"
                  "rules: [{name: r, objective: {quality: {weight: 1}}}]\n")  # fmt: skip
    status, found, _ = simulate(capsys, live, "--trace", trace(tmp_path, text, name), "--json")
    assert status == 0
    run = found["runs"]["simulated"]
    assert (run["since"], run["total"]["requests"], run["total"]["answered"]) == (1767614400.0, 2, 2)
    assert run["labels"] == {"public": {"cloud": 1}, "confidential": {"onprem": 1}}
    assert (run["total"]["tokens_in"], run["total"]["tokens_out"]) == (200, 600)
    assert run["total"]["usd"] == pytest.approx(0.0007), "by the tokens that the answer had"


@pytest.mark.skipif(not (SHARED / "data/traces").exists(), reason="no shared data here")
def test_a_public_trace(tmp_path, capsys):
    live = folder(tmp_path, "live", THREE_TIERS)
    best = folder(tmp_path, "best", THREE_TIERS + BEST)
    (file,) = (SHARED / "data/traces").glob("azure_llm_2023_code.csv")
    rows = file.read_text().splitlines()[1:]
    status, found, _ = simulate(capsys, live, best, "--trace", file, "--set", "model=chat", "--json")
    assert status == 1
    assert found["requests"] == len(rows)
    cells = [row.split(",") for row in rows]
    total = found["runs"]["new"]["total"]
    assert total["tokens_in"] == sum(int(one[1]) for one in cells)
    assert total["tokens_out"] == sum(int(one[2]) for one in cells)
    assert total["usd"] == pytest.approx((total["tokens_in"] + 2 * total["tokens_out"]) / 1e6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at,model\n", "t.csv: error: holds no requests"),
        ("model\nchat\n", "t.csv:2:1: error: 'at' is missing"),
        ("at,model\nyesterday,chat\n", "t.csv:2:1: error: 'at' must be a time, not 'yesterday'"),
        ("at,model\nnan,chat\n", "t.csv:2:1: error: 'at' must be a time, not 'nan'"),
        ("at,model,tokens_in\n1,chat,many\n", "t.csv:2:1: error: 'tokens_in' must be a whole number, not 'many'"),
        ("at,model,generated\n1,chat,-1\n", "t.csv:2:1: error: 'generated' must be a number of tokens, not -1"),
        ("at,model,stream\n1,chat,maybe\n", "t.csv:2:1: error: 'stream' must be true or false, not 'maybe'"),
        ("at,tokens_in\n1,5\n", "t.csv:2:1: error: 'model' is missing"),
        ("at,modle\n1,chat\n", "unknown field 'modle'\n    did you mean 'model'?"),
        ("at,model,label\n1,chat,secret\n", "t.csv:2:1: error: unknown sensitivity level 'secret'"),
        ('at,model\n1,"chat\n', "not CSV"),
        ("at,model\n9999-12-31T23:59:59-12:00,chat\n", "'at' must be a time"),
        ("at,model\n1900-01-01T00:00:00Z,chat\n", "'at' must be a time"),
        ("at,model,generated\n1,chat," + "9" * 400 + "\n", "'generated' must be a number of tokens, not 99999"),
        ("at,model,tokens_in\n1,chat," + "9" * 400 + "\n", "more than 1,000,000,000,000 tokens or bytes"),
        ("at,model\n1,chat,5\n", "t.csv:2:1: error: 3 cells, and 2 columns"),
        ("at,model,model\n1,chat,x\n", "t.csv:1:1: error: 'model' is named twice"),
        ("at,timestamp,model\n1,2,chat\n", "'at' is named twice"),
        ("at,model,\x1b[31m\n1,chat,x\n", "'\\x1b[31m' cannot be shown"),
        ("at,model,label\n1,chat,\x1b[31m\n", "'\\x1b[31m' cannot be shown"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path, capsys, text, said):
    live = folder(tmp_path, "live", THREE_TIERS)
    status, _, err = simulate(capsys, live, "--trace", trace(tmp_path, text, "t.csv"))
    assert status == 2
    assert said in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "t.jsonl:1:1: error: not JSON"),
        ("[1]", "must be one JSON object a line"),
        ('{"at": [1]}', "'at' must be a time, not [1]"),
        ('{"at": 1, "model": 5}', "t.jsonl:1:1: error: 'model' must be text, not 5"),
        ('{"at": true, "model": "chat"}', "'at' must be a time, not True"),
        ('{"at": 1, "model": "chat", "generated": true}', "'generated' must be a number of tokens, not True"),
        ('{"at": 1' + "0" * 400 + ', "model": "chat"}', "'at' must be a time, not 1000"),
        ("[" * 100_000, "t.jsonl:1:1: error: not JSON"),
    ],
)
def test_what_is_wrong_with_lines_of_json(tmp_path, capsys, text, said):
    live = folder(tmp_path, "live", THREE_TIERS)
    status, _, err = simulate(capsys, live, "--trace", trace(tmp_path, text, "t.jsonl"))
    assert (status, said in err) == (2, True), err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --log (the folder of a decision log) or --trace"),
        (("--log", "nowhere"), "no such file or folder: nowhere"),
        (("--log", "{live}"), "no decision log there"),
        (("--log", "x", "--trace", "y"), "give --log"),
        (("--trace", "y", "--since", "1d"), "--was, --since and --until are for --log"),
        (("--log", "x", "--set", "model=chat"), "--set is for --trace"),
        (("--trace", "nowhere.csv"), "nowhere.csv: error: cannot be read: No such file or directory"),
        (("--log", "x", "--load", "0"), "'0' is not a number from 0.001 to 1000"),
    ],
)
def test_misuse(tmp_path, capsys, arguments, said):
    live = folder(tmp_path, "live", THREE_TIERS)
    status, _, err = simulate(capsys, live, *(one.format(live=live) for one in arguments))
    assert (status, said in err) == (2, True), err


def test_a_configuration_with_errors(tmp_path, capsys):
    live = folder(tmp_path, "live", THREE_TIERS)
    bad = folder(tmp_path, "bad", THREE_TIERS.replace("tier: edge", "tier: moon"))
    for pair in ((live, bad), (bad, live)):
        status, _, err = simulate(capsys, *pair, "--log", Path(__file__).parent)
        assert status == 2
        assert "all.yaml:5:" in err or "no decision log" in err
