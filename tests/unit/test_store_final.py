"""A final row does not change, whatever statement is thrown at it: the schema itself sees to that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from jobsvc.model.events import Chunk
from jobsvc.model.states import FINAL, State
from jobsvc.ports import Append, Claim, Move
from jobsvc.store.rows import JOB_COLUMNS
from jobsvc.store.sqlite import SqliteStore
from tests.contract.store_harness import NOW, end_of, job_of, step_of


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    opened = SqliteStore()
    opened.open()
    yield opened
    opened.close()


def ended(store: SqliteStore, state: State) -> int:
    """The row number of a job that came to this end in the usual way."""
    store.submit([job := job_of(expires_at=NOW if state == "expired" else None)])
    if state == "expired":
        assert len(store.expire(NOW, 1)) == 1
        return job.no
    ((claimed,),) = store.claim([Claim("cpu-1", "process", {"count": 1}, 1, NOW)])
    if state == "cancelled":
        store.step([step_of(claimed, "stopping", reason="cancel_asked")])
        claimed.seq += 1
    assert store.settle([end_of(claimed, state)]) == [True]
    return job.no


@pytest.mark.parametrize("state", sorted(FINAL))
def test_no_column_of_a_final_row_changes(store: SqliteStore, state: State) -> None:
    """By no UPDATE, not even to the value it has; alone or with a row that may change."""
    no = ended(store, state)
    store.submit([job_of()])
    before = store._db.execute("SELECT * FROM jobs ORDER BY no").fetchall()
    for column in JOB_COLUMNS:
        for change in (
            f"UPDATE jobs SET {column}={column} WHERE no={no}",
            f"UPDATE jobs SET {column}={column}",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="a final job does not change"):
                store._db.execute(change)
    with pytest.raises(sqlite3.IntegrityError, match="a final job does not change"):
        store._db.execute("UPDATE jobs SET state='queued', finished_at=NULL, epoch=epoch+1")
    assert store._db.execute("SELECT * FROM jobs ORDER BY no").fetchall() == before


def test_the_statement_that_forgets_the_fence_takes_its_whole_group_back(store: SqliteStore) -> None:
    """What was written before it in the same transaction can still be committed, or taken back: nothing is half."""
    no = ended(store, "succeeded")
    store._db.execute("BEGIN IMMEDIATE")
    store._db.execute("INSERT INTO meta (name, value) VALUES ('before', 1)")
    with pytest.raises(sqlite3.IntegrityError):
        store._db.execute("UPDATE jobs SET labels='{}' WHERE no<=?", (no,))
    assert store._db.in_transaction
    store._db.execute("COMMIT")
    assert store._db.execute("SELECT value FROM meta WHERE name='before'").fetchall() == [(1,)]


def test_a_final_row_is_removed_by_retention_and_delete(store: SqliteStore) -> None:
    """The one way that leads out of a final state."""
    first, _second = ended(store, "succeeded"), ended(store, "failed")
    (id_,) = store._db.execute("SELECT id FROM jobs WHERE no=?", (first,)).fetchone()
    assert store.delete(id_)
    assert store.purge(NOW + 1_000, 10) == 1
    assert store._db.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_late_writes_are_refused_before_they_meet_the_trigger(store: SqliteStore) -> None:
    """Outcome, step, progress and cancel of a final job are refusals, no failures of the store."""
    no = ended(store, "succeeded")
    (job,) = store.reads.by_nos([no], args=True, result=True)
    progress = Chunk(no=no, seq=9, count=1, kind="progress", epoch=1, at=NOW, body=b"{}")
    assert store.settle([end_of(job)]) == [False]
    assert store.step([step_of(job, "queued")]) == [False]
    assert store.append([Append(progress, "cpu-1", revision=9)]) == [False]
    assert store.move([Move(job.id, ("queued",), "cancelled", None, NOW)]) == [None]
    assert store.wake(NOW * 2, 10) == {}
    assert store.expire(NOW * 2, 10) == []
