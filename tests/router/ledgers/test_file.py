"""The ledger in a file: nothing that was granted is forgotten, whatever happens to the process or the disk."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from router.ledgers import file as module
from router.ledgers.central import LedgerLost
from router.ledgers.file import BadLedger, FileLedger
from router.ledgers.leases import GRACE_S, Report

END = 2e9


def report(used, wanted=0.0, account="a", end=END):
    return Report(account, end, 1000.0, used, 0.0, wanted, 0.0, 0.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger"


def close(ledger):
    asyncio.run(ledger.aclose())


def test_it_goes_on_where_it_stopped(path):
    ledger = FileLedger(path)
    ledger.fold("r", 1, [report(5, 10), report(7, account="b")])
    cells = dict(ledger._cells)
    close(ledger)
    again = FileLedger(path)
    assert again._cells == cells
    close(again)


KILLED = """
import sys
from router.ledgers.file import FileLedger
from router.ledgers.leases import Report
from pathlib import Path
ledger, used = FileLedger(Path(sys.argv[1])), 0
while True:
    used += 1
    (grant,) = ledger.fold("r", used, [Report("a", 2e9, 1e9, used, 0, 10, 0, 0)])
    print(grant.granted, flush=True)
"""


def test_kill_9_forgets_nothing_that_was_granted(path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )  # fmt: skip
    granted = [float(process.stdout.readline()) for _ in range(50)]
    os.kill(process.pid, signal.SIGKILL)
    granted += [float(line) for line in process.stdout if line.endswith("\n")]
    process.wait()
    ledger = FileLedger(path)
    assert ledger._cells["a", 2e9].committed >= granted[-1]
    close(ledger)


def test_an_unfinished_line_is_cut_and_a_damaged_one_is_told(path):
    ledger = FileLedger(path)
    ledger.fold("r", 1, [report(5)])
    close(ledger)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:7])
    ledger = FileLedger(path)
    ledger.fold("r", 2, [report(6)])
    close(ledger)
    assert path.read_bytes().count(b"\n") == 2
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(BadLedger, match="line 1"):
        FileLedger(path)


def test_a_file_has_one_owner(path):
    ledger = FileLedger(path)
    with pytest.raises(BadLedger, match="another process"):
        FileLedger(path)
    close(ledger)
    close(FileLedger(path))


def test_it_stays_small_and_compacting_changes_nothing(path, monkeypatch):
    monkeypatch.setattr(module, "_COMPACT_BYTES", 2000)
    ledger = FileLedger(path)
    for i in range(1, 200):
        ledger.fold("r", i, [report(i), report(i, account="b")])
    cells = dict(ledger._cells)
    assert path.stat().st_size < 5000
    with pytest.raises(BadLedger):  # the new file is locked as well
        FileLedger(path)
    close(ledger)
    again = FileLedger(path)
    assert again._cells == cells
    close(again)


def test_a_disk_that_is_full_grants_nothing_and_leaves_no_half_line(path, monkeypatch):
    ledger = FileLedger(path)
    ledger.fold("r", 1, [report(5)])
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:9]))
    with pytest.raises(LedgerLost):
        ledger.fold("r", 2, [report(6, 10)])
    monkeypatch.undo()
    ledger.fold("r", 3, [report(7)])
    close(ledger)
    again = FileLedger(path)
    assert again._cells["a", END].used == 7
    close(again)


def test_what_is_long_over_is_forgotten():
    now = [0.0]
    ledger = FileLedger(None, lambda: now[0])
    for _ in range(50):
        ledger.fold("r", 1, [report(1, end=now[0] + 1)])
        now[0] += 10
    assert len(ledger._cells) <= GRACE_S / 10 + 1
