"""Carbon intensity: what tables and series say, when they speak, and what decisions make of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from conftest import SHARED, request
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.carbon import DAY_S, Series, read_series, read_table
from policies.compile import compile_documents
from policies.decide import decide
from policies.diff import at_rest, compare
from policies.estimate import carbon_g, energy_j
from policies.grid import Probe, probes
from policies.schema import RequestFacts
from policies.source import parse

CODECARBON, CAISO = SHARED / "data/carbon/global_energy_mix.json", SHARED / "data/carbon/caiso_5min.csv"
needs_shared = pytest.mark.skipif(not CAISO.exists(), reason="no ../shared/data/carbon here")

FLEET = """
apiVersion: pointsman/v1
kind: Fleet
backends:
  - {name: sunny, tier: onprem, region: jp, protocol: fake, models: {chat: {task: chat}}, latency: {prior_ms: 1000},
     energy: {active_w: 720}, limits: {max_in_flight: 2}, carbon: SUNNY}
  - {name: steady, tier: onprem, region: fr, protocol: fake, models: {chat: {task: chat}}, latency: {prior_ms: 1000},
     energy: {active_w: 720}, limits: {max_in_flight: 2}, carbon: {g_per_kwh: 200}}
---
apiVersion: pointsman/v1
kind: Policy
sensitivity: {default: public}
rules: [{name: least, objective: {carbon: {weight: 1, target_g: 0.02}}}]
"""
BY_DAY = "time,g\n06:00,150\n10:00,20\n15:30,400\n"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def compiled(carbon: str, **files: str):
    """The fleet above; `files` by name, with _ for the dot."""
    held = {name.replace("_", "."): text for name, text in files.items()}
    documents, problems = parse(FLEET.replace("SUNNY", carbon), "fleet.yaml", {})
    policy, more = compile_documents(documents, include=lambda _, written: (written, held[written]))
    assert problems + more == []
    assert policy is not None
    return policy


def complaints(carbon: str, **files: str) -> list[str]:
    held = {name.replace("_", "."): text for name, text in files.items()}
    documents, _ = parse(FLEET.replace("SUNNY", carbon), "fleet.yaml", {})
    policy, problems = compile_documents(documents, include=lambda _, written: (written, held[written]))
    assert policy is None
    return [str(problem) for problem in problems]


# --- series -------------------------------------------------------------------------------------------------------


def test_a_series_says_what_began_last():
    series, problems = read_series(
        "t,g\n2026-04-01T00:00Z,400\n2026-04-01 09:00:00,20.5\n2026-04-01T19:00+09:00,7\n", "s"
    )
    assert problems == []
    told = {when: series.at(at(when)) for when in ("2026-03-31T23:59:59", "2026-04-01T00:00", "2026-04-01T08:59:59")}
    assert list(told.values()) == [None, 400.0, 400.0]
    assert series.at(at("2026-04-01T09:00")) == 20.5
    assert series.at(at("2026-04-01T10:00")) == 7.0
    assert series.at(at("2026-04-02T10:00")) == 7.0
    assert series.at(at("2026-04-02T10:00:01")) is None, "later than a day after the last row it does not speak"


def test_times_of_day_hold_every_day():
    series, problems = read_series(BY_DAY, "s")
    assert problems == []
    for day in ("1970-01-01", "2026-02-28", "2031-12-31"):
        told = [
            series.at(at(f"{day}T{hour}")) for hour in ("00:00", "05:59:59", "06:00", "10:00", "15:29:59", "23:59:59")
        ]
        assert told == [400.0, 400.0, 150.0, 20.0, 20.0, 400.0]


@given(
    st.lists(st.tuples(st.integers(0, 86399), st.floats(0, 2000)), min_size=1, unique_by=lambda row: row[0]),
    st.booleans(),
    st.floats(0, 4 * DAY_S),
)
def test_it_is_what_a_search_from_the_start_finds(rows, daily, now):
    rows.sort()
    series = Series(tuple(float(t) for t, _ in rows), tuple(v for _, v in rows), daily)
    clock = now % DAY_S if daily else now
    begun = [value for time, value in rows if time <= clock]
    if daily:
        expected = begun[-1] if begun else rows[-1][1]
    else:
        expected = begun[-1] if begun and now <= rows[-1][0] + DAY_S else None
    assert series.at(now) == expected


def test_the_second_column_speaks_unless_another_is_named():
    text = '\ufefftime,"Tokyo, direct",life cycle\n2026-04-01T00:00Z,400,460\n\n2026-04-01T01:00Z, 410 ,470\n'
    assert read_series(text, "s")[0].values == (400.0, 410.0)
    assert read_series(text, "s", "life cycle")[0].values == (460.0, 470.0)
    assert read_series(text, "s", "Tokyo, direct")[0].values == (400.0, 410.0)
    series, (problem,) = read_series(text, "s.csv", "Osaka")
    assert series is None
    assert str(problem) == "s.csv:1:1: error: row 1: no column 'Osaka'\n    there are: time, Tokyo, direct, life cycle"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("time,g\n", "the series has no rows"),
        ("time\n00:00\n", "row 1: there is one column only"),
        ("time,g\n24:00,1\n", "row 2: '24:00' is no time"),
        ("time,g\n00:00,inf\n", "row 2: 'inf' is no intensity"),
        ("time,g\n00:00,\n", "row 2: '' is no intensity"),
        ("time,g\n00:00,1\n00:00,2\n", "row 3: '00:00' is not after the time of the row before"),
        ("time,g\n00:00,1\n2026-04-01,2\n", "row 3: times of day and dates are mixed"),
        ('time,g\n"00:00,1\n', "row 2: not CSV: unexpected end of data"),
        ("time;g\n00:00;1\n", "row 1: there is one column only"),
    ],
)
def test_a_bad_series_is_none_at_all(text, says):
    series, problems = read_series(text, "s.csv")
    assert series is None
    assert [problem.message for problem in problems] == [says]
    assert all(problem.hint for problem in problems)


@given(st.text(alphabet='0:,-TZ\n"é{}[]gne.+ ', max_size=60))
def test_whatever_a_file_holds_it_is_read_or_complained_of(text):
    table, told_of_table = read_table(text, "f")
    series, told_of_series = read_series(text, "f")
    assert bool(table.values) != bool(told_of_table)
    assert (series is not None) != bool(told_of_series)


# --- tables -------------------------------------------------------------------------------------------------------


def test_a_table_as_csv_with_more_columns():
    table, problems = read_table("\ufeffyear,zone,g_per_kwh\r\n2023,JPN,485.4\r\n2023,FRA,34\r\n", "t.csv")
    assert problems == []
    assert table.values == {"JPN": 485.4, "FRA": 34.0}


def test_a_table_as_codecarbon_has_it():
    text = (
        '{"JPN": {"carbon_intensity": 485.4, "country_name": "Japan", "n": 1}, "ATA": {"country_name": "Antarctica"}}'
    )
    table, problems = read_table(text, "t.json")
    assert problems == []
    assert (table.values, table.names) == ({"JPN": 485.4}, {"JPN": "Japan"})
    (told,) = complaints("{zone: ATA, table: t.json}", t_json=text)
    assert "t.json has no zone 'ATA'" in told


def test_a_zone_that_is_missing_is_told_with_those_like_it():
    zones = "zone,g_per_kwh\nJP-TK,459\nJP-KY,380\nFR,34\n"
    (told,) = complaints("{zone: jp-tky, table: t.csv}", t_csv=zones)
    assert told == "fleet.yaml:6:74: error: t.csv has no zone 'jp-tky'\n    close to it: JP-TK, JP-KY"


# --- both, in a fleet ---------------------------------------------------------------------------------------------


def test_the_series_then_the_table_then_the_fleet():
    files = {"s_csv": "t,g\n2026-04-01T00:00Z,20\n", "t_csv": "zone,g_per_kwh\nJP,485\n"}
    policy = compiled("{zone: JP, table: t.csv, series: s.csv, g_per_kwh: 1}", **files)
    in_time, too_late = at("2026-04-01T12:00"), at("2026-04-03T00:00")
    assert policy.g_per_kwh(in_time) == (20.0, 200.0)
    assert policy.g_per_kwh(too_late) == (485.0, 200.0)
    one = policy.intensities[0]
    assert (one.source_at(in_time), one.source_at(too_late)) == ("file s.csv", "table t.csv zone JP")
    bare = compiled("{series: s.csv, g_per_kwh: 1, source: the operator}", **files)
    assert bare.g_per_kwh(too_late) == (1.0, 200.0)
    assert [bare.intensities[0].source_at(when) for when in (in_time, too_late)] == ["the operator", "fleet"]


def test_without_a_series_a_snapshot_carries_nothing():
    policy = compiled("{zone: JP, table: t.csv}", t_csv="zone,g_per_kwh\nJP,485\n")
    assert policy.g_per_kwh(0.0) == ()
    assert [target.g_per_kwh for target in policy.targets] == [485.0, 200.0]
    assert policy.targets[0].attributes["carbon.g_per_kwh"] == 485.0, "constraints see it too"


def test_the_objective_goes_by_the_hour():
    policy = compiled("{series: day.csv, g_per_kwh: 300}", day_csv=BY_DAY)

    def chosen(when: str) -> tuple[str, float]:
        found = decide(request(), at_rest(policy, at(when)), policy).chosen
        return found.target.backend, found.estimate.carbon_g

    assert chosen("2026-04-01T12:00") == ("sunny", pytest.approx(0.002))  # 720 W / 2 places, for 1 s, at 20 g/kWh
    assert chosen("2026-04-01T18:00") == ("steady", pytest.approx(0.02))
    assert chosen("2026-04-02T06:00") == ("sunny", pytest.approx(0.015))


def test_energy_and_carbon_of_a_request():
    target = compiled("{g_per_kwh: 500}").targets[0]
    assert energy_j(target, 10) == 3600.0
    assert carbon_g(3600.0, 500.0) == 0.5
    assert carbon_g(3.6e6, 485.0) == 485.0


def test_what_a_snapshot_says_wins_over_the_fleet():
    policy = compiled("{g_per_kwh: 500}")
    rest = at_rest(policy, 0.0)
    assert decide(request(), rest, policy).chosen.target.backend == "steady"
    assert decide(request(), replace(rest, g_per_kwh=(10.0, 200.0)), policy).chosen.target.backend == "sunny"


def test_diff_sees_what_a_schedule_moves():
    flat = compiled("{g_per_kwh: 300}")
    scheduled = compiled("{g_per_kwh: 300, series: day.csv}", day_csv=BY_DAY)
    asked = [Probe(RequestFacts(model="chat"), at(f"2026-01-05T{hour}")) for hour in ("12:00", "18:00")]
    (move,) = compare(flat, scheduled, asked)
    assert (move.probe, move.before.backend, move.after.backend) == (asked[0], "steady", "sunny")


def test_the_grid_has_every_hour_where_a_schedule_has_times_of_day():
    flat = compiled("{g_per_kwh: 300}")
    morning, dated = "time,g\n06:30,20\n08:15,300\n", "time,g\n2026-04-01,20\n"
    scheduled = compiled("{g_per_kwh: 300, series: day.csv}", day_csv=morning)
    moved = compare(flat, scheduled, probes([flat, scheduled], 20_000))
    assert {datetime.fromtimestamp(move.probe.now, UTC).hour for move in moved} == {7, 8}
    assert {move.after.backend for move in moved} == {"sunny"}
    assert len(probes([flat], 20_000)) == len(probes([compiled("{series: d.csv}", d_csv=dated)], 20_000))


def test_a_table_is_part_of_the_digest_and_a_series_is_not():
    zones, day = "zone,g_per_kwh\nJP,485\nFR,34\n", BY_DAY
    carbon = "{zone: JP, table: t.csv, series: day.csv}"
    policy = compiled(carbon, t_csv=zones, day_csv=day)
    other_zone = compiled(carbon, t_csv=zones.replace("34", "35"), day_csv=day)
    other_value = compiled(carbon, t_csv=zones.replace("485", "480"), day_csv=day)
    other_day = compiled(carbon, t_csv=zones, day_csv=day.replace("150", "160"))
    assert policy.digest == other_zone.digest == other_day.digest != other_value.digest
    assert policy.intensities == other_zone.intensities
    assert policy.intensities != other_day.intensities


def test_without_a_reader_no_file_is_read():
    documents, _ = parse(FLEET.replace("SUNNY", "{zone: JP, table: t.csv, series: s.csv, g_per_kwh: 7}"), "f", {})
    policy, problems = compile_documents(documents)
    assert problems == []
    assert policy.targets[0].g_per_kwh == 7
    assert policy.g_per_kwh(0.0) == ()


# --- real files ---------------------------------------------------------------------------------------------------


@needs_shared
def test_codecarbons_table():
    table, problems = read_table(CODECARBON.read_text(), "mix.json")
    assert problems == []
    assert len(table.values) > 200
    assert (table.values["JPN"], table.names["JPN"]) == (485.392, "Japan")
    told = complaints("{zone: GB, table: mix.json}", mix_json=CODECARBON.read_text())
    assert "close to it: GBR (United Kingdom)" in told[0]
    told = complaints("{zone: Japan, table: mix.json}", mix_json=CODECARBON.read_text())
    assert "close to it: JPN (Japan)" in told[0]


@needs_shared
def test_a_month_of_california_in_steps_of_five_minutes():
    policy = compiled("{series: caiso.csv}", caiso_csv=CAISO.read_text())
    assert policy.g_per_kwh(at("2023-06-08T00:00"))[0] == 425.01605069
    assert policy.g_per_kwh(at("2023-06-08T00:07"))[0] == 432.27352861
    assert policy.g_per_kwh(at("2023-07-08T23:59"))[0] == 441.79896838
    assert policy.g_per_kwh(at("2023-06-07T23:59"))[0] == 0.0
    series = policy.intensities[0].series
    assert len(series.values) == 8928
    by_value = sorted(zip(series.values, series.times, strict=True))
    for (value, time), chosen in ((by_value[0], "sunny"), (by_value[-1], "steady")):
        decision = decide(request(), at_rest(policy, time), policy)
        assert (decision.chosen.target.backend, value < 200) == (chosen, chosen == "sunny")


def test_the_times_are_no_intensities():
    """The second column stood in for them without a word."""
    series, problems = read_series("time,g\n09:00,400\n", "s", "time")
    assert series is None
    assert problems[0].message == "row 1: 'time' is the column of the times"
