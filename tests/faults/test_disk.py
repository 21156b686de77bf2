"""What happens to a running daemon when its disk fails, is full, cannot be written or is locked by another."""

from __future__ import annotations

import re
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import httpx2
import pytest

from tests.faults.files import fill, tmpfs
from tests.faults.tracing import failing
from tests.integration.daemon import Daemon, WheelEnv, running

if TYPE_CHECKING:
    from tests.integration.conftest import StartDaemon

TASKS = """
from jobsvc import task

@task
def greet(name: str = "you") -> str:
    return "hello " + name

@task(executor="process")
def gated() -> str:
    from pathlib import Path
    from time import sleep
    while not Path("gate").exists():
        sleep(0.01)
    print("the gate is open")
    return "through"
"""
FATAL_EXIT_S = 20.0
"""A daemon whose disk has failed ends in a moment: it neither drains nor waits for attempts."""
READY_DEADLINE_S = 30.0
HELD = 5
"""Jobs accepted before the fault; each must be there after it."""


def accepted(daemon: Daemon) -> list[str]:
    """Some jobs that were acknowledged, done, and some that wait."""
    done = [daemon.submit("greet", str(i))["id"] for i in range(HELD)]
    for job_id in done:
        daemon.succeeded(job_id)
    later = [daemon.submit("greet", str(i), delay_s=3600)["id"] for i in range(HELD)]
    return done + later


def status(daemon: Daemon, method: str, path: str, body: object = None) -> int | None:
    """The status of a reply; None when the daemon ended before it answered."""
    try:
        return daemon.http.request(method, path, json=body).status_code
    except httpx2.TransportError:
        return None


def tried(daemon: Daemon) -> int | None:
    """The status of one more submit."""
    return status(daemon, "POST", "/v1/jobs", {"task": "greet"})


def whole(daemon: Daemon, jobs: list[str]) -> None:
    """The daemon starts again on its data, all that was accepted is there, and it works."""
    daemon.start()
    assert "ended without closing it; the file was checked" in daemon.log
    found = daemon.get("/v1/jobs", params={"id": ",".join(jobs)}).json()
    assert [job["id"] for job in found["jobs"]] == jobs
    assert [job["state"] for job in found["jobs"]] == ["succeeded"] * HELD + ["scheduled"] * HELD
    assert daemon.succeeded(daemon.submit("greet", "again")["id"]) == "hello again"
    assert daemon.stop() == 0
    with closing(sqlite3.connect(daemon.data_dir / "jobsvc.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize(
    ("calls", "error"),
    [("fsync,fdatasync", "EIO"), ("pwrite64", "EIO")],
    ids=["flush", "write"],
)
def test_a_write_that_fails_ends_the_daemon(start_daemon: StartDaemon, calls: str, error: str) -> None:
    """F35: nothing is acknowledged after it, nothing folded into the file; status not 0; the next start has it all."""
    daemon = start_daemon(TASKS)
    jobs = accepted(daemon)
    file = daemon.data_dir / "jobsvc.db"
    before = file.read_bytes()
    with failing(daemon, calls, error):
        assert tried(daemon) in {None, 500, 503}
        assert tried(daemon) in {None, 500, 503}
        assert daemon.wait_exit(FATAL_EXIT_S) == 1
    assert file.read_bytes() == before
    assert Path(f"{file}-wal").stat().st_size > 0
    assert re.search(
        r"jobsvc: the database .*jobsvc\.db has failed: disk I/O error; the next start checks it", daemon.log
    )
    daemon.wait_no_orphans()
    whole(daemon, jobs)


def test_a_read_that_fails_ends_the_daemon(start_daemon: StartDaemon) -> None:
    """F35: what cannot be read must not be passed off as missing; restart and recovery decide."""
    daemon = start_daemon(TASKS)
    jobs = accepted(daemon)
    with failing(daemon, "pread64", "EIO"):
        assert status(daemon, "GET", "/v1/jobs") in {None, 500, 503}
        assert daemon.wait_exit(FATAL_EXIT_S) == 1
    daemon.wait_no_orphans()
    whole(daemon, jobs)


def test_a_write_cut_short_ends_the_daemon(start_daemon: StartDaemon) -> None:
    """F35: half a page went to the log before the kernel refused the rest; the next start takes only what was whole."""
    daemon = start_daemon(TASKS)
    jobs = accepted(daemon)
    log = Path(f"{daemon.data_dir / 'jobsvc.db'}-wal")
    _, most = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (log.stat().st_size + 2000, most))
    assert tried(daemon) in {None, 500, 503}
    assert daemon.wait_exit(FATAL_EXIT_S) == 1
    assert log.stat().st_size % 4096 != 32
    daemon.wait_no_orphans()
    whole(daemon, jobs)


def remount(folder: Path, how: str) -> None:
    """Make a mounted file system read-only (`ro`) or writable (`rw`)."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def ready_again(daemon: Daemon) -> None:
    """Writes are taken again and the daemon says it is well."""
    assert tried(daemon) == 201
    daemon.wait_for("/readyz", daemon.is_ready, READY_DEADLINE_S)


def disk_check(daemon: Daemon) -> dict[str, object]:
    """What /readyz says of the disk."""
    reply = daemon.get("/readyz", params={"verbose": "1"})
    (check,) = (check for check in reply.json()["checks"] if check["check"] == "disk")
    return {"status": reply.status_code, **check}


def test_a_disk_that_becomes_read_only(start_daemon: StartDaemon) -> None:
    """F34: writes are 503 with the reason, reads go on, health is red, the daemon stays; then it goes on by itself."""
    daemon = start_daemon(TASKS)
    jobs = accepted(daemon)
    with failing(daemon, "pwrite64", "EROFS"):
        for _ in range(3):
            refused = daemon.post("/v1/jobs", json={"task": "greet"})
            assert refused.status_code == 503
            problem = refused.json()
            assert (problem["code"], problem["retry_safe"]) == ("overloaded", True)
            assert "read-only; nothing of this request was stored" in problem["detail"]
        assert [daemon.job(job_id)["id"] for job_id in jobs] == jobs
        check = disk_check(daemon)
        assert (check["status"], check["ok"]) == (503, False)
        assert "read-only" in str(check["detail"])
        assert daemon.get("/livez").status_code == 200
    ready_again(daemon)
    assert daemon.stop() == 0


@pytest.fixture
def small(wheel_env: WheelEnv, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon, not started, whose data directory is a small file system of its own."""
    daemon = Daemon(wheel_env, tmp_path)
    daemon.data_dir.mkdir()
    daemon.write_tasks(TASKS)
    with tmpfs(daemon.data_dir, "5m"):
        yield daemon


def test_start_on_a_read_only_disk(small: Daemon) -> None:
    """F34: one line that names the directory and says why, status not 0, no traceback; made writable it starts."""
    with running(small, TASKS) as daemon:
        assert daemon.stop() == 0
        remount(daemon.data_dir, "ro")
        daemon.launch()
        assert daemon.wait_exit() == 1
        assert re.search(
            r"jobsvc: data directory .*/data cannot be written \(Read-only file system\)", daemon.log
        )
        assert "Traceback" not in daemon.log
        remount(daemon.data_dir, "rw")
        daemon.start()


def test_a_full_disk(small: Daemon) -> None:
    """F32: 507 and no job; reads go on; what ends meanwhile keeps its log and its result until there is space; nothing
    is lost.
    """  # fmt: skip
    with running(small, TASKS) as daemon:
        jobs = accepted(daemon)
        gated = daemon.submit("gated")["id"]
        daemon.in_state(gated, "running")
        ballast = fill(daemon.data_dir)
        refused = fill_up(daemon)
        assert refused["code"] == "disk_full"
        before = len(daemon.get("/v1/jobs", params={"limit": 1000}).json()["jobs"])
        assert tried(daemon) == 507
        daemon.open_gate()
        assert len(daemon.get("/v1/jobs", params={"limit": 1000}).json()["jobs"]) == before
        assert [daemon.job(job_id)["id"] for job_id in jobs] == jobs
        assert disk_check(daemon)["ok"] is False
        ballast.unlink()
        assert daemon.succeeded(gated) == "through"
        *_, said, ended, end = daemon.events(gated)
        assert (said["kind"], said["data"]["message"], end["kind"]) == ("log", "the gate is open", "end")
        assert (ended["kind"], ended["data"]["state"]) == ("state", "succeeded")
        ready_again(daemon)
        assert daemon.stop() == 0
        with closing(sqlite3.connect(daemon.data_dir / "jobsvc.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def fill_up(daemon: Daemon) -> dict[str, object]:
    """Submit until the log has no room left; the refusal."""
    while True:
        reply = daemon.post("/v1/jobs", json={"task": "greet", "args": ["x" * 50_000], "delay_s": 3600})
        if reply.status_code != 201:
            assert reply.status_code == 507
            return cast("dict[str, object]", reply.json())


def test_a_full_disk_at_the_stop(small: Daemon) -> None:
    """F32: the stop is a clean one all the same, and the next start has everything."""
    with running(small, TASKS) as daemon:
        jobs = accepted(daemon)
        ballast = fill(daemon.data_dir)
        fill_up(daemon)
        assert daemon.stop() == 0
        assert "The next start will check it" in daemon.log
        ballast.unlink()
        daemon.start()
        assert [daemon.job(job_id)["id"] for job_id in jobs] == jobs


def test_a_database_locked_by_another(start_daemon: StartDaemon) -> None:
    """F36: 503 after a bounded wait, the reactor goes on meanwhile; results wait; when the lock is gone all goes on."""
    daemon = start_daemon(TASKS)
    gated = daemon.submit("gated")["id"]
    daemon.in_state(gated, "running")
    with closing(sqlite3.connect(daemon.data_dir / "jobsvc.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(daemon.post, "/v1/jobs", json={"task": "greet"})
            while not answer.done():
                assert daemon.get("/livez").status_code == 200
                assert daemon.job(gated)["state"] == "running"
        refused = answer.result().json()
        assert (answer.result().status_code, refused["code"]) == (503, "overloaded")
        assert "Another process keeps the database locked" in refused["detail"]
        daemon.open_gate()
        assert disk_check(daemon)["ok"] is False
        other.execute("ROLLBACK")
    assert daemon.succeeded(gated) == "through"
    ready_again(daemon)
    assert daemon.stop() == 0
