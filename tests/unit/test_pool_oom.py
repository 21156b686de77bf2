"""Kills by the kernel for want of memory are told by its counters; here from recorded files of /proc and cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from jobsvc.pool.oom import GROUPS_MAX, REFRESH_S, Counters, OomWatch

V1 = "31 23 0:35 {inside} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
V1_OTHER = "32 23 0:36 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu"
V2 = "41 31 0:38 {inside} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = "42 31 0:39 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"


class Machine:
    """A recorded /proc and /sys below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.vmstat(0)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def vmstat(self, kills: int) -> None:
        self.write("/proc/vmstat", f"nr_free_pages 5\noom_kill {kills}\n")

    def member(self, cgroup: str, *mounts: str, inside: str = "/") -> None:
        self.write("/proc/self/cgroup", cgroup)
        self.write("/proc/self/mountinfo", "\n".join(mounts).format(inside=inside) + "\n")

    def v1(self, group: str, kills: int) -> None:
        self.write(f"{group}/memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")

    def v2(self, group: str, kills: int) -> None:
        self.write(
            f"{group}/memory.events", f"low 0\nhigh 0\nmax 17\noom 3\noom_kill {kills}\noom_group_kill 9\n"
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_version_1_counts_the_group_and_those_below(machine: Machine) -> None:
    """There a kill is counted in the group of the killed alone."""
    machine.member("5:cpu:/\n4:memory:/service/jobs\n0::/\n", V1_OTHER, V1, HYBRID)
    machine.v1("/sys/fs/cgroup/memory/service", 50)
    machine.v1("/sys/fs/cgroup/memory/service/jobs", 2)
    machine.v1("/sys/fs/cgroup/memory/service/jobs/worker", 3)
    counters = Counters(machine.root)
    assert counters.read() == 5
    assert counters.source.endswith("/memory/service/jobs/memory.oom_control")


def test_version_2_counts_them_itself(machine: Machine) -> None:
    machine.member("0::/system.slice/jobs.service\n", V2)
    machine.v2("/sys/fs/cgroup/system.slice/jobs.service", 4)
    machine.v2("/sys/fs/cgroup/system.slice/jobs.service/below", 3)
    assert Counters(machine.root).read() == 4


@pytest.mark.parametrize("version", [1, 2])
def test_in_a_container_paths_may_be_those_of_the_host(machine: Machine, version: int) -> None:
    """Its own cgroup is what is mounted, whatever the path says."""
    if version == 1:
        machine.member("4:memory:/docker/abc\n", V1, inside="/docker/abc")
        machine.v1("/sys/fs/cgroup/memory", 6)
    else:
        machine.member("0::/docker/abc\n", V2, inside="/docker/abc")
        machine.v2("/sys/fs/cgroup", 6)
    assert Counters(machine.root).read() == 6


def test_the_machines_counter_where_there_is_no_other(machine: Machine) -> None:
    """No memory controller, no /proc/self/cgroup, a prefix that may move workers, too many groups."""
    machine.vmstat(8)
    assert Counters(machine.root).read() == 8
    machine.member("5:cpu:/\n0::/\n", V1_OTHER, HYBRID)
    assert Counters(machine.root).read() == 8
    machine.member("4:memory:/\n", V1)
    machine.v1("/sys/fs/cgroup/memory", 1)
    assert Counters(machine.root).read() == 1
    assert Counters(machine.root, anywhere=True).read() == 8
    for n in range(GROUPS_MAX):
        machine.v1(f"/sys/fs/cgroup/memory/{n}", 1)
    assert Counters(machine.root).read() == 8


def test_no_counter_at_all_means_no_such_kill(tmp_path: Path) -> None:
    watch = OomWatch(Clock(), lambda: Counters(tmp_path))
    watch.start()
    assert not watch.killed()


def test_each_count_serves_for_one_death(machine: Machine) -> None:
    """A SIGKILL without a count of its own was somebody else's."""
    machine.vmstat(5)
    watch = OomWatch(Clock(), lambda: Counters(machine.root))
    assert not watch.killed(), "it has not started"
    watch.start()
    assert not watch.killed(), "those were before"
    machine.vmstat(7)
    assert [watch.killed() for _ in range(3)] == [True, True, False]


def test_a_count_serves_for_a_while_only(machine: Machine) -> None:
    """A kill that hit no worker, as of a child of one, is forgotten: a later SIGKILL is not taken for it."""
    clock = Clock()
    watch = OomWatch(clock, lambda: Counters(machine.root))
    watch.start()
    machine.vmstat(2)
    clock.advance(REFRESH_S)
    assert watch.killed(), "it may take a moment until a death is seen"
    clock.advance(REFRESH_S)
    assert not watch.killed()
    machine.vmstat(0)
    clock.advance(REFRESH_S)
    machine.vmstat(1)
    assert watch.killed(), "a cgroup had gone, and its count with it"
    watch.stop()
    assert clock.getDelayedCalls() == []
