"""`jobsvc doctor`: the machine and the store, on good and on bad scenes."""

from __future__ import annotations

import fcntl
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobsvc.cli.checks import machine, storage
from tests.cli.doctor_scene import House, told
from tests.faults import files


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# -- the machine -----------------------------------------------------------------------------------------------------


def test_kernel_and_python(house: House) -> None:
    told(machine.kernel(house.scene()), "pass", "Linux")
    told(machine.python(house.scene()), "pass", "cpython 3.")


def test_guard(house: House) -> None:
    told(machine.guard(house.scene()), "pass")
    scene = house.scene()
    scene.pidfd_open = None
    told(machine.guard(scene), "fail", "pidfd")

    def forbidden(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    scene.pidfd_open = forbidden
    told(machine.guard(scene), "fail", "Operation not permitted", "5.3")
    scene = house.scene()
    (house.proc / "self/environ").unlink()
    told(machine.guard(scene), "fail", "mount /proc")


def test_open_files(house: House) -> None:
    """Of the running daemon, when there is one."""
    scene = house.with_daemon()
    told(machine.open_files(scene), "pass", "65536")
    house.file("77/limits", "Max open files            1024    4096    files\n")
    told(machine.open_files(scene), "warn", "819 connections", "ulimit -n 25000")
    house.file("77/limits", "Max open files            256    4096    files\n")
    told(machine.open_files(scene), "fail", "256", "LimitNOFILE")
    house.file("77/limits", "Max open files            unlimited    unlimited    files\n")
    told(machine.open_files(scene), "pass")
    assert machine.open_files(house.scene()).status in ("pass", "warn", "fail")


def test_clock(house: House) -> None:
    scene = house.scene()
    told(machine.clock(scene), "pass")
    path = house.private("jobsvc.db")
    told(machine.clock(scene), "pass", "last write")
    scene.now = lambda: path.stat().st_mtime - 3600
    told(machine.clock(scene), "warn", "3600 s from now", "NTP")
    scene.now = lambda: 0.0
    told(machine.clock(scene), "fail", "years behind")


@pytest.mark.parametrize(
    ("version", "status"),
    [("26.10.0", "pass"), ("27.1.0rc1", "pass"), ("26.4.0", "fail"), ("9.0", "fail"), (None, "fail")],
)
def test_twisted(house: House, version: str | None, status: str) -> None:
    scene = house.scene()
    scene.installed = {"twisted": version}.get
    told(machine.twisted(scene), status)


def test_http2(house: House) -> None:
    """It takes both libraries."""
    scene = house.scene()
    for there, status in ((set[str](), "pass"), ({"h2"}, "pass"), ({"h2", "priority"}, "fail")):
        scene.importable = there.__contains__
        told(machine.http2(scene), status)


def test_reactor(house: House) -> None:
    told(machine.reactor(house.scene()), "n/a")
    scene = house.with_daemon()
    told(machine.reactor(scene), "pass")
    house.file("77/cmdline", "twistd\0--reactor=select\0jobsvc\0")
    told(machine.reactor(scene), "warn", "--reactor=select")


# -- the store -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "threads", "status", "word"),
    [
        ((3, 54, 1), 3, "pass", "3.54.1"),
        ((3, 51, 3), 1, "pass", "3.51.3"),
        ((3, 51, 2), 3, "pass", "two writers; jobsvc has one"),
        ((3, 34, 9), 3, "fail", "3.35.0 or later"),
        ((3, 54, 1), 0, "fail", "without threads"),
    ],
)
def test_sqlite(house: House, version: tuple[int, int, int], threads: int, status: str, word: str) -> None:
    """The rule of the WAL-reset race: fixed in 3.51.3, harmless before with one writer."""
    scene = house.scene()
    scene.sqlite_version, scene.sqlite_threads = version, cast("Any", threads)
    told(storage.sqlite(scene), status, word)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("ext4", "pass"),
        ("xfs", "pass"),
        ("nfs4", "warn"),
        ("cifs", "warn"),
        ("fuse.sshfs", "warn"),
        ("tmpfs", "warn"),
    ],
)
def test_file_system(house: House, kind: str, status: str) -> None:
    """The mount that is nearest to the folder counts, also one with a blank in its name."""
    point = house.root / "a disk"
    (point / "data").mkdir(parents=True)
    line = f"3 1 0:5 / {house.root}/a\\040disk rw,relatime shared:1 - {kind} server:/x rw\n"
    house.file("self/mountinfo", (house.proc / "self/mountinfo").read_text() + line)
    told(storage.file_system(house.scene(data_dir=str(point / "data"))), status, kind, str(point))
    told(storage.file_system(house.scene(data_dir=str(point / "not/yet/there"))), status, kind)
    told(storage.file_system(house.scene()), "pass", "xfs")
    told(storage.file_system(house.scene(durability="memory")), "n/a")


@pytest.mark.parametrize(
    ("free", "inodes", "status"),
    [
        (2**31, 10**6, "pass"),
        (2**29, 10**6, "warn"),
        (2**20, 10**6, "fail"),
        (2**31, 10, "fail"),
        (2**31, 0, "pass"),
    ],
)
def test_free_space(house: House, free: int, inodes: int, status: str) -> None:
    scene = house.scene()
    found = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_files=inodes, f_favail=inodes)
    scene.statvfs = lambda path: cast("Any", found)
    told(storage.free_space(scene), status)


def test_fsync(house: House) -> None:
    """Figures are told; a slow disk is worth a look, one that fails is a failure; nothing is left behind."""
    scene = house.scene()
    ticks = iter(range(1_000))
    scene.elapsed = lambda: next(ticks) / 1000
    told(storage.fsync(scene), "pass", "1 ms")
    scene.elapsed = lambda: next(ticks) / 2
    told(storage.fsync(scene), "warn", "500 ms")

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    scene.fsync = broken
    told(storage.fsync(scene), "fail", "Input/output error")
    assert list(house.data.iterdir()) == []
    told(storage.fsync(house.scene(data_dir=str(house.root / "none"))), "n/a")


def test_database(house: House) -> None:
    """Whole, left open, damaged, of another program, not there, in use."""
    file = house.data / "jobsvc.db"
    told(storage.database(house.scene()), "n/a", "first start")
    files.closed(file)
    told(storage.database(house.scene()), "pass", "whole")
    told(storage.database(house.with_daemon()), "n/a", "in use")
    told(storage.database(house.scene(durability="memory")), "n/a")
    files.overwrite_a_page(file)
    told(storage.database(house.scene()), "fail", "damaged", "jobsvc db check")
    file.unlink()
    files.crashed(file, 3)
    told(storage.database(house.scene()), "pass", "not closed")


def test_database_of_another_program(house: House) -> None:
    file = house.data / "jobsvc.db"
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE t (x)")
    db.close()
    told(storage.database(house.scene()), "fail", "another program")


def test_lock(house: House) -> None:
    told(storage.lock(house.scene()), "pass", "nobody")
    told(storage.lock(house.with_daemon()), "pass", "77")
    scene = house.scene()
    scene.daemon_pid = 78
    told(storage.lock(scene), "warn", "78", "container")
    scene.daemon_pid = 0
    told(storage.lock(scene), "warn", "fuser")
    with open(house.private("lock"), "r+") as held:  # noqa: PTH123 - to be locked
        fcntl.flock(held, fcntl.LOCK_EX)
        assert house.scene().daemon_pid == 0
    assert house.scene().daemon_pid is None
    (house.data / "lock").unlink()
    (house.data / "lock").symlink_to("lock")
    told(storage.lock(house.scene()), "fail", "symbolic links", "as root")
