"""A daemon that dies at each named crash point: what was acknowledged is kept, the rest is there once or not."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

import jobsvc
from jobsvc.model.crashpoints import POINTS, VARIABLE, read_wish
from jobsvc.ports import Claim
from jobsvc.store.sqlite import SqliteStore
from tests.contract.store_harness import NOW, end_of, job_of

if TYPE_CHECKING:
    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import Daemon

TASKS = """
from pathlib import Path
from jobsvc import Context, task

@task(executor="process", timeout=60)
def double(ctx: Context, n: int) -> list[int]:
    return [2 * n, ctx.epoch]

@task
def once(n: int) -> int:
    Path("begun").touch()
    return n

@task(executor="process", retries=1)
def second_time(ctx: Context, n: int) -> list[int]:
    if not Path("tried").exists():
        Path("tried").touch()
        raise ValueError("the first try fails")
    return [2 * n, ctx.epoch]
"""
ONE_WORKER = ("--cpu-workers", "1")
PURGE = """
import sys
from jobsvc.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
store.open()
store.purge(int(sys.argv[2]), 1000)
"""


def test_every_point_is_passed_where_the_table_says() -> None:
    """Each point of the table stands once in the module that the table names, and there is no other."""
    root = Path(jobsvc.__path__[0])
    found: Counter[tuple[str, str]] = Counter()
    for path in root.rglob("*.py"):
        for point in re.findall(r'\b(?:crash|due)\("(CP[0-9]+)"\)', path.read_text()):
            found[point, str(path.relative_to(root))] += 1
    assert found == Counter((point, where.module) for point, where in POINTS.items())


@pytest.mark.parametrize("wish", ["CP99", "CP5:0", "5", "CP5:3+"])
def test_wish_that_makes_no_sense_is_refused(wish: str) -> None:
    """A misspelt point would make a run that tests nothing: it ends the start, with the points there are."""
    with pytest.raises(SystemExit, match=f"JOBSVC_CRASH={re.escape(wish)}: .*CP1, CP2, .*:N for the N-th"):
        read_wish(wish)


def test_nothing_wished_is_nothing_armed() -> None:
    """Without the variable no point is armed; a number names the passage."""
    assert read_wish("") == (None, 0)
    assert read_wish("CP5") == ("CP5", 1)
    assert read_wish("CP5:3") == ("CP5", 3)


def submit(daemon: Daemon, task: str, key: str) -> httpx2.Response | None:
    """One submit; None when the daemon died over it."""
    try:
        return daemon.post("/v1/jobs", json={"task": task, "args": [21]}, headers={"Idempotency-Key": key})
    except httpx2.TransportError:
        return None


def armed(daemon: Daemon, wish: str) -> Daemon:
    """The same daemon, which will die as wished when it is started the next time."""
    daemon.environ = {VARIABLE: wish}
    return daemon


def died_at(daemon: Daemon, point: str) -> None:
    """The daemon must die at this point, and at no other."""
    assert daemon.wait_exit() == -signal.SIGKILL, daemon.log
    assert f"crash point {point}:" in daemon.log
    daemon.environ = {}


def ends_once(daemon: Daemon, job: str) -> None:
    """Its events have no hole, and whoever had read all but the last goes on with it and the end."""
    path = f"/v1/jobs/{job}/events"
    *events, end = daemon.lines(path)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["kind"] for event in (*events, end)].count("end") == 1
    assert list(daemon.lines(path, params={"from": len(events)})) == [events[-1], end]


def all_well(daemon: Daemon, jobs: int) -> None:
    """So many jobs are there, all ended in one outcome; after the stop the database is whole."""
    rows = daemon.get("/v1/jobs").json()["jobs"]
    assert [row["state"] for row in rows] == ["succeeded"] * jobs
    for row in rows:
        states = [attempt["state"] for attempt in daemon.attempts(row["id"])]
        assert states.count("succeeded") == 1, states
        ends_once(daemon, row["id"])
    assert daemon.stop() == 0
    database = sqlite3.connect(daemon.data_dir / "jobsvc.db")
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        database.close()


@pytest.mark.parametrize(
    ("wish", "task", "stored"),
    [
        ("CP1:2", "double", False),
        ("CP2:2", "double", False),
        ("CP3:2", "double", True),
        ("CP4:2", "double", True),
        ("CP7:2", "double", True),
        ("CP8:2", "double", True),
        ("CP9:2", "double", True),
        ("CP10:2", "double", True),
        ("CP12", "second_time", True),
    ],
)
def test_death_along_the_life_of_a_job(start_daemon: StartDaemon, wish: str, task: str, stored: bool) -> None:
    """F01, F02, F06, F07, F09: the job before is kept; this one is there once, and ends once, by its key."""
    daemon = start_daemon(TASKS, *ONE_WORKER, environ={VARIABLE: wish})
    kept = daemon.submit("double", 4)["id"]
    assert daemon.succeeded(kept) == [8, 1]
    first = submit(daemon, task, "one")
    died_at(daemon, wish.partition(":")[0])
    daemon.start()
    again = submit(daemon, task, "one")
    assert again is not None
    assert again.status_code == (200 if stored else 201)
    assert again.headers.get("Idempotency-Replayed") == ("true" if stored else None)
    if first is not None:
        assert first.json()["id"] == again.json()["id"]
    assert daemon.succeeded(again.json()["id"])[0] == 42
    assert daemon.succeeded(kept) == [8, 1]
    all_well(daemon, 2)


def test_death_between_the_claim_and_the_start(start_daemon: StartDaemon) -> None:
    """F03: both jobs were claimed, no worker had heard of them: one runs, an epoch later; the other, which must not run
    twice, has failed `lost`, as its claim might have begun. Nothing of it has been run.
    """  # fmt: skip
    daemon = start_daemon(TASKS, *ONE_WORKER, environ={VARIABLE: "CP5"})
    lines = [
        '{"task":"double","args":[21],"key":"a"}',
        '{"task":"once","args":[1],"key":"b","on_lost":"fail"}',
    ]
    with suppress(httpx2.TransportError):
        daemon.post("/v1/jobs/bulk", params={"atomic": "1"}, content="\n".join(lines).encode())
    died_at(daemon, "CP5")
    daemon.start()
    jobs = {job["task"]: job["id"] for job in daemon.get("/v1/jobs").json()["jobs"]}
    assert daemon.succeeded(jobs["double"]) == [42, 2]
    assert [row["state"] for row in daemon.attempts(jobs["double"])] == ["lost", "succeeded"]
    failed = daemon.done(jobs["once"])
    assert (failed["state"], failed["reason"], failed["error"]["kind"]) == ("failed", "lost", "lost")
    assert (failed["epoch"], failed["started_at"]) == (1, None)
    assert not (daemon.folder / "begun").exists()
    for job in jobs.values():
        ends_once(daemon, job)
    assert daemon.stop() == 0


@pytest.mark.parametrize("point", ["CP6", "CP13"])
def test_death_while_it_starts_again(start_daemon: StartDaemon, point: str) -> None:
    """F09: it dies a second time, in recovery or when it starts its workers; the third start puts all right."""
    daemon = start_daemon(TASKS, *ONE_WORKER, environ={VARIABLE: "CP7"})
    submit(daemon, "double", "one")
    died_at(daemon, "CP7")
    armed(daemon, point).launch()
    died_at(daemon, point)
    daemon.start()
    (job,) = daemon.get("/v1/jobs").json()["jobs"]
    assert daemon.succeeded(job["id"]) == [42, 2]
    assert [row["state"] for row in daemon.attempts(job["id"])] == ["lost", "succeeded"]
    all_well(daemon, 1)


def test_death_in_the_first_migration(start_daemon: StartDaemon) -> None:
    """F41: nothing of a half-done migration stays; the next start makes it whole."""
    daemon = start_daemon(TASKS, *ONE_WORKER)
    assert daemon.stop() == 0
    (daemon.data_dir / "jobsvc.db").unlink()
    armed(daemon, "CP14").launch()
    died_at(daemon, "CP14")
    daemon.start()
    assert daemon.succeeded(daemon.submit("double", 21)["id"]) == [42, 1]
    all_well(daemon, 1)


@pytest.mark.parametrize("point", ["CP15", "CP16"])
def test_death_in_the_stop(start_daemon: StartDaemon, point: str) -> None:
    """F09: a stop that is cut off by a death, in the drain or at the checkpoint, loses nothing."""
    daemon = start_daemon(TASKS, *ONE_WORKER, environ={VARIABLE: point})
    job = daemon.submit("double", 21)["id"]
    assert daemon.succeeded(job) == [42, 1]
    daemon.process.send_signal(signal.SIGTERM)
    died_at(daemon, point)
    daemon.start()
    assert daemon.succeeded(job) == [42, 1]
    all_well(daemon, 1)


def test_death_in_retention(tmp_path: Path) -> None:
    """F09: a purge that is cut off by a death has removed nothing; the next one removes all, and the file is whole."""
    file = str(tmp_path / "jobsvc.db")
    store = SqliteStore(file)
    store.open()
    store.submit([job_of() for _ in range(20)])
    (claimed,) = store.claim([Claim("cpu-1", "process", {"count": 20}, 20, NOW)])
    assert store.settle([end_of(job) for job in claimed]) == [True] * 20
    store.close()
    command = [sys.executable, "-c", PURGE, file, str(NOW + 1_000_000)]
    environ = {**os.environ, VARIABLE: "CP18"}
    purge = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (purge.returncode, purge.stderr.startswith("jobsvc: crash point CP18:")) == (-signal.SIGKILL, True)
    store.open()
    assert len(store.reads.get_many([job.id for job in claimed])) == 20
    assert store.purge(NOW + 1_000_000, 1000) == 20
    assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store.close()


def test_death_in_a_backup(tmp_path: Path) -> None:
    """F09: a backup that is cut off by a death has not got its name; the next one is whole, and so is the database."""
    store = SqliteStore(str(tmp_path / "jobsvc.db"))
    store.open()
    store.submit([job_of() for _ in range(20)])
    store.close()
    copy = tmp_path / "copy.db"
    command = [sys.executable, "-m", "jobsvc", "--data-dir", str(tmp_path), "db", "backup", str(copy)]
    environ = {**os.environ, VARIABLE: "CP17"}
    first = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stderr) == (
        -signal.SIGKILL,
        "jobsvc: crash point CP17: JOBSVC_CRASH asked for it\n",
    )
    assert not copy.exists()
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    for file in (copy, tmp_path / "jobsvc.db"):
        database = sqlite3.connect(file)
        try:
            assert database.execute("SELECT count(*) FROM jobs").fetchall() == [(20,)]
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        finally:
            database.close()
