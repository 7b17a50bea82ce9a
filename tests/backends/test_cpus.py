"""How many CPUs there are for us, and how threads share them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.cpus import Threads, usable_cpus


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a root with these files, on a machine of so many CPUs."""

    def make(cpus, **files):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)))
        for path, text in files.items():
            file = tmp_path / path.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


def test_without_a_quota_it_is_those_of_the_affinity(machine):
    assert usable_cpus(machine(6)) == 6
    assert usable_cpus() == 6


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 8), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_the_quota_of_cgroup_v2_in_whole_cpus(machine, quota, cpus):
    group = {"sys__fs__cgroup__pod__box__cpu.max": quota + "\n"}
    assert usable_cpus(machine(8, proc__self__cgroup="0::/pod/box\n", **group)) == cpus


def test_the_tightest_quota_of_all_groups_above_holds(machine):
    groups = {
        "sys__fs__cgroup__pod__box__cpu.max": "max 100000\n",
        "sys__fs__cgroup__pod__cpu.max": "300000 100000\n",
        "sys__fs__cgroup__cpu.max": "600000 100000\n",
    }
    assert usable_cpus(machine(8, proc__self__cgroup="0::/pod/box\n", **groups)) == 3


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "cpus"), [("-1", 8), ("200000", 2)])
def test_the_quota_of_cgroup_v1(machine, mount, quota, cpus):
    # A container sees its own group at the mount, and the path that the host has for it.
    files = {
        f"sys__fs__cgroup__{mount}__cpu.cfs_quota_us": quota + "\n",
        f"sys__fs__cgroup__{mount}__cpu.cfs_period_us": "100000\n",
    }
    groups = "5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n0::/\n"
    assert usable_cpus(machine(8, proc__self__cgroup=groups, **files)) == cpus


def test_files_that_cannot_be_understood_mean_no_quota(machine):
    files = {"sys__fs__cgroup__cpu.max": "a lot\n"}
    assert usable_cpus(machine(3, proc__self__cgroup="0::/\n", **files)) == 3


@given(st.integers(1, 256), st.integers(1, 1000))
def test_threads_never_exceed_the_cpus(cpus, most_at_once):
    threads = Threads.shared(cpus, most_at_once)
    assert 1 <= threads.workers <= most_at_once
    assert threads.each >= 1
    assert threads.workers * threads.each <= cpus
    assert cpus < threads.workers * (threads.each + 1)  # and one more for each would


@pytest.mark.parametrize(("cpus", "most_at_once", "shared"), [(8, 64, (8, 1)), (8, 1, (1, 8)), (8, 3, (3, 2))])
def test_as_many_runs_as_there_are_cpus_and_equal_parts_where_there_are_fewer(cpus, most_at_once, shared):
    assert Threads.shared(cpus, most_at_once) == Threads(*shared)
