"""The decision log: what is written can be verified and replayed; what is lost is said."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from conftest import ROOT, THREE_TIERS, compile_text, idle, request
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.decide import decide
from policies.sensitivity.labels import Label
from router.cli import main
from router.decisionlog.chain import GENESIS, Verification, link, unlink
from router.decisionlog.files import chains, file_name, lines
from router.decisionlog.keeping import _take, by_chain
from router.decisionlog.record import Decided, Outcome, as_record, replay
from router.decisionlog.writer import DecisionLog, LogSettings

# --- the chain ----------------------------------------------------------------------------------------------------


def chain(count, **more):
    prev, found = GENESIS, []
    for seq in range(1, count + 1):
        line, prev = link(prev, seq, msgspec.json.encode({"at": seq, "name": f"記録 {seq}", **more}))
        found.append(line)
    return found


OPEN_END = "the log does not end with a stop: its writer is running or died, or the end was cut off"


def verify(found):
    """The verification, and its findings but the one about an open end, which most of these chains have."""
    verification = Verification()
    findings = [finding for finding in verification.walk(found) if finding.text != OPEN_END]
    return verification, findings


def test_an_open_end_is_told():
    assert [finding.text for finding in Verification().walk(chain(3))] == [OPEN_END]
    stopped = [*chain(3), link(json.loads(chain(3)[-1])["hash"], 4, b'{"event":"stopped","at":0}')[0]]
    assert list(Verification().walk(stopped)) == []


def test_what_was_written_is_intact():
    verification, findings = verify(chain(20))
    assert not verification.broken
    assert findings == []
    assert (verification.records, verification.first, verification.last) == (20, 1, 20)


@given(st.integers(0, 9), st.data())
def test_any_change_of_any_byte_is_found(at, data):
    found = chain(10)
    line = bytearray(found[at])
    position = data.draw(st.integers(0, len(line) - 2))  # the line feed is no content
    line[position] ^= data.draw(st.integers(1, 255))
    found[at] = bytes(line)
    assert verify(b"".join(found).splitlines(keepends=True))[0].broken


@given(st.integers(1, 8), st.integers(0, 9))
def test_a_line_that_is_gone_or_moved_is_found(at, to):
    found = chain(10)
    assert verify(found[:at] + found[at + 1 :])[0].broken
    moved = found[:at] + found[at + 1 :]
    moved.insert(to, found[at])
    assert verify(moved)[0].broken is (moved != found)


def test_a_line_that_was_put_in_is_found():
    found = chain(5)
    forged, _ = link(json.loads(found[2])["hash"], 4, b'{"at":0,"name":"forged"}')
    verification, findings = verify([*found[:3], forged, *found[3:]])
    assert verification.broken
    assert "moved: record 4 stands after record 4" in findings[0].text


def test_findings_say_what_happened():
    found = chain(9)
    assert "edited" in verify([*found[:2], found[2].replace("記録".encode(), "改竄".encode()), *found[3:]])[1][0].text
    assert verify([*found[:2], *found[5:]])[1][0].text == "removed: records 3 to 5 are missing"
    assert "an unfinished line" in verify([*found, b'{"prev":"ab'])[1][0].text
    assert not verify([*found, b'{"prev":"ab'])[0].broken
    assert verify(found[3:])[1][0].text == "begins at record 4: what came before is not here"


def test_a_line_that_is_not_one():
    with pytest.raises(ValueError, match="not JSON"):
        unlink(b"{nope}\n")
    with pytest.raises(ValueError, match="not a record"):
        unlink(b"[1]\n")


# --- the writer ---------------------------------------------------------------------------------------------------


def entry(n):
    return msgspec.json.encode({"at": n, "id": f"d{n}", "padding": "x" * 50})


def folder_lines(folder):
    (files,) = chains([folder]).values()
    return list(lines(files))


def test_it_writes_in_order_and_says_when_it_starts_and_stops(tmp_path):
    log = DecisionLog(LogSettings(tmp_path))
    for n in range(100):
        log.put(entry(n))
    log.close()
    records = [json.loads(line) for line in folder_lines(tmp_path)]
    assert [r.get("event") for r in records] == ["started", *[None] * 100, "stopped"]
    assert [r["id"] for r in records[1:-1]] == [f"d{n}" for n in range(100)]
    assert not verify(folder_lines(tmp_path))[0].broken


def test_the_next_writer_takes_up_the_chain(tmp_path):
    for _ in range(3):
        log = DecisionLog(LogSettings(tmp_path))
        log.put(entry(1))
        log.close()
    verification, findings = verify(folder_lines(tmp_path))
    assert (verification.broken, verification.records, findings) == (False, 9, [])


def test_files_are_rotated_by_size_and_stay_one_chain(tmp_path):
    log = DecisionLog(LogSettings(tmp_path, max_bytes=2000))
    for n in range(200):
        log.put(entry(n))
        if n % 10 == 0:
            log.flush()
    log.close()
    (files,) = chains([tmp_path]).values()
    assert len(files) > 5
    assert verify(folder_lines(tmp_path))[0].records == 202
    assert not verify(folder_lines(tmp_path))[0].broken
    files[2].unlink()
    assert verify(folder_lines(tmp_path))[0].broken


def test_old_files_can_be_let_go(tmp_path):
    log = DecisionLog(LogSettings(tmp_path, max_bytes=1000, keep_files=3))
    for n in range(200):
        log.put(entry(n))
        log.flush()
    log.close()
    verification, findings = verify(folder_lines(tmp_path))
    assert len(list(tmp_path.glob("*.jsonl"))) == 3
    assert not verification.broken
    assert "what came before is not here" in findings[0].text


def test_a_full_queue_drops_and_counts_and_never_blocks(tmp_path, monkeypatch):
    dropped = []
    log = DecisionLog(LogSettings(tmp_path, max_queued=10), on_drop=lambda: dropped.append(1))
    hold = threading.Event()
    write = log._write
    monkeypatch.setattr(log, "_write", lambda *lines: (hold.wait(10), write(*lines)))
    log.put(entry(0))
    while log.queued:
        time.sleep(0.01)
    # The thread now holds that one.
    begin = time.monotonic()
    for n in range(100):
        log.put(entry(n))
    assert time.monotonic() - begin < 1
    assert len(dropped) == 90
    hold.set()
    log.close()
    verification, _ = verify(folder_lines(tmp_path))
    assert not verification.broken
    assert verification.decisions == 11


def test_a_disk_that_is_full_loses_records_and_not_the_router(tmp_path, monkeypatch):
    dropped = []
    log = DecisionLog(LogSettings(tmp_path), on_drop=lambda: dropped.append(1))

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def tell(self):
            return 0

        def close(self):
            return None

    file, log._file = log._file, Full()
    log.put(entry(1))
    log.flush()
    assert dropped
    log._file = file
    log.put(entry(2))
    log.close()
    assert not verify(folder_lines(tmp_path))[0].broken


def test_what_waits_behind_lost_records_follows_from_what_was_written(tmp_path):
    dropped = []
    log = DecisionLog(LogSettings(tmp_path), on_drop=lambda: dropped.append(1))
    file = log._file

    class Full:
        """Until it has lost something; meanwhile others come."""

        def write(self, data):
            for n in range(3):
                log.put(entry(n))
            log._file = file
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(file, name)

    log._file = Full()
    log.put(entry(9))
    log.flush()
    log.put(entry(4))
    log.close()
    verification, findings = verify(folder_lines(tmp_path))
    assert (verification.broken, verification.decisions, len(dropped)) == (False, 4, 1)
    assert [finding.text.split(" from")[0] for finding in findings] == ["1 records were lost"]
    assert [json.loads(line)["seq"] for line in folder_lines(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


_WRITER = """
import sys, time
from pathlib import Path
from router.decisionlog.writer import DecisionLog, LogSettings
log = DecisionLog(LogSettings(Path(sys.argv[1]), max_bytes=200_000))
n = 0
while True:
    for _ in range(40):
        n += 1
        log.put(b'{"at":%d,"id":"d%d","padding":"%b"}' % (n, n, b"x" * 500))
    if n == 2000:
        print("going", flush=True)
    time.sleep(0.002)
"""


def test_kill_9_while_writing_loses_the_tail_only_and_verify_says_so(tmp_path):
    for round_ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "going\n"
        before = len(folder_lines(tmp_path))
        while len(folder_lines(tmp_path)) < before + 600:
            time.sleep(0.01)
        time.sleep(random.Random(round_).uniform(0, 0.1))
        process.kill()
        process.wait()
        process.stdout.close()
        verification, findings = verify(folder_lines(tmp_path))
        assert not verification.broken
        ids = [json.loads(line).get("id") for line in folder_lines(tmp_path) if line.endswith(b"\n")]
        mine = ids[len(ids) - ids[::-1].index(None) :]
        assert mine == [f"d{n}" for n in range(1, len(mine) + 1)], "a prefix of what was put, nothing out of the middle"
        assert len(mine) > 500
    log = DecisionLog(LogSettings(tmp_path))
    log.close()
    verification, findings = verify(folder_lines(tmp_path))
    assert not verification.broken
    assert len([f for f in findings if "died" in f.text]) == 3


def test_an_unfinished_line_is_cut_and_told(tmp_path):
    log = DecisionLog(LogSettings(tmp_path))
    log.put(entry(1))
    log.flush()
    log._file.write(b'{"prev":"torn')
    log._owned.close()  # as if it had died
    again = DecisionLog(LogSettings(tmp_path))
    again.put(entry(2))
    again.close()
    verification, findings = verify(folder_lines(tmp_path))
    assert not verification.broken
    assert "an unfinished line of 13 bytes was cut" in findings[0].text
    assert verification.decisions == 2


def test_a_first_line_of_a_file_that_was_not_finished_is_cut_and_the_chain_goes_on(tmp_path):
    log = DecisionLog(LogSettings(tmp_path))
    log.put(entry(1))
    log.close()
    (tmp_path / file_name("main", 4)).write_bytes(b'{"prev":"')
    log = DecisionLog(LogSettings(tmp_path))
    log.put(entry(2))
    log.close()
    verified, _ = verify(folder_lines(tmp_path))
    assert (verified.broken, verified.decisions, verified.last) == (False, 2, 6)
    assert json.loads((tmp_path / file_name("main", 4)).read_text().splitlines()[0])["cut_bytes"] == 9


def test_only_one_writes_a_chain_and_the_other_does_not_start(tmp_path):
    log = DecisionLog(LogSettings(tmp_path))
    with pytest.raises(OSError, match="another router writes its decision log there; give this one another folder"):
        DecisionLog(LogSettings(tmp_path))
    other = DecisionLog(LogSettings(tmp_path), writer="other")
    for one in (log, other):
        one.put(entry(1))
        one.close()
    DecisionLog(LogSettings(tmp_path)).close()
    of_both = chains([tmp_path])
    assert len(of_both) == 2
    assert not any(verify(list(lines(files)))[0].broken for files in of_both.values())


def test_who_starts_while_another_removes_what_he_had_left_waits_for_that(tmp_path):
    DecisionLog(LogSettings(tmp_path)).close()
    with (tmp_path / "decisions-main.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.2, fcntl.flock, (lock, fcntl.LOCK_UN)).start()
        DecisionLog(LogSettings(tmp_path)).close()


def write_files(log):
    for n in range(5):
        log.put(entry(n))
        log.flush()


def test_of_writers_that_are_gone_as_much_stays_as_those_at_work_may_hold(tmp_path):
    """Under Ray each replica that is started has a name of its own: nobody else would ever remove what it leaves."""
    settings = LogSettings(tmp_path, max_bytes=200, keep_files=2)
    alive = DecisionLog(settings, writer="alive")
    write_files(alive)
    for n in range(6):
        log = DecisionLog(settings, writer=f"replica{n}")
        write_files(log)
        log.close()
    unknown = tmp_path / file_name("unknown", 1)  # it has no lock: perhaps its writer is at work
    unknown.write_bytes(b"")
    (tmp_path / "decisions-empty.lock").touch()
    log = DecisionLog(settings, writer="new")
    write_files(log)
    found = by_chain(tmp_path)
    assert {name: len(found[name]) for name in ("alive", "new", "unknown")} == {"alive": 2, "new": 2, "unknown": 1}
    gone = [name for name in found if name.startswith("replica")]
    assert gone == [f"replica{n}" for n in range(6 - len(gone), 6)], "the latest"
    held = [file.stat().st_size for name in gone for file in found[name]]
    assert sum(held) <= 2 * 2 * 200 < sum(held) + 2 * max(held)
    assert {file.name for file in tmp_path.glob("*.lock")} == {f"decisions-{w}.lock" for w in ("alive", "new", *gone)}
    for one in (alive, log):
        one.put(entry(9))
        one.close()
    assert not any(verify(list(lines(files)))[0].broken for files in by_chain(tmp_path).values())


def test_writers_that_die_again_and_again_remove_nothing(tmp_path):
    settings = LogSettings(tmp_path, max_bytes=200, keep_files=1)
    for n in range(6):
        DecisionLog(settings, writer=f"replica{n}").close()
    assert len(by_chain(tmp_path)) == 6


def test_who_has_been_at_work_for_a_minute_lets_go_without_a_new_file_too(tmp_path, monkeypatch):
    settings = LogSettings(tmp_path, keep_files=1)
    for n in range(3):
        log = DecisionLog(settings, writer=f"replica{n}")
        log.put(entry(n))
        log.close()
    monkeypatch.setattr("router.decisionlog.writer._SETTLED_S", 0.0)
    DecisionLog(LogSettings(tmp_path, max_bytes=700, keep_files=1), writer="new").close()
    assert list(by_chain(tmp_path)) == ["new", "replica2"]


def test_a_file_that_is_written_is_never_let_go(tmp_path):
    """Not even where one with a higher number lies there: it was begun when its writer died."""
    for seq in (1, 502):
        (tmp_path / file_name("main", seq)).write_bytes(b"")
    log = DecisionLog(LogSettings(tmp_path, max_bytes=200, keep_files=1))
    for n in range(20):
        log.put(entry(n))
        log.flush()
        assert [file.name for file in by_chain(tmp_path)["main"]][-1:] == [Path(log._file.name).name]
    log.close()


def test_a_lock_that_was_removed_while_somebody_waited_for_it_is_none(tmp_path):
    DecisionLog(LogSettings(tmp_path)).close()
    lock = tmp_path / "decisions-main.lock"
    held = _take(lock)
    threading.Timer(0.2, lambda: (lock.unlink(), held.close())).start()
    log = DecisionLog(LogSettings(tmp_path))
    with pytest.raises(OSError, match="another router"):
        DecisionLog(LogSettings(tmp_path))
    log.close()


def test_what_follows_a_line_that_is_none_is_a_chain_that_is_found_and_gone_on_with(tmp_path, caplog):
    log = DecisionLog(LogSettings(tmp_path))
    log.put(entry(1))
    log.close()
    (first,) = tmp_path.glob("*.jsonl")
    with first.open("ab") as file:
        file.write(b"junk\n")
    for n in (2, 3):
        log = DecisionLog(LogSettings(tmp_path))
        log.put(entry(n))
        log.close()
    assert "does not end with a record; a new chain begins in" in caplog.text
    of_main, later = chains([tmp_path]).values()
    assert of_main == [first]
    assert [json.loads(line).get("id") for line in lines(later)] == [None, "d2", None, None, "d3", None]
    assert not verify(list(lines(later)))[0].broken


def test_records_that_were_lost_are_told_once_it_can_be_written_again(tmp_path, monkeypatch, caplog):
    dropped = []
    log = DecisionLog(LogSettings(tmp_path), on_drop=lambda: dropped.append(1))
    full, write = [True], DecisionLog._write

    def no_room(self, lines, queued):
        if full[0] and queued:
            raise OSError(28, "No space left on device")
        write(self, lines, queued)

    monkeypatch.setattr(DecisionLog, "_write", no_room)
    for n in range(5):
        log.put(entry(n))
        log.flush()
    full[0] = False
    log.put(entry(6))
    log.flush()
    log.put(entry(7))
    log.close()
    found = [json.loads(line) for line in folder_lines(tmp_path)]
    assert [record.get("id") or record["event"] for record in found] == ["started", "d6", "lost", "d7", "stopped"]
    assert found[2]["records"] == len(dropped) == 5
    assert found[2]["since"] <= found[2]["until"] <= time.time()
    assert caplog.text.count("records are lost from now on") == 1
    assert "it can be written again; 5 records were lost" in caplog.text
    verification, findings = verify(folder_lines(tmp_path))
    assert not verification.broken
    assert "5 records were lost from" in findings[0].text


@pytest.mark.parametrize("previous", [b"junk\n", b'{"prev":"torn', b"\0" * 4096, b""])
def test_a_file_that_was_just_begun_behind_a_damaged_one_keeps_nobody_from_starting(tmp_path, previous):
    (tmp_path / "decisions-main-000000000001.jsonl").write_bytes(previous)
    (tmp_path / "decisions-main-000000000100.jsonl").touch()
    log = DecisionLog(LogSettings(tmp_path))
    log.put(entry(1))
    log.close()
    latest = list(chains([tmp_path]).values())[-1]
    assert not verify(list(lines(latest[-1:])))[0].broken


def test_an_old_file_that_cannot_be_removed_costs_no_record(tmp_path, monkeypatch, caplog):
    def refused(self, missing_ok=False):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refused)
    dropped = []
    log = DecisionLog(LogSettings(tmp_path, max_bytes=500, keep_files=1), on_drop=lambda: dropped.append(1))
    for n in range(20):
        log.put(entry(n))
        log.flush()
    log.close()
    assert verify(folder_lines(tmp_path))[0].decisions == 20
    assert not dropped
    assert "cannot be removed: Operation not permitted" in caplog.text


def test_verify_looks_at_each_line_once_also_while_more_are_written(tmp_path, capsys, monkeypatch):
    log = DecisionLog(LogSettings(tmp_path))
    log.put(entry(1))
    log.flush()
    walk = Verification._line

    def slow(self, number, line):
        if number < 10:
            log.put(entry(number))
            log.flush()
        return walk(self, number, line)

    monkeypatch.setattr(Verification, "_line", slow)
    assert main(["log", "verify", str(tmp_path)]) == 0
    assert "note: the log does not end with a stop" in capsys.readouterr().out
    log.close()


def test_a_record_that_was_made_an_event_is_told_and_breaks_no_command(tmp_path, capsys):
    log = DecisionLog(LogSettings(tmp_path))
    log.put(entry(1))
    log.close()
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"id":"d1"', b'"event":"lost"'))
    assert main(["log", "verify", str(tmp_path)]) == 1
    assert ":2: error: edited" in capsys.readouterr().out
    forged, _ = link(GENESIS, 1, b'{"event":"lost","since":"x","until":1e300}')
    odd, _ = link(GENESIS, 2, b'{"at":"x","id":"y"}')
    file.write_bytes(forged + odd)
    assert main(["log", "verify", str(tmp_path)]) == 1
    assert main(["log", "tail", str(tmp_path)]) == 0
    assert "1 line(s) are no records" in capsys.readouterr().err


def test_tail_shows_as_many_as_are_asked_for_and_a_file_named_twice_once(tmp_path, capsys):
    log = DecisionLog(LogSettings(tmp_path))
    for n in range(5):
        log.put(entry(n))
    log.close()
    for count, shown in (("0", 0), ("2", 2)):
        assert main(["log", "tail", "--json", "-n", count, str(tmp_path)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == shown
    (file,) = tmp_path.glob("*.jsonl")
    assert main(["log", "verify", str(tmp_path), str(file)]) == 0


# --- records ------------------------------------------------------------------------------------------------------

POLICY = """
kind: Policy
sensitivity: {default: public}
headers: [x-team]
constraints: [{name: jp, match: {labels: {where: jp}}, require: {region: "jp-*"}}]
rules:
  - {name: night, match: {time: {between: "22:00-06:00"}}, split: {weights: {edge: 1, cloud: 2}, sticky: session}}
  - {name: day, objective: {latency: {weight: 0.3}, cost: {weight: 0.5}, carbon: {weight: 0.2}}}
budgets: [{name: b, each: tenant, usd: 5, per: day}]
"""
POWERED = THREE_TIERS.replace("    tier:", "    energy: {active_w: 300}\n    tier:")
COMPILED = compile_text(POWERED + "---" + POLICY)
numbers = st.floats(0.001, 1e6)
situations = st.builds(
    lambda latency, ttft, down, in_flight, spent, now, growth, busy, back, g_per_kwh: replace(
        idle(COMPILED, **({"edge": "ejected, for 3 s more"} if down else {})),
        latency_ms=latency,
        ttft_ms=ttft,
        in_flight=in_flight,
        spent={(0, "t"): spent} if spent else {},
        now=now,
        growth=growth,
        busy=busy,
        back_in_s=back,
        g_per_kwh=g_per_kwh,
    ),
    st.tuples(*[st.none() | numbers] * 3),
    st.tuples(*[st.none() | numbers] * 3) | st.just(()),
    st.booleans(),
    st.tuples(*[st.integers(0, 400)] * 3),
    st.none() | numbers,
    st.floats(1.7e9, 1.8e9),
    st.tuples(*[st.none() | st.tuples(numbers, numbers)] * 3) | st.just(()),
    st.tuples(*[st.booleans()] * 3) | st.just(()),
    st.tuples(*[st.sampled_from([0.0, 3.5, 60.0])] * 3),
    st.tuples(*[st.just(0.0) | numbers] * 3) | st.just(()),
)
asked = st.builds(
    lambda **facts: replace(request(), headers={"x-team": "視覚"}, entities=frozenset({"EMAIL_ADDRESS"}), **facts),
    id=st.text("abc-", min_size=1, max_size=4),
    tenant=st.sampled_from(["t", "anonymous"]),
    label=st.integers(0, 3),
    tokens_in=st.integers(0, 5000),
    deadline_ms=st.none() | numbers,
    stream=st.booleans(),
    session=st.sampled_from(["", "s1"]),
    labels=st.sampled_from([{}, {"where": "jp"}]),
    masked_label=st.none() | st.integers(0, 3),
)


def decided(one, snapshot, seed):
    decision = decide(one, snapshot, COMPILED, seed)
    return Decided("d-1", one, Label(one.label, (("floor", 0),), {}), snapshot, decision, COMPILED)


@settings(max_examples=200)
@given(asked, situations, st.integers(0, 3))
def test_every_decision_can_be_made_again_from_its_line_bit_for_bit(one, snapshot, seed):
    made = decided(one, snapshot, seed)
    line, _ = link(GENESIS, 1, msgspec.json.encode(as_record(made, Outcome("ok", 1, 1.5, "edge"))))
    record, intact = unlink(line)
    assert intact
    again = replay(record, COMPILED)
    assert again.differences == ()
    assert again.decision == made.decision


def test_a_name_that_a_caller_invents_is_not_logged():
    one = replace(
        request(model="my secret prompt"), labels={}, protocol="oip", route="/v2/models/my secret prompt/infer"
    )
    made = decided(one, idle(COMPILED), 0)
    line, _ = link(GENESIS, 1, msgspec.json.encode(as_record(made, None)))
    assert b"secret" not in line
    assert replay(unlink(line)[0], COMPILED).differences == ()


def test_a_rule_for_a_model_that_nobody_serves_is_no_difference():
    policy = compile_text(
        THREE_TIERS + "---\nkind: Policy\nrules: [{name: gpt, match: {model: 'gpt-*'}}, {name: rest}]\n"
    )
    one = request(model="gpt-9")
    snapshot = idle(policy)
    decision = decide(one, snapshot, policy, 0)
    made = Decided("d-1", one, Label(one.label, (("floor", 0),), {}), snapshot, decision, policy)
    line, _ = link(GENESIS, 1, msgspec.json.encode(as_record(made, None)))
    record, _ = unlink(line)
    assert (record["decision"]["rule"], record["decision"]["refusal"]) == ("gpt", "model_not_found")
    assert replay(record, policy).differences == ()


# --- the commands -------------------------------------------------------------------------------------------------


def served(start_router, tmp_path, **settings):
    return start_router(
        THREE_TIERS + "---\nkind: Policy\nsensitivity: {default: public}\n",
        decision_log=LogSettings(tmp_path / "log"),
        **settings,
    )


def test_from_a_request_to_its_line_and_back(start_router, tmp_path, capsys):
    router = served(start_router, tmp_path)
    reply = router.chat("my secret prompt", {"x-data-sensitivity": "confidential"})
    decision_id = reply.headers["x-pointsman-decision"]
    router.stop()
    router.join()
    config = str(next(tmp_path.glob("config*.yaml")))
    log = str(tmp_path / "log")
    assert main(["log", "verify", log]) == 0
    assert "intact; 1 decisions in 1 file(s)" in capsys.readouterr().out
    assert main(["log", "tail", log]) == 0
    line = capsys.readouterr().out
    assert decision_id in line
    assert "confidential default -> edge ok" in line
    assert main(["log", "tail", "--json", log]) == 0
    copy = tmp_path / "copy.jsonl"
    copy.write_text(capsys.readouterr().out)
    assert main(["log", "verify", str(copy)]) == 0
    assert "intact; 1 decisions" in capsys.readouterr().out
    assert main(["explain", config, "--replay", decision_id, "--log", log]) == 0
    assert "the same as logged, to the bit" in capsys.readouterr().out
    assert b"secret prompt" not in b"".join(folder_lines(tmp_path / "log"))


def test_replay_needs_the_policy_that_decided(start_router, tmp_path, capsys):
    router = served(start_router, tmp_path)
    decision_id = router.chat().headers["x-pointsman-decision"]
    router.stop()
    router.join()
    config = next(tmp_path.glob("config*.yaml"))
    config.write_text(config.read_text().replace("prior_ms: 50", "prior_ms: 51"))
    log = str(tmp_path / "log")
    assert main(["explain", str(config), "--replay", decision_id, "--log", log]) == 1
    assert "give the files as they were then" in capsys.readouterr().err
    assert main(["explain", str(config), "--replay", "nope", "--log", log]) == 1
    assert main(["explain", str(config), "--replay", "nope"]) == 2


def test_verify_names_file_and_line(start_router, tmp_path, capsys):
    router = served(start_router, tmp_path)
    for _ in range(5):
        router.chat()
    router.stop()
    router.join()
    (file,) = (tmp_path / "log").glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"label":"public"', b'"label":"secret"', 1))
    assert main(["log", "verify", str(tmp_path / "log")]) == 1
    out = capsys.readouterr().out
    assert f"{file}:2: error: edited: record 2" in out
    assert "BROKEN" in out
    assert main(["log", "verify", str(tmp_path / "log"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["intact"] is False


def test_a_line_that_does_not_fit_whole_is_taken_back(tmp_path):
    dropped = []
    log = DecisionLog(LogSettings(tmp_path), on_drop=lambda: dropped.append(1))
    file = log._file

    class Short:
        def write(self, data):
            return file.write(data[: len(data) // 2])

        def __getattr__(self, name):
            return getattr(file, name)

    log._file = Short()
    for n in range(5):
        log.put(entry(n))
    log.flush()
    log._file = file
    for n in range(3):
        log.put(entry(n))
    log.close()
    verification, findings = verify(folder_lines(tmp_path))
    assert (verification.broken, verification.decisions, len(dropped)) == (False, 3, 5)
    assert [finding.text.split(" from")[0] for finding in findings] == ["5 records were lost"]


def test_misuse(tmp_path, capsys):
    assert main(["log", "verify", str(tmp_path / "nope")]) == 2
    assert main(["log", "tail", str(tmp_path)]) == 2


def test_tail_follows_into_the_next_file(tmp_path):
    log = DecisionLog(LogSettings(tmp_path, max_bytes=1000))
    made = decided(replace(request(), labels={}), idle(COMPILED), 0)
    log.put(msgspec.json.encode(as_record(made, Outcome("ok", 2, 1.5, "edge", cost_usd=0.5))))
    log.flush()
    process = subprocess.Popen(
        [sys.executable, "-m", "router", "log", "tail", "-f", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert "edge after 2 attempts ok 2 ms $0.500000" in process.stdout.readline()
    for _ in range(10):
        log.put(msgspec.json.encode(as_record(made, Outcome("ok", 1, 1.5, "onprem"))))
        log.flush()
    for _ in range(10):
        assert "-> onprem" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) in (130, -signal.SIGINT)
    process.stdout.close()
    log.close()
    assert len(list(tmp_path.glob("*.jsonl"))) > 1
