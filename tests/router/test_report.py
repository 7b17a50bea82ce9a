"""`pointsman report`: its sums are those of the metrics, its page opens clean, its verdicts are arithmetic."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from conftest import ROOT, THREE_TIERS, compile_text, run_command
from test_execution import at_rest, wait_until

from policies.accounts import charge
from router.decisionlog.chain import GENESIS, link
from router.decisionlog.files import lines
from router.decisionlog.writer import LogSettings
from router.report.show import grams, share, usd
from router.report.summary import summed_up
from router.report.tally import Tally

POLICY = """
---
kind: Policy
sensitivity: {default: public}
rules:
  - {name: cheap, match: {usage: cheap}, objective: {cost: {weight: 1}}, slo: {latency_ms: 0.001}}
  - {name: good, objective: {quality: {weight: 1}}}
"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOUR = 3600.0


@pytest.fixture
def logged(start_router, tmp_path):
    """A router that has served, and a folder with its log, fleet and policy."""
    router = start_router(THREE_TIERS + POLICY, decision_log=LogSettings(tmp_path / "log"))
    for i in range(40):
        headers = {"x-usage": "cheap"} if i % 2 else {}
        headers |= {"x-data-sensitivity": ("public", "confidential", "restricted")[i % 3]}
        assert router.chat("社外秘ではない文", headers, stream=i % 5 == 0).status == 200
    assert router.chat(model="none").status == 404
    wait_until(lambda: at_rest(router))
    router.service.log.flush()
    (tmp_path / "fleet.yaml").write_text((THREE_TIERS + POLICY).replace("kind:", "apiVersion: pointsman/v1\nkind:"))
    return router, tmp_path


def report(capsys, *arguments):
    status, out, err = run_command(capsys, "report", *arguments)
    return status, json.loads(out) if "--json" in arguments else out, err


def test_the_sums_are_those_of_the_metrics(logged, capsys):
    router, folder = logged
    status, found, _ = report(capsys, folder / "log", "--json")
    assert status == 0
    total = found["total"]
    assert (total["requests"], total["answered"]) == (41, 40)
    assert total["usd"] == pytest.approx(router.count("pointsman_cost_usd_total"))
    assert total["marginal_usd"] == pytest.approx(router.count("pointsman_marginal_cost_usd_total"))
    assert total["baseline_usd"] == pytest.approx(router.count("pointsman_baseline_cost_usd_total"))
    assert total["tokens_in"] == router.count("pointsman_tokens_total", direction="in")
    for name in ("tier", "backend", "model", "rule"):
        rows = {row["name"]: row for row in found["by"][name]}
        assert sum(row["requests"] for row in rows.values()) == 41
        assert sum(row["usd"] for row in rows.values()) == pytest.approx(total["usd"])
        label = {"rule": "rule"}.get(name, name)
        for key, row in rows.items():
            if key != "-" and key != "?":
                counted = router.count("pointsman_requests_total", **{label: key}, outcome="ok")
                assert row["answered"] == counted, (name, key)
    rules = {row["name"]: row["slo_attained"] for row in found["by"]["rule"]}
    assert rules["cheap"] == 0.0, "nobody answers within a microsecond"
    assert found["labels"]["restricted"] == {"edge": 13}
    assert sum(sum(counts) for counts in found["series"]["tiers"].values()) == 40
    assert sum(found["series"]["baseline_usd"]) == pytest.approx(total["baseline_usd"])


def test_as_text(logged, capsys):
    _, folder = logged
    status, out, _ = report(capsys, folder / "log", "--fleet", folder / "fleet.yaml")
    assert status == 0
    for part in ("41 requests", "ok 40, not_found 1", "all cloud", "by the hour", "Own hardware", "What went where"):
        assert part in out
    assert out.index("public ") < out.index("confidential ") < out.index("restricted "), "in the policy's order"


def test_a_stretch_of_time(logged, capsys):
    _, folder = logged
    assert (
        report(capsys, folder / "log", "--since", "2020-01-01T00:00:00+00:00", "--json")[1]["total"]["requests"] == 41
    )
    assert report(capsys, folder / "log", "--until", "1h", "--json")[1]["total"]["requests"] == 0
    status, _, err = report(capsys, folder / "log", "--since", "1h", "--until", "2h")
    assert (status, err) == (2, "pointsman report: --until is not after --since\n")
    status, _, err = report(capsys, folder / "log", "--since", "yesterday")
    assert status == 2
    assert "'yesterday' is not a time such as 2026-04-01T09:00:00+09:00, nor so long ago such as 7d" in err


def test_a_log_that_was_edited_is_told_of(logged, capsys):
    _, folder = logged
    (file,) = (folder / "log").glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"rule":"good"', b'"rule":"fine"', 1))
    status, out, _ = report(capsys, folder / "log")
    assert status == 1
    assert "NOT AS IT WAS WRITTEN" in out


def test_what_is_not_there(capsys, tmp_path):
    status, _, err = report(capsys, tmp_path / "none")
    assert status == 2
    assert "no such file or folder" in err
    status, _, err = report(capsys, tmp_path)
    assert (status, "no decision log there" in err) == (2, True)


def test_an_empty_stretch_can_be_shown_too(logged, capsys):
    _, folder = logged
    page = folder / "page.html"
    assert report(capsys, folder / "log", "--until", "1h", "--html", page)[0] == 0
    assert "<svg" in page.read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, to open the page")
def test_the_page_opens_with_no_console_error_and_fetches_nothing(logged, capsys):
    _, folder = logged
    page = folder / "page.html"
    assert report(capsys, folder / "log", "--fleet", folder / "fleet.yaml", "--html", page)[0] == 0
    text = page.read_text()
    assert not any(word in text for word in ("<script", "src=", 'href="http', "url(http")), "one page, by itself"
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--window-size=1180,1800",
        f"--screenshot={folder / 'page.png'}", page.as_uri(),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert [line for line in ended.stderr.splitlines() if "CONSOLE" in line] == []
    assert (folder / "page.png").stat().st_size > 30_000, "it shows something"


def test_the_page_needs_what_the_extra_installs(logged):
    _, folder = logged
    code = "import sys; sys.modules['matplotlib'] = None; from router.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "report", str(folder / "log"), "--html", str(folder / "page.html")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 2
    expected = "--html needs matplotlib, which is not installed: pip install 'pointsman[report]'"
    assert ended.stderr == f"pointsman report: {expected}\n"


# --- arithmetic -------------------------------------------------------------------------------------------------------


def records(policy, at, number, backend, *, seconds=0.1, tokens=(0, 0), baseline=None, **more):
    """Answers of one backend, a second apart, as their records tell."""
    target = next(one for one in policy.targets if one.backend == backend)
    for i in range(number):
        made = charge(target, "answer", *tokens, False, seconds)
        outcome = {"outcome": "ok", "ms": seconds * 1000, "backend": backend, "slo_met": True} | more
        outcome |= {"charges": [msgspec.to_builtins(made)]} | ({} if baseline is None else {"baseline_usd": baseline})
        yield {
            "at": at + i, "id": f"{i}", "request": {"model": "chat"}, "outcome": outcome,
            "decision": {"rule": "r", "sent_label": "public"},
        }  # fmt: skip


def summary(policy, records, since, until):
    tally = Tally(since, until)
    for record in records:
        tally.add(record)
    return summed_up(tally, policy.fleet)


def test_own_hardware_pays_from_a_load_on():
    """$0.36 an hour is $0.0001 a second. Where the cloud asks $0.001 a request, that is one request in ten seconds."""
    policy = compile_text(THREE_TIERS)
    for number, pays in ((359, False), (361, True)):
        found = summary(policy, records(policy, 0, number, "edge", baseline=0.001), 0, HOUR)
        (own,) = found.own
        assert (own.backend, own.usd_per_hour, own.requests) == ("edge", 0.36, number)
        assert own.break_even_rps == pytest.approx(0.1)
        assert own.pays is pays
        assert own.usd_per_request == pytest.approx(0.36 / number)
        assert own.utilisation == pytest.approx(number / 3600)
        assert found.amortised_usd == pytest.approx(0.36)
        assert found.saved_usd == pytest.approx(number * 0.001 - 0.36)


def test_hardware_that_could_never_pay_and_that_cannot_be_compared():
    policy = compile_text(THREE_TIERS)
    (own,) = summary(policy, records(policy, 0, 10, "edge", baseline=0.00001), 0, HOUR).own
    assert (own.break_even_rps, own.pays) == (None, False), "not even at full capacity"
    (own,) = summary(policy, records(policy, 0, 10, "edge"), 0, HOUR).own
    assert (own.cloud_usd_per_request, own.pays) == (None, None)
    (own,) = summary(policy, (), 0, HOUR).own
    assert (own.requests, own.usd_per_request, own.pays) == (0, None, None)


def test_hours_before_the_log_began_are_not_charged():
    policy = compile_text(THREE_TIERS)
    found = summary(policy, records(policy, 9 * HOUR, 3, "edge", baseline=1), 0, 10 * HOUR)
    assert found.since == 9 * HOUR
    assert found.reserved_usd == pytest.approx(0.36)


def test_copies_and_unused_answers_count_and_older_records_too():
    policy = compile_text(THREE_TIERS)
    (answer,) = records(policy, 5, 1, "cloud", tokens=(1_000_000, 0), baseline=1.0)
    copy = {"at": 6, "event": "copy", "of": "0", "charges": [answer["outcome"]["charges"][0] | {"purpose": "copy"}]}
    (older,) = records(policy, 7, 1, "cloud")
    older["outcome"] = {"outcome": "ok", "ms": 1, "backend": "cloud", "cost_usd": 0.5}
    found = summary(policy, [answer, copy, older, {"at": 1, "event": "started"}], 0, HOUR)
    assert found.total.usd == pytest.approx(1 + 1 + 0.5)
    assert found.purposes == pytest.approx({"answer": 1, "copy": 1})
    assert (found.total.requests, found.uncharged) == (2, 1)


@pytest.mark.parametrize(
    ("shown", "text"),
    [(usd(0), "$0.00"), (usd(1234.567), "$1,234.57"), (usd(-0.5), "-$0.5000"), (usd(0.00012), "$0.0001200"),
     (usd(None), "–"), (share(0.9987, 2), "99.87 %"), (share(None), "–"), (grams(1500), "1.50 kg"),
     (grams(0.5), "0.5 g")],
)  # fmt: skip
def test_numbers_as_people_read_them(shown, text):
    assert shown == text


def test_a_month_of_records_is_summed_up_in_little_time(tmp_path, capsys):
    """About 20 µs a record, and steady: a month of a busy router is a coffee, not an evening."""
    policy = compile_text(THREE_TIERS)
    prev, now = GENESIS, time.time()
    with Path(tmp_path / "decisions-main-000000000001.jsonl").open("wb") as file:
        for seq, record in enumerate(records(policy, now - 20_000, 20_000, "edge", baseline=0.001), 1):
            line, prev = link(prev, seq, msgspec.json.encode(record))
            file.write(line)
    status, found, _ = report(capsys, tmp_path, "--json")
    assert (status, found["total"]["requests"]) == (0, 20_000)
    assert len(found["series"]["at"]) <= 62


def a_log(folder, *changes, after=b""):
    """Of one record each, intact, with what the change makes of it."""
    now, prev, raw = time.time(), GENESIS, b""
    for number, change in enumerate(changes, 1):
        charge = {"backend": "b", "tier": "cloud", "model": "chat", "seconds": 1, "usd": 1}
        outcome = {"outcome": "ok", "attempts": 1, "ms": 5, "backend": "b", "charges": [charge]}
        decision = {"rule": "r", "sent_label": "public"}
        record = {"at": now - 60, "id": "x", "request": {"model": "chat"}, "decision": decision, "outcome": outcome}
        change(record)
        line, prev = link(prev, number, msgspec.json.encode(record))
        raw += line
    folder.mkdir()
    (folder / "decisions-main-000000000001.jsonl").write_bytes(raw + after)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("at"),
        lambda record: record.update(at="soon"),
        lambda record: record.update(request=None),
        lambda record: record.update(outcome=None),
        lambda record: record["decision"].pop("rule"),
        lambda record: record["outcome"].update(charges="none"),
        lambda record: record["outcome"]["charges"][0].update(usd=None),
    ],
)
def test_a_record_that_no_router_wrote_is_told_of_though_its_hash_is_right(tmp_path, capsys, change):
    status, out, _ = report(capsys, a_log(tmp_path / "log", change, lambda record: None))
    assert status == 1
    assert "NOT AS IT WAS WRITTEN" in out


def test_so_are_lines_that_are_no_records(tmp_path, capsys):
    for i, line in enumerate((b"\xff\x00", b"[" * 100_000, b'{"prev":1,"seq":"x","hash":2}', b"[1]")):
        assert report(capsys, a_log(tmp_path / str(i), lambda record: None, after=line + b"\n"))[0] == 1
    (tmp_path / "dir" / "decisions-main-000000000001.jsonl").mkdir(parents=True)
    assert report(capsys, tmp_path / "dir")[0] == 2


def test_names_are_neither_styles_nor_formulas_nor_markup(tmp_path, capsys):
    """A model's name may be any text, and a log may come from anywhere."""
    strange = "llama[/instruct] :fire: $\\frac{$ <script>alert(1)</script>"

    def change(record):
        record["request"]["model"] = record["decision"]["rule"] = record["outcome"]["outcome"] = strange
        record["outcome"] |= {"outcome": "ok", "slo_met": True}

    page = tmp_path / "page.html"
    status, out, _ = report(capsys, a_log(tmp_path / "log", change), "--html", page)
    assert status == 0
    assert "llama[/instruct] :fire:" in out
    assert "<script>alert" not in page.read_text()


def test_a_file_that_was_rotated_away_meanwhile_is_passed_over(tmp_path):
    gone, there = tmp_path / "decisions-main-000000000001.jsonl", tmp_path / "decisions-main-000000000002.jsonl"
    there.write_bytes(b"x\n")
    assert list(lines([gone, there])) == [b"x\n"]


def test_hours_that_are_still_to_come_cost_nothing(logged, capsys):
    _, folder = logged
    _, found, _ = report(capsys, folder / "log", "--until", "2999-01-01T00:00:00Z", "--json")
    assert found["until"] <= time.time()
