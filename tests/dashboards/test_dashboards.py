"""The dashboards: current, complete, and linked to what exists."""

from __future__ import annotations

import json
import re

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.board import plain
from dashboards.files import FOLDER, dashboards, texts

MADE = {name: plain(made) for name, made in dashboards().items()}
PANELS = [
    pytest.param(board, panel, id=f"{board['uid']}-{panel['id']}")
    for board in MADE.values()
    for panel in board["panels"]
    if panel["type"] != "row"
]
of_panels = pytest.mark.parametrize(("board", "panel"), PANELS)
UIDS = {board["uid"]: board for board in MADE.values()}
BUILT_IN = {"__rate_interval", "__range", "__interval", "__interval_ms", "datasource"}


def variables(board):
    return {one["name"] for one in board["templating"]["list"]}


def test_what_is_committed_is_what_the_code_gives():
    """After a change: make dashboards."""
    assert {path.name for path in FOLDER.glob("*.json")} == set(texts())
    for name, text in texts().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, name


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_the_sdk_reads_what_is_committed_with_its_types(path):
    """Every panel by the type of its kind; nothing is lost on the way there and back."""
    register_default_plugins()
    committed = json.loads(path.read_text(encoding="utf-8"))
    read = Dashboard.from_json(committed)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == committed
    assert all(type(panel.options).__module__.endswith(panel.type_val.replace("-", ""))
               for panel in read.panels if panel.type_val != "row")  # fmt: skip


def test_there_are_the_five():
    assert set(MADE) == {"overview.json", "policy.json", "backends.json", "costs.json", "tenants.json"}
    assert len(PANELS) >= 80


@of_panels
def test_a_panel_asks_a_question_and_says_how_to_read_the_answer(board, panel):
    assert re.search(r"\?( \(modelled\))?$", panel["title"]), panel["title"]
    assert len(panel["description"]) > 20
    assert panel["targets"]
    assert all(target["expr"] for target in panel["targets"])
    assert panel["datasource"]["uid"] == "${datasource}"


@of_panels
def test_a_panel_has_a_unit(board, panel):
    if panel["type"] == "state-timeline":  # words instead
        assert panel["fieldConfig"]["defaults"]["mappings"]
    elif panel["type"] == "heatmap":
        assert panel["options"]["yAxis"]["unit"]
    elif panel["type"] == "table":
        units = [p["value"] for o in panel["fieldConfig"]["overrides"] for p in o["properties"] if p["id"] == "unit"]
        assert len(units) == len(panel["targets"])
    else:
        assert panel["fieldConfig"]["defaults"]["unit"]


@of_panels
def test_a_value_that_can_be_good_or_bad_has_thresholds(board, panel):
    if panel["type"] in ("stat", "bargauge"):
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert steps[0]["value"] is None
        assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])


@of_panels
def test_its_variables_are_the_dashboard_s(board, panel):
    for target in panel["targets"]:
        assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables(board) | BUILT_IN
        assert 'job=~"$job"' in target["expr"] or "ALERTS" in target["expr"]


@of_panels
def test_its_links_lead_to_a_dashboard_and_to_variables_of_it(board, panel):
    for link in panel["fieldConfig"]["defaults"].get("links", ()):
        uid = re.match(r"/d/([a-z-]+)\?", link["url"])[1]
        assert set(re.findall(r"var-(\w+)=", link["url"])) <= variables(UIDS[uid]), link["url"]
        assert "${__url_time_range}" in link["url"]
        for label in re.findall(r"__(?:field\.labels|data\.fields)\.(\w+)", link["url"]):
            assert any(f"by ({before}{label}" in t["expr"] or re.search(rf"by \([^)]*\b{label}\b", t["expr"])
                       for t in panel["targets"] for before in [""]), f"no series has {label}"  # fmt: skip


@pytest.mark.parametrize("board", MADE.values(), ids=MADE)
def test_panels_lie_beside_each_other_and_have_ids(board):
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            assert panel["title"].endswith("?")


@pytest.mark.parametrize("board", MADE.values(), ids=MADE)
def test_a_dashboard_leads_to_the_others_and_lets_choose(board):
    assert board["links"][0]["tags"] == ["pointsman"] == board["tags"]
    assert board["links"][0]["includeVars"]
    assert {"datasource", "job", "instance"} <= variables(board)
    for variable in board["templating"]["list"][1:]:
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".*")


def test_every_dashboard_can_be_reached_from_a_panel_of_another():
    reached = {
        re.match(r"/d/([a-z-]+)", link["url"])[1]
        for board in MADE.values()
        for panel in board["panels"]
        for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", ())
        if f"/d/{board['uid']}?" not in link["url"]
    }
    assert reached >= set(UIDS) - {"pointsman-overview"}


def test_latency_panels_ask_for_exemplars():
    asked = [t for p in PANELS for t in p.values[1]["targets"] if "pointsman_request_seconds_bucket" in t["expr"]]
    assert asked
    assert all(target["exemplar"] for target in asked)


def test_the_files_are_json_without_addresses():
    for path in FOLDER.glob("*.json"):
        assert "http" not in json.dumps(json.loads(path.read_text()))
