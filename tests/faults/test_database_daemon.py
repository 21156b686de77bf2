"""The database looked after around a real daemon: refused starts, backups beside it, migration before it."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobsvc.store.schema import MIGRATIONS
from tests.faults.files import count, log_of, overwrite_a_page
from tests.faults.test_migrations import RELEASED, made, version

if TYPE_CHECKING:
    from tests.integration.conftest import StartDaemon
    from tests.integration.daemon import Daemon

TASKS = """
from jobsvc import task

@task
def greet(name: str = "you") -> str:
    return "hello " + name
"""


def database(daemon: Daemon) -> Path:
    return daemon.data_dir / "jobsvc.db"


def filled(daemon: Daemon, jobs: int = 300) -> None:
    """Jobs that wait, so that the file has pages to damage."""
    body = b'{"task":"greet","args":["%s"],"delay_s":3600}\n' % (b"x" * 100)
    reply = daemon.post(
        "/v1/jobs/bulk", content=body * jobs, headers={"Content-Type": "application/x-ndjson"}
    )
    assert reply.status_code == 200
    assert "problem" not in reply.text


def refused(daemon: Daemon) -> str:
    """A start that does not come about: the line that says why."""
    daemon.launch()
    assert daemon.wait_exit() == 1
    (line,) = {line for line in daemon.log.splitlines() if line.startswith("jobsvc: ")}
    assert "Traceback" not in daemon.log
    daemon.wait_no_orphans()
    return line


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (overwrite_a_page, "is damaged"),
        (lambda file: os.truncate(file, 0), "is empty"),
    ],
    ids=["page", "emptied"],
)
def test_no_start_on_a_damaged_database(
    start_daemon: StartDaemon, damage: Callable[[Path], None], says: str
) -> None:
    """F37: status not 0, one line with the file's name and the command that restores it; which then works."""
    daemon = start_daemon(TASKS)
    filled(daemon)
    backup = Path(json.loads(daemon.cli("db", "backup").stdout)["backup"])
    assert daemon.stop() == 0
    damage(database(daemon))
    before = database(daemon).read_bytes()
    line = refused(daemon)
    assert line.startswith(f"jobsvc: {database(daemon)}: {says}")
    assert database(daemon).read_bytes() == before
    assert line.endswith(f"restore the newest backup: cp {backup} {database(daemon)}.")
    assert daemon.cli("db", "check").returncode == 1
    database(daemon).unlink()
    database(daemon).write_bytes(backup.read_bytes())
    daemon.start()
    assert daemon.get("/v1/jobs", params={"limit": 1000}).json()["jobs"][299]["state"] == "scheduled"


def test_no_start_without_the_write_ahead_log(start_daemon: StartDaemon) -> None:
    """F37: a log that was deleted after a crash is missed; the command that is named lets the next start go on."""
    daemon = start_daemon(TASKS)
    filled(daemon)
    daemon.kill()
    log_of(database(daemon)).unlink()
    line = refused(daemon)
    command = re.search(r"jobsvc (db check --accept-missing-wal .*)$", line)
    assert command is not None, line
    assert daemon.cli(*command[1].split()).returncode == 0
    daemon.start()
    assert daemon.succeeded(daemon.submit("greet")["id"]) == "hello you"


def test_no_start_on_a_newer_database(start_daemon: StartDaemon) -> None:
    """F41: the older program says which schema it found and which it knows."""
    daemon = start_daemon(TASKS)
    assert daemon.stop() == 0
    with closing(sqlite3.connect(database(daemon))) as db:
        db.execute("PRAGMA user_version=9999")
    assert f"newer jobsvc (schema 9999, this one knows {len(MIGRATIONS)})" in refused(daemon)


def test_a_start_on_an_older_database_migrates_it(start_daemon: StartDaemon) -> None:
    """F41: after a copy, and it says so; its jobs are there, those that were interrupted run again."""
    daemon = start_daemon(TASKS)
    assert daemon.stop() == 0
    database(daemon).unlink()
    made(database(daemon), RELEASED[1])
    daemon.start()
    (backup,) = (daemon.data_dir / "backup").iterdir()
    assert f"the database had schema 1; it was migrated, and is kept as it was in {backup}" in daemon.log
    assert (version(database(daemon)), version(backup)) == (len(MIGRATIONS), 1)
    states = {job["task"]: job["state"] for job in daemon.get("/v1/jobs").json()["jobs"]}
    assert (states["succeeded"], states["running"], states["stopping"]) == (
        "succeeded",
        "queued",
        "cancelled",
    )


def test_a_backup_beside_a_working_daemon(start_daemon: StartDaemon) -> None:
    """The copy is of one moment and whole; the daemon works on; check says who has the database, migrate refuses."""
    daemon = start_daemon(TASKS)
    filled(daemon)
    backup = json.loads(daemon.cli("db", "backup", "copy.db").stdout)["backup"]
    assert count(daemon.folder / backup) == 300
    report = json.loads(daemon.cli("db", "check").stdout)
    assert (report["ok"], report["daemon"], report["jobs"]) == (True, daemon.pid, {"scheduled": 300})
    migrating = daemon.cli("db", "migrate")
    assert migrating.returncode == 1
    assert f"in use by a daemon (pid {daemon.pid})" in migrating.stderr
    assert log_of(database(daemon)).exists()
    assert daemon.succeeded(daemon.submit("greet")["id"]) == "hello you"
    daemon.kill()
    daemon.start()
    assert daemon.get("/v1/jobs", params={"limit": 1000}).json()["jobs"][300]["state"] == "scheduled"
