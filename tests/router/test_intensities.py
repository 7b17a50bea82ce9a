"""Intensities in a router that serves: by the clock, over reloads, and in the decision log."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime

import pytest
from conftest import SHARED, Router
from conftest import run_command as run

from backends.registry import BUILDERS
from policies.errors import ConfigurationError
from router.carbon import Intensities
from router.configuration import load, policy_from
from router.decisionlog.files import chains, lines
from router.decisionlog.record import replay
from router.decisionlog.writer import LogSettings
from router.loading import ConfigurationLoader
from router.settings import Settings
from router.watch import watch

FLEET = """apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: sunny, tier: onprem, region: jp, protocol: fake, clearance: restricted, models: {chat: {task: chat}},
     latency: {prior_ms: 50}, script: [{latency_ms: 50}],
     energy: {active_w: 720}, carbon: {series: SERIES, g_per_kwh: 300}}
  - {name: steady, tier: onprem, region: fr, protocol: fake, clearance: restricted, models: {chat: {task: chat}},
     latency: {prior_ms: 50}, script: [{latency_ms: 50}],
     energy: {active_w: 720}, carbon: {zone: FRA, table: zones.csv}}
"""
POLICY = """apiVersion: pointsman/v1
kind: Policy
rules: [{name: least, objective: {carbon: {weight: 1, target_g: 0.001}}}]
"""
CLEAN, DIRTY = 41.30000000000001, 612.25


def stamp(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat()


class Folder:
    """A configuration on disk, whose series a test rewrites. Times are taken from now: the router asks the clock."""

    def __init__(self, path):
        self.path = path
        self.zones("FRA,200")
        (path / "fleet.yaml").write_text(FLEET.replace("SERIES", "today.csv"))
        (path / "policy.yaml").write_text(POLICY)

    def series(self, *rows: tuple[float, float]) -> None:
        text = "".join(f"{stamp(wall)},{value!r}\n" for wall, value in rows)
        (self.path / "today.csv").write_text(f"time,g\n{text}")

    def zones(self, *rows: str) -> None:
        (self.path / "zones.csv").write_text("zone,g_per_kwh\n" + "".join(f"{row}\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config").mkdir()
    found = Folder(tmp_path / "config")
    found.series((time.time() - 3600, CLEAN))
    return found


@pytest.fixture
def start(folder, stopping):
    routers = []

    def start(**settings):
        loader = ConfigurationLoader((folder.path,), {})
        router = Router(loader(), Settings(**settings), BUILDERS, loader).start()
        routers.append(router)
        return router

    yield start
    for router in routers:
        router.stop()
    stopping += routers


def reload(router):
    reply = router.call("POST", "/reload", admin=True).json()
    return reply["outcome"], " ".join(reply.get("problems", ()))


def until(condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_choice_changes_when_the_series_says_so(folder, start):
    turn = time.time() + 2.5
    folder.series((turn - 3600, CLEAN), (turn, DIRTY))
    router = start()
    assert router.chat().backend == "sunny"
    until(lambda: router.chat().backend == "steady")
    assert turn - 0.1 <= time.time()


def test_what_it_says_now_and_who_says_so(folder, start):
    live = start().service.live
    now = time.time()
    assert live.intensities.at(now) == (CLEAN, 200.0)
    assert (
        live.intensities.sources == live.intensities.sources_at(now) == ("file today.csv", "table zones.csv zone FRA")
    )
    assert live.intensities.at(now + 3 * 86400) == (300.0, 200.0)
    assert live.intensities.sources_at(now + 3 * 86400) == ("fleet", "table zones.csv zone FRA")
    assert live.state.snapshot(0.0, now).g_per_kwh == (CLEAN, 200.0)


def test_it_is_worked_out_once_a_second_and_the_same_in_any_order(folder):
    folder.series((1_000_000_000, 100.0), (1_000_000_010, 50.0))
    policy = load([folder.path], {}).policy
    found = Intensities(policy.intensities)
    assert found.at(1_000_000_009.2) is found.at(1_000_000_009.9)
    walls = [1_000_000_009.99, 1_000_000_010.0, 1_000_000_010.5, 999_999_999.9, 1_000_000_009.0]
    assert [found.at(wall)[0] for wall in walls] == [100.0, 50.0, 50.0, 300.0, 100.0]
    assert [found.at(wall)[0] for wall in reversed(walls)] == [100.0, 300.0, 50.0, 50.0, 100.0]


def test_where_nothing_changes_with_the_hour_snapshots_stay_as_they_were(folder):
    (folder.path / "fleet.yaml").write_text(FLEET.replace("series: SERIES, ", ""))
    policy = load([folder.path], {}).policy
    found = Intensities(policy.intensities)
    assert not found.scheduled
    assert found.at(0.0) == (300.0, 200.0)
    assert found.sources == ("fleet", "table zones.csv zone FRA")


# --- reloads --------------------------------------------------------------------------------------------------------


def test_a_new_forecast_is_taken_up_and_is_no_new_policy(folder, start):
    router = start()
    digest, backend = router.service.policy.digest, router.backend("sunny")
    assert router.chat().backend == "sunny"
    folder.series((time.time() - 3600, DIRTY))
    assert reload(router) == ("swapped", "")
    assert router.chat().backend == "steady"
    assert router.service.policy.digest == digest
    assert router.backend("sunny") is backend, "its connections are kept"
    assert reload(router) == ("unchanged", "")


def test_a_new_table_is_a_new_policy(folder, start):
    router = start()
    digest = router.service.policy.digest
    folder.zones("FRA,200", "SWE,30")
    assert reload(router) == ("unchanged", ""), "no zone of ours has changed"
    folder.zones("FRA,12")
    assert reload(router) == ("swapped", "")
    assert router.service.policy.digest != digest
    assert router.chat().backend == "steady"


def test_files_are_watched(folder, start):
    router = start()
    task = asyncio.run_coroutine_threadsafe(watch(router.service, router.service._loader, 0.05), router.loop)
    folder.series((time.time() - 3600, DIRTY))
    until(lambda: router.chat().backend == "steady")
    folder.zones("FRA,900")
    until(lambda: router.chat().backend == "sunny")
    task.cancel()


def test_a_bad_file_is_refused_and_the_old_one_stays(folder, start):
    router = start()
    (folder.path / "today.csv").write_text("time,g\n2026-04-01T00:00Z,lots\n")
    outcome, problems = reload(router)
    assert outcome == "refused"
    assert "today.csv:2:1: error: row 2: 'lots' is no intensity" in problems
    (folder.path / "today.csv").unlink()
    outcome, problems = reload(router)
    assert outcome == "refused"
    assert "cannot read 'today.csv': No such file or directory" in problems
    assert router.chat().backend == "sunny"
    with pytest.raises(ConfigurationError, match=r"cannot read 'today\.csv'"):
        load([folder.path], {})


def test_a_candidate_policy_sees_the_same_files(folder, tmp_path):
    candidate = tmp_path / "next.yaml"
    candidate.write_text(POLICY.replace("least", "next"))
    configuration = ConfigurationLoader((folder.path,), {}, candidate=candidate)()
    assert configuration.candidate.intensities == configuration.policy.intensities
    assert configuration.candidate.targets[1].g_per_kwh == 200.0
    assert {folder.path / "today.csv", folder.path / "zones.csv"} <= set(configuration.files)


# --- the log --------------------------------------------------------------------------------------------------------


def test_a_decision_under_a_series_is_made_again_to_the_bit_also_under_the_next_days_series(
    folder, start, tmp_path, capsys
):
    router = start(decision_log=LogSettings(tmp_path / "log"))
    ids = [router.chat().headers["x-pointsman-decision"] for _ in range(3)]
    router.stop()
    router.join()
    (files,) = chains([tmp_path / "log"]).values()
    records = [record for line in lines(files) if "decision" in (record := json.loads(line))]
    assert [record["state"]["g_per_kwh"] for record in records] == [[CLEAN, 200.0]] * 3
    folder.series((time.time() - 60, DIRTY))  # what it says now is no part of what was decided then
    for decision_id in ids:
        status, out, _ = run(capsys, "explain", folder.path, "--replay", decision_id, "--log", tmp_path / "log")
        assert status == 0
        assert "the same as logged, to the bit" in out
        assert "goes to      sunny" in out
    record = records[0] | {"state": {}}  # the test of the test: without it, the decision comes out otherwise
    policy = policy_from([folder.path], {})
    assert replay(records[0], policy).differences == ()
    assert replay(record, policy).decision.chosen.target.backend == "steady"


# --- the commands ---------------------------------------------------------------------------------------------------


def test_explain_and_test_go_by_the_time_that_they_are_given(folder, capsys):
    (folder.path / "today.csv").write_text("time,g\n09:00,30\n16:00,500\n")

    def explained(now):
        status, out, _ = run(capsys, "explain", folder.path, "--model", "chat", "--now", now, "--json")
        assert status == 0
        return json.loads(out)["backend"]

    assert explained("2026-04-01T12:00:00Z") == "sunny"
    assert explained("2026-04-01T20:00:00+09:00") == "sunny"  # 11:00 UTC
    assert explained("2026-04-01T16:00:00Z") == "steady"
    (folder.path / "policy_test.yaml").write_text(
        "apiVersion: pointsman/v1\nkind: PolicyTest\ntests:\n"
        "  - {name: noon, now: '2026-04-01T12:00:00Z', request: {model: chat}, expect: {backend: sunny}}\n"
        "  - {name: night, now: '2026-04-01T02:00:00Z', request: {model: chat}, expect: {backend: steady}}\n"
    )
    status, out, err = run(capsys, "test", folder.path)
    assert (status, "2 passed, 0 failed" in out + err) == (0, True)


@pytest.mark.skipif(not (SHARED / "data/carbon").exists(), reason="no ../shared/data/carbon here")
def test_real_files_go_live(folder, capsys):
    carbon = SHARED / "data/carbon"
    (folder.path / "zones.csv").write_text((carbon / "global_energy_mix.json").read_text())
    (folder.path / "today.csv").write_text((carbon / "caiso_5min.csv").read_text())
    status, _, err = run(capsys, "check", folder.path)
    assert (status, "2 file(s) checked: good" in err) == (0, True)
    found = Intensities(load([folder.path], {}).policy.intensities)
    assert found.at(datetime(2023, 6, 8, 0, 5, tzinfo=UTC).timestamp())[0] == 432.27352861
