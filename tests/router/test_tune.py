"""`pointsman tune`, as somebody types it."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import THREE_TIERS, run_command
from test_simulate import folder, trace

RULE = """---
kind: Policy
sensitivity: {default: public}
rules:
  - {name: fixed, match: {usage: fixed}, objective: {cost: {weight: 1}}}
  - name: mixed
    objective: {latency: {weight: 0, target_ms: 100}, cost: {weight: 0, target_usd: 0.0001}, quality: {weight: 1}}
"""


@pytest.fixture
def live(tmp_path):
    return folder(tmp_path, "live", THREE_TIERS + RULE)


@pytest.fixture
def requests(tmp_path):
    lines = [f"{1767614400 + i},chat,100,200\n" for i in range(200)]
    return trace(tmp_path, "at,model,tokens_in,generated\n" + "".join(lines))


def tune(capsys, *arguments):
    status, out, err = run_command(capsys, "tune", *arguments)
    return status, json.loads(out) if "--json" in arguments and out else out, err


def test_weights_that_cost_less(live, requests, tmp_path, capsys):
    status, found, _ = tune(capsys, live, "--trace", requests, "--quality", "0.3", "--json")
    assert status == 0
    assert (found["rule"], found["now"]["weights"]) == ("mixed", {"latency": 0.0, "cost": 0.0, "quality": 1.0})
    assert dict(found["now"]["tiers"]) == {"cloud": 200}
    assert found["now"]["usd"] == pytest.approx(200 * 0.0005)
    assert found["best"]["usd"] < 0.05 * found["now"]["usd"]
    assert found["best"]["kept"] and found["best"]["quality"] >= 0.3
    assert found["best"]["usd"] == min(one["usd"] for one in found["tried"] if one["kept"])
    assert found["now"] == found["tried"][0]
    # What it says to write is what was tried.
    text = (live / "all.yaml").read_text()
    written = text[: text.index("    objective: {latency")] + f"    {found['objective']}\n"
    assert yaml.safe_load(found["objective"])["objective"]["latency"]["target_ms"] == 100
    other = tmp_path / "other"
    other.mkdir()
    (other / "all.yaml").write_text(written)
    status, out, _ = run_command(capsys, "simulate", live, other, "--trace", requests, "--json")
    new = json.loads(out)["runs"]["new"]["total"]
    assert (status, new["usd"]) == (0, pytest.approx(found["best"]["usd"]))


def test_what_there_is_now_is_kept_unless_told(live, requests, capsys):
    status, shown, _ = tune(capsys, live, "--trace", requests)
    assert status == 0
    assert "no other weights are better" in shown
    assert "kept: at least 100.00 % met and quality 0.9, at most 0 not answered; other rules as now" in shown
    assert "gives up" in shown, "but what would be cheaper is shown"
    status, shown, _ = tune(capsys, live, "--trace", requests, "--quality", "0.5", "--goal", "latency")
    assert status == 0
    assert "best" in shown and "objective: {latency: {weight: " in shown
    assert tune(capsys, live, "--trace", requests, "--quality", "1")[1].count("no weights keep that much") == 1


def test_the_same_again(live, requests, capsys):
    one, other = (tune(capsys, live, "--trace", requests, "--quality", "0", "--json") for _ in range(2))
    assert one == other
    assert len(tune(capsys, live, "--trace", requests, "--tries", "5", "--json")[1]["tried"]) <= 6
    few = tune(capsys, live, "--trace", requests, "--requests", "20", "--json")[1]
    assert few["now"]["requests"] == 20


def test_what_simulate_would_say_is_said(live, tmp_path, requests, capsys):
    edge = folder(tmp_path, "edge", THREE_TIERS + RULE.replace("quality: {weight: 1}", "quality: {weight: 0}").replace(
        "cost: {weight: 0,", "cost: {weight: 1,"))  # fmt: skip
    status, found, _ = tune(capsys, live, "--trace", requests, "--quality", "0.3", "--load", "2", "--json")
    told = "\n".join(found["told"])
    assert status == 0
    assert "not measured" in told and "comes 2 times" in told and "LESS TRUSTED" not in told
    status, found, _ = tune(capsys, edge, "--trace", requests, "--goal", "latency", "--json")
    assert found["best"]["less_trusted"] == 0
    split = RULE.replace("objective: {latency", "split: {weights: {edge: 1, cloud: 1}}\n    objective: {latency")
    status, _, err = tune(
        capsys, folder(tmp_path, "split", THREE_TIERS + split), "--trace", requests, "--rule", "mixed"
    )
    assert (status, "shares requests out by its split" in err) == (2, True)
    status, _, err = tune(capsys, live, "--trace", requests, "--load", "0.001")
    assert (status, err) == (2, "pointsman tune: no requests to simulate\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --log (the folder of a decision log) or --trace"),
        (("--rule", "mixd"), "no rule 'mixd'; did you mean 'mixed'?"),
        (("--rule", "fixed"), "the objective of rule fixed has no second term, so there is nothing to weigh"),
        (("--goal", "fame"), "invalid choice"),
        (("--met", "2"), "'2' is not a number from 0 to 1"),
    ],
)
def test_misuse(live, requests, capsys, arguments, said):
    more = () if not arguments else ("--trace", requests)
    status, _, err = tune(capsys, live, *more, *arguments)
    assert status == 2
    assert said in err


def test_no_rule_with_a_choice(tmp_path, requests, capsys):
    only = folder(tmp_path, "only", THREE_TIERS + RULE.split("  - name: mixed")[0])
    status, _, err = tune(capsys, only, "--trace", requests)
    assert status == 2
    assert "no objective has two terms" in err


def test_no_requests_for_the_rule(tmp_path, requests, capsys):
    never = folder(
        tmp_path, "never", THREE_TIERS + RULE.replace("name: mixed", "name: mixed\n    match: {usage: never}")
    )
    status, _, err = tune(capsys, never, "--trace", requests)
    assert (status, err) == (2, "pointsman tune: no requests that rule mixed decides\n")
