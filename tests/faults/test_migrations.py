"""F41: an older database is copied, then migrated whole or not at all; its jobs are as they were."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from jobsvc.model.states import STATES
from jobsvc.ports import JobFilter
from jobsvc.store.connection import StoreRefused
from jobsvc.store.schema import MIGRATIONS
from jobsvc.store.sqlite import SqliteStore
from tests.contract.store_harness import MANY_BYTES, NOW
from tests.faults.files import KILL_DEADLINE_S, ROOT, fill, opened, tmpfs

RELEASED = {
    number: ROOT / "tests" / "fixtures" / f"jobsvc-schema{number}.sql" for number in range(1, len(MIGRATIONS))
}
"""Of every schema that was ever released, a database with one job in each state, as text."""


def made(file: Path, text: Path) -> None:
    """The database of a fixture."""
    with closing(sqlite3.connect(file)) as db:
        db.executescript(text.read_text())
        db.execute("PRAGMA journal_mode=WAL")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "jobsvc.db"


def rows(file: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        return db.execute("SELECT * FROM jobs ORDER BY no").fetchall()


def version(file: Path) -> int:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_there_is_a_database_of_every_earlier_schema() -> None:
    """Whoever adds a migration adds the database that it starts from."""
    assert all(text.exists() for text in RELEASED.values())


@pytest.mark.parametrize("number", RELEASED)
def test_an_older_database_is_copied_and_migrated(file: Path, number: int) -> None:
    """F41: all jobs, events and attempts read as before; the copy is whole, flushed, and for the owner's eyes."""
    made(file, RELEASED[number])
    before = rows(file)
    store = SqliteStore(str(file), "process", now_us=lambda: NOW)
    store.open()
    backup = file.parent / "backup" / f"jobsvc-schema{number}-20260921T141320.000000Z.db"
    assert (store.opened.migrated_from, store.opened.backup) == (number, backup)
    jobs = {job.task: job for job in store.reads.list(JobFilter(limit=100, args=True, result=True)).jobs}
    assert {job.state for job in jobs.values()} == set(STATES)
    assert all(job.state == task for task, job in jobs.items())
    assert jobs["succeeded"].result == b'{"sum":3}'
    assert jobs["running"].args == b"x" * 6000
    chunks = store.reads.chunks(jobs["succeeded"].no, 0, MANY_BYTES)
    assert [chunk.body for chunk in chunks if chunk.kind == "item"] == [b"1\n2"]
    assert [attempt.state for attempt in store.reads.attempts(jobs["retrying"].no)] == ["failed"]
    recovered = store.recover(NOW)
    assert (recovered.queued, recovered.cancelled) == (1, 1)
    store.close()
    assert version(file) == len(MIGRATIONS)
    assert version(backup) == number
    assert rows(backup) == before
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert stat.S_IMODE(backup.parent.stat().st_mode) == 0o700
    assert [name.name for name in backup.parent.iterdir()] == [backup.name]


def test_a_migrated_database_is_guarded_like_a_new_one(file: Path, tmp_path: Path) -> None:
    """Both come to the same schema, however old the first was."""
    made(file, RELEASED[1])
    opened(file).close()
    new = tmp_path / "new.db"
    opened(new).close()

    def shape(path: Path) -> set[tuple[str, str]]:
        with closing(sqlite3.connect(path)) as db:
            return set(db.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall())

    assert shape(file) == shape(new)


def test_a_backup_can_be_started_from(file: Path) -> None:
    """Put in the place of the database it is taken, and migrated again."""
    made(file, RELEASED[1])
    opened(file).close()
    (backup,) = (file.parent / "backup").iterdir()
    file.unlink()
    backup.rename(file)
    store = opened(file)
    assert store.opened.migrated_from == 1
    store.close()


def broken(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """One more migration, whose second statement is this."""
    more = (*MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN extra INTEGER", statement))
    for module in ("schema", "migrating", "opening"):
        monkeypatch.setattr(f"jobsvc.store.{module}.MIGRATIONS", more)


def test_a_migration_that_fails_is_taken_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F41: half-done = nothing done; the message names the file and the copy. The older program goes on with it."""
    made(file, RELEASED[1])
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        broken(patch, "CREATE TABLE jobs (a)")
        with pytest.raises(StoreRefused, match=r"was taken back.*The copy made before is") as refused:
            opened(file)
    (backup,) = (file.parent / "backup").iterdir()
    assert str(backup) in refused.value.detail
    assert refused.value.file == str(file)
    assert rows(file) == rows(backup)
    assert version(file) == 1
    assert file.read_bytes() == before
    opened(file).close()
    assert version(file) == len(MIGRATIONS)


KILLED = """
import os, sqlite3, sys
from jobsvc.store import migrating, opening, schema
from jobsvc.store.connection import connect
from jobsvc.store.sqlite import SqliteStore
more = (*schema.MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN extra INTEGER", "UPDATE meta SET value=value",
                             "INSERT INTO meta (name, value) VALUES ('die', die())"))
migrating.MIGRATIONS = opening.MIGRATIONS = more
def make(path):
    db = connect(path)
    db.execute("PRAGMA cache_size=1")  # so that pages of the open transaction are written before its end
    db.create_function("die", 0, lambda: os.kill(os.getpid(), 9))
    return db
SqliteStore(sys.argv[1], "power", make).open()
"""


def test_killed_in_the_middle_of_a_migration(file: Path) -> None:
    """F41: as if it had never begun; the next start begins it again, with a copy of its own."""
    made(file, RELEASED[1])
    before = rows(file)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(file)], cwd=ROOT, timeout=KILL_DEADLINE_S, check=False
    )
    assert done.returncode == -9
    assert version(file) == 1
    assert rows(file) == before
    store = SqliteStore(str(file), "power", now_us=lambda: NOW)
    store.open()
    assert store.opened.migrated_from == 1
    store.close()
    assert version(file) == len(MIGRATIONS)
    assert len(list((file.parent / "backup").iterdir())) == 2


def test_a_copy_is_never_written_over(file: Path) -> None:
    """A file of that name stays; the copy takes another, and the migration goes on."""
    made(file, RELEASED[1])
    backup = file.parent / "backup" / "jobsvc-schema1-20260921T141320.000000Z.db"
    backup.parent.mkdir()
    backup.write_bytes(b"kept")
    store = SqliteStore(str(file), "process", now_us=lambda: NOW)
    store.open()
    store.close()
    assert backup.read_bytes() == b"kept"
    (copy,) = [each for each in backup.parent.iterdir() if each != backup]
    assert version(copy) == 1
    assert version(file) == len(MIGRATIONS)


@pytest.mark.parametrize(
    ("leave_bytes", "says"), [(0, "the disk is full; free some space"), (80 * 1024, "make room there")]
)
def test_a_migration_on_a_full_disk(file: Path, leave_bytes: int, says: str) -> None:
    """F41: no room for the copy: refused, nothing changed, nothing left behind; with space it goes on."""
    with tmpfs(file.parent, "1m"):
        made(file, RELEASED[1])
        before = file.read_bytes()
        ballast = fill(file.parent, leave_bytes)
        with pytest.raises(StoreRefused, match=says):
            opened(file)
        assert file.read_bytes() == before
        assert list(file.parent.rglob("*.new")) == []
        assert list(file.parent.rglob("backup/*")) == []
        ballast.unlink()
        store = opened(file)
        assert store.opened.migrated_from == 1
        store.close()
