"""Measured energy, from folders written as the kernel's are."""

from __future__ import annotations

import time

import pytest

from router.telemetry.rapl import ProcessShare, Rapl


class Powercap:
    """/sys/class/powercap, which holds links to folders elsewhere."""

    def __init__(self, path):
        self.root, self._devices = path / "class", path / "devices"
        self.root.mkdir()

    def domain(self, folder, name, energy_uj, largest=262143328850):
        device = self._devices / folder
        device.mkdir(parents=True)
        (device / "name").write_text(f"{name}\n")
        (self.root / folder).symlink_to(device)
        self.set(folder, energy_uj)
        if largest is not None:
            (device / "max_energy_range_uj").write_text(f"{largest}\n")

    def set(self, folder, energy_uj):
        (self._devices / folder / "energy_uj").write_text(f"{energy_uj}\n")

    def hide(self, folder):
        (self._devices / folder / "energy_uj").unlink()


@pytest.fixture
def powercap(tmp_path):
    return Powercap(tmp_path)


def test_joules_since_the_last_call_over_all_packages(powercap):
    powercap.domain("intel-rapl:0", "package-0", 1_000_000)
    powercap.domain("intel-rapl:1", "package-1", 0)
    rapl = Rapl(powercap.root)
    powercap.set("intel-rapl:0", 3_500_000)
    powercap.set("intel-rapl:1", 250_000)
    assert rapl.read() == 2.75
    assert rapl.read() == 0.0
    powercap.set("intel-rapl:1", 1_250_000)
    assert rapl.read() == 1.0


def test_only_packages_count_and_each_once(powercap):
    powercap.domain("amd-rapl:0", "package-0-die-1", 0)
    powercap.domain("amd-rapl:0:0", "core", 0)
    powercap.domain("intel-rapl:1", "psys", 0)
    powercap.domain("intel-rapl-mmio:0", "package-0", 0)
    powercap.domain("dtpm", "package-0", 0)
    (powercap.root / "intel-rapl").mkdir()  # the control type itself
    rapl = Rapl(powercap.root)
    for folder in ("amd-rapl:0", "amd-rapl:0:0", "intel-rapl:1", "intel-rapl-mmio:0", "dtpm"):
        powercap.set(folder, 1_000_000)
    assert rapl.read() == 1.0


def test_a_counter_that_wraps(powercap):
    powercap.domain("intel-rapl:0", "package-0", 9_000_000, largest=10_000_000)
    powercap.domain("intel-rapl:1", "package-1", 0, largest=10_000_000)
    rapl = Rapl(powercap.root)
    powercap.set("intel-rapl:0", 500_000)
    powercap.set("intel-rapl:1", 500_000)
    assert rapl.read() == 2.0


@pytest.mark.parametrize("largest", [None, 8_000_000])
def test_one_that_goes_back_and_nobody_says_from_where_is_not_guessed(powercap, largest):
    powercap.domain("intel-rapl:0", "package-0", 9_000_000, largest)
    rapl = Rapl(powercap.root)
    powercap.set("intel-rapl:0", 500_000)
    assert rapl.read() is None
    powercap.set("intel-rapl:0", 700_000)
    assert rapl.read() == 0.2


def test_a_counter_that_cannot_be_read_any_more_makes_all_unknown_until_two_readings_after_it(powercap):
    powercap.domain("intel-rapl:0", "package-0", 0)
    powercap.domain("intel-rapl:1", "package-1", 0)
    rapl = Rapl(powercap.root)
    powercap.hide("intel-rapl:1")
    powercap.set("intel-rapl:0", 1_000_000)
    assert rapl.read() is None
    powercap.set("intel-rapl:1", 5_000_000)
    assert rapl.read() is None  # since when, nobody knows
    powercap.set("intel-rapl:1", 6_000_000)
    assert rapl.read() == 1.0


def test_a_counter_that_we_may_not_read(powercap):
    powercap.domain("intel-rapl:0", "package-0", 0)
    powercap.hide("intel-rapl:0")
    (powercap.root / "intel-rapl:0" / "energy_uj").mkdir()  # as root, a test cannot take its own permission away
    rapl = Rapl(powercap.root)
    assert rapl.read() is None


def test_a_package_that_comes_is_not_counted_from_its_beginning(powercap):
    powercap.domain("intel-rapl:0", "package-0", 0)
    rapl = Rapl(powercap.root)
    powercap.domain("intel-rapl:1", "package-1", 7_000_000)
    assert rapl.read() is None
    powercap.set("intel-rapl:1", 8_000_000)
    assert rapl.read() == 1.0


def test_a_machine_without_counters(tmp_path, powercap):
    assert Rapl(tmp_path / "none").read() is None
    assert Rapl(powercap.root).read() is None


def test_rubbish_is_unknown(powercap):
    powercap.domain("intel-rapl:0", "package-0", 0)
    rapl = Rapl(powercap.root)
    powercap.set("intel-rapl:0", "n/a")
    assert rapl.read() is None


# --- our share ----------------------------------------------------------------------------------------------------


def write_proc(root, own, cpu, name="python3"):
    (root / "self").mkdir(exist_ok=True)
    user, system = own
    rest = "S 1 1 1 0 -1 4194560 100 0 0 0"
    (root / "self" / "stat").write_text(f"4711 ({name}) {rest} {user} {system} 90 90 20 0 1 0 100 1000 10\n")
    (root / "stat").write_text(f"cpu  {' '.join(map(str, cpu))}\ncpu0 1 1 1 1 1 1 1 0 0 0\nintr 5\n")


def test_the_share_of_what_was_busy(tmp_path):
    write_proc(tmp_path, (100, 50), (1000, 0, 500, 9000, 100, 0, 0, 70, 0, 0))
    share = ProcessShare(tmp_path)
    # 20 ticks of ours; busy: 50 user, 5 nice, 20 system, 2 irq, 3 softirq. Idle, iowait, steal and guests do not count.
    write_proc(tmp_path, (115, 55), (1050, 5, 520, 19000, 900, 2, 3, 170, 40, 1))
    assert share.read() == 20 / 80
    assert share.read() == 0.0  # nothing was busy


def test_the_name_of_a_program_may_hold_anything(tmp_path):
    cpu = [0] * 10
    write_proc(tmp_path, (10, 0), cpu, name="a) 1 (b c")
    share = ProcessShare(tmp_path)
    write_proc(tmp_path, (20, 0), [40, *cpu[1:]], name="a) 1 (b c")
    assert share.read() == 0.25


def test_clocks_that_disagree_by_a_tick_give_no_share_beyond_one(tmp_path):
    write_proc(tmp_path, (10, 0), (10, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    share = ProcessShare(tmp_path)
    write_proc(tmp_path, (13, 0), (12, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    assert share.read() == 1.0


def test_without_proc_it_is_unknown(tmp_path):
    share = ProcessShare(tmp_path)
    assert share.read() is None
    write_proc(tmp_path, (10, 0), (10, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    assert share.read() is None
    write_proc(tmp_path, (11, 0), (14, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    assert share.read() == 0.25
    (tmp_path / "stat").write_text("rubbish\n")
    assert share.read() is None


def test_here_work_raises_our_own_share():
    share = ProcessShare()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    found = share.read()
    assert found is not None
    assert 0 < found <= 1
