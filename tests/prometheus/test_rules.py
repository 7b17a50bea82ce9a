"""Rules and alerts: promtool's checks and unit tests, and a runbook for each alert."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.prometheus.expressions import ALERTS, RECORDING, ROOT, RULES, recorded, rules, samples, selectors
from tests.prometheus.server import MISSING

UNIT_TESTS = sorted((ROOT / "tests" / "prometheus" / "rules").glob("*.yaml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
HEADINGS = ["What it means", "What users notice", "How to look", "What to do", "When it is a false alarm"]
ALL = rules(ALERTS)
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
promtool = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def run(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@promtool
def test_promtool_finds_nothing_in_rules_and_configuration():
    assert "SUCCESS" in run("check", "rules", RECORDING, ALERTS)
    assert "SUCCESS" in run("check", "config", RULES / "prometheus.yaml")


@promtool
@pytest.mark.parametrize("path", UNIT_TESTS, ids=[path.stem for path in UNIT_TESTS])
def test_unit_tests_of_rules(path):
    assert "SUCCESS" in run("test", "rules", path)


@promtool
def test_an_alert_that_does_not_fire_would_be_noticed(tmp_path):
    """The unit tests see the files that we ship: with another threshold they fail."""
    text = (RULES / "alerts.yaml").read_text()
    assert "> 0.8" in text
    (tmp_path / "recording.yaml").write_text(RECORDING.read_text())
    (tmp_path / "alerts.yaml").write_text(text.replace("> 0.8", "> 0.99"))
    fleet = next(path for path in UNIT_TESTS if path.stem == "fleet").read_text()
    (tmp_path / "fleet.yaml").write_text(fleet.replace("../../../configs/prometheus/", ""))
    done = subprocess.run(["promtool", "test", "rules", str(tmp_path / "fleet.yaml")], capture_output=True, timeout=60)
    assert done.returncode != 0


def test_every_alert_is_tested_both_firing_and_quiet():
    wanted = {(alert["alert"], alert["labels"].get("window")) for alert in ALL}
    fires, quiet = set(), set()
    for path in UNIT_TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for check in test.get("alert_rule_test", ()):
                name = check["alertname"]
                now = {(name, one["exp_labels"].get("window")) for one in check["exp_alerts"]}
                fires |= now
                quiet |= {one for one in wanted if one[0] == name} - now
    assert fires == wanted
    assert quiet == wanted


@pytest.mark.parametrize("alert", ALL, ids=lambda alert: alert["alert"] + alert["labels"].get("window", ""))
def test_an_alert_says_what_how_bad_and_where_to_read_on(alert):
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert "for" in alert
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"docs/runbooks/{alert['alert']}.md"
    assert (ROOT / notes["runbook_url"]).exists()
    page = (ROOT / notes["runbook_url"]).read_text()
    assert f"Severity: {alert['labels']['severity']}" in page
    assert f"`{alert['labels'].get('window', '')}`" in page or "window" not in alert["labels"]


def test_every_runbook_has_an_alert():
    assert {path.stem for path in PAGES} == {alert["alert"] for alert in ALL}
    listed = set(re.findall(r"\]\((\w+)\.md\) \|", (RUNBOOKS / "README.md").read_text()))
    assert listed == {path.stem for path in PAGES}


@pytest.mark.parametrize("path", PAGES, ids=[path.stem for path in PAGES])
def test_a_runbook_has_all_parts_and_queries_that_work(path):
    text = path.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert part.strip(), "an empty part"
    known = {*samples(), *recorded(), "up"}
    looks = text.partition("## How to look")[2].partition("\n## ")[0]
    assert "```" in looks
    for block in re.findall(r"^```promql\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            found = selectors(line)
            assert found
            assert {name for name, _ in found} <= known, line
    for name in re.findall(r"`(pointsman_\w+)", text):
        assert name in known or {f"{name}_bucket"} & known, name
