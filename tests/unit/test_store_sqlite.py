"""The blocking store: groups are one transaction, their writes come in the order of the contract, errors undo all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.model.errors import JobsvcError
from jobsvc.model.events import Chunk
from jobsvc.model.job import Job
from jobsvc.ports import Append, Claim, Durability, JobFilter, Move
from jobsvc.store import connection, queries, rows, session, statements
from jobsvc.store.connection import StoreRefused, open_reader
from jobsvc.store.marks import Misplaced
from jobsvc.store.schema import APPLICATION_ID, MIGRATIONS, PAGE_BYTES
from jobsvc.store.sqlite import Call, SqliteStore
from tests.contract.store_harness import MANY_BYTES, NOW, end_of, job_of, step_of


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    opened = SqliteStore()
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def open_store(file: Path) -> SqliteStore:
    store = SqliteStore(str(file))
    store.open()
    return store


def claim_all(task: str = "count") -> Claim:
    return Claim("cpu-1", "process", {task: 1000}, 1000, NOW + 10)


def running(store: SqliteStore) -> Job:
    store.submit([job_of()])
    (jobs,) = store.claim([claim_all()])
    return jobs[0]


def stored(store: SqliteStore, job: Job) -> Job:
    found = store.reads.get(job.id)
    assert found is not None
    return found


# -- groups


def test_a_claim_sees_the_submits_and_moves_of_its_group(store: SqliteStore) -> None:
    """Submit, move, claim: in this order whatever the order of the calls, answers in the order of the calls."""
    kept, cancelled = job_of(), job_of()
    claims, moved, first, second = store.group(
        [
            Call("claim", ([claim_all()],)),
            Call("move", ([Move(id=cancelled.id, frm=("queued",), to="cancelled", reason=None, at=NOW)],)),
            Call("submit", ([kept],)),
            Call("submit", ([cancelled],)),
        ]
    )
    assert [job.id for job in claims[0]] == [kept.id]
    assert moved[0].state == "cancelled"
    assert (first[0].job, second[0].job) == (kept, cancelled)


def test_what_a_job_printed_comes_before_its_outcome(store: SqliteStore) -> None:
    """Append, settle: an outcome does not shut out the events of its own group."""
    job = running(store)
    chunk = Chunk(no=job.no, seq=3, count=1, kind="log", epoch=1, at=NOW, body=b"{}")
    ended, appended = store.group(
        [Call("settle", ([end_of(job, seq=4)],)), Call("append", ([Append(chunk=chunk, owner="cpu-1")],))]
    )
    assert (ended, appended) == ([True], [True])


def test_a_slot_that_becomes_free_is_filled_in_the_same_group(store: SqliteStore) -> None:
    """Step back, then claim."""
    job = running(store)
    _, claims = store.group([Call("step", ([step_of(job, "queued")],)), Call("claim", ([claim_all()],))])
    assert [(again.id, again.epoch) for again in claims[0]] == [(job.id, 2)]


def test_a_cancel_overtaken_by_the_result(store: SqliteStore) -> None:
    """A step numbered before the outcome of the same job is written before it: its number would be missing."""
    job, other = running(store), running(store)
    stepped, ended = store.group(
        [
            Call("step", ([step_of(other, "queued"), step_of(job, "stopping", reason="cancel_asked")],)),
            Call("settle", ([end_of(job, seq=4, revision=4)],)),
        ]
    )
    assert (stepped, ended) == ([True, True], [True])
    assert stored(store, job).state == "succeeded"
    assert [chunk.seq for chunk in store.reads.chunks(job.no, 0, MANY_BYTES)] == [3]


def test_a_refusal_in_a_group_leaves_the_others_whole(store: SqliteStore) -> None:
    """The group is done again one by one; what was submitted with it is there once."""
    job, new = running(store), job_of(args=b"x" * 5000, policy=b'{"max_attempts":9}')
    submitted, late, good = store.group(
        [
            Call("submit", ([new],)),
            Call("settle", ([end_of(job, epoch=0)],)),
            Call("settle", ([end_of(job)],)),
        ]
    )
    assert (late, good) == ([False], [True])
    assert stored(store, submitted[0].job) == new
    assert len(store.reads.list(JobFilter()).jobs) == 2


@pytest.mark.parametrize("name", ["jobsvc.db", "jobsvc.db-wal", ""])
def test_nothing_is_accepted_into_a_file_that_nobody_will_find(tmp_path: Path, name: str) -> None:
    """F37: the database, its log or their folder was taken away, or another put there, beside the daemon: fatal."""
    folder = tmp_path / "data"
    folder.mkdir()
    store = open_store(folder / "jobsvc.db")
    store.submit([job_of()])
    place = folder / name
    place.rename(tmp_path / "away")
    with pytest.raises(Misplaced, match=r"jobsvc\.db(-wal)? was removed, or another"):
        store.submit([job_of()])
    (tmp_path / "away").rename(place)
    store.submit([job_of()])
    store.close()


def test_a_failed_group_leaves_nothing(store: SqliteStore) -> None:
    """Not a row, not a policy, not a memory of a job that could be claimed."""
    first = job_of()
    with pytest.raises(sqlite3.IntegrityError):
        store.submit([first, job_of(policy=b'{"max_attempts":2}'), job_of(id=first.id)])
    assert store.claim([claim_all()]) == [[]]
    (again,) = store.submit([job_of(policy=b'{"max_attempts":2}')])
    assert again.job is not None
    assert stored(store, again.job).policy == b'{"max_attempts":2}'


def test_more_policies_than_the_table_holds(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others stand in their rows."""
    monkeypatch.setattr(rows, "POLICIES_MAX", 2)
    jobs = [job_of(policy=b'{"max_attempts":%d}' % i) for i in range(4)]
    store.submit(jobs)
    assert [stored(store, job).policy for job in jobs] == [job.policy for job in jobs]
    (claimed,) = store.claim([claim_all()])
    assert [job.policy for job in claimed] == [job.policy for job in jobs]


def test_more_jobs_than_are_remembered(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claimed jobs come in order and whole, wherever they come from."""
    monkeypatch.setattr(session, "FRESH_MAX_JOBS", 3)
    jobs = [job_of(args=b"%d" % i) for i in range(8)]
    store.submit(jobs)
    (claimed,) = store.claim([claim_all()])
    assert [(job.no, job.args) for job in claimed] == [(job.no, job.args) for job in jobs]
    assert claimed == [stored(store, job) for job in jobs]


def test_nothing_is_remembered_of_jobs_that_will_not_be_claimed(store: SqliteStore) -> None:
    """Cancelled, expired or never stored: no memory is kept for them."""
    cancelled, expired = job_of(), job_of()
    store.submit([cancelled])
    store.move([Move(id=cancelled.id, frm=("queued",), to="cancelled", reason=None, at=NOW)])
    store.submit([expired])
    store._db.execute("UPDATE jobs SET expires_at=? WHERE no=?", (NOW, expired.no))
    assert len(store.expire(NOW, 10)) == 1
    remembered = store._session.fresh.take
    assert remembered(range(1, 10)) == [None] * 9
    job = running(store)
    chunk = Append(
        chunk=Chunk(no=job.no, seq=3, count=1, kind="log", epoch=1, at=NOW, body=b"1"), owner="cpu-1"
    )
    with pytest.raises(sqlite3.IntegrityError):
        store.group([Call("submit", ([job_of()],)), Call("append", ([chunk, chunk],))])
    assert remembered(range(1, 10)) == [None] * 9


def test_groups_of_many_kinds(store: SqliteStore) -> None:
    """However many tasks and workers meet in one group, every job is stored and settled as it is."""
    jobs = [job_of(task=f"task-{i % 40}", priority=i % 7, args=b"%d" % i) for i in range(120)]
    jobs += [job_of(task="task-0", args=b"%d" % i) for i in range(30)]
    store.submit(jobs)
    assert [stored(store, job) for job in jobs] == jobs
    wants = {f"task-{i}": 100 for i in range(40)}
    claims = [Claim(f"cpu-{i}", "process", wants, 9, NOW) for i in range(16)] + [
        Claim("big", "process", wants, 9, NOW)
    ]
    claimed = [job for batch in store.claim(claims) for job in batch]
    ends = [end_of(job, result=job.args) for job in claimed]
    assert store.settle(ends) == [True] * 150
    for job, end in zip(claimed, ends, strict=True):
        row = stored(store, job)
        assert (row.state, row.owner, row.result, row.seq) == ("succeeded", end.owner, job.args, end.seq)


def test_states_that_make_no_sense_are_no_sql(store: SqliteStore) -> None:
    """A state becomes part of a statement; others than the table's are refused before."""
    job = running(store)
    with pytest.raises(ValueError, match="queued"):
        store.settle([end_of(job, "queued")])
    with pytest.raises(ValueError, match="succeeded"):
        store.step([step_of(job, "succeeded")])
    with pytest.raises(ValueError, match="running"):
        store.move([Move(id=job.id, frm=("queued",), to="running", reason=None, at=NOW)])


# -- disk


def test_a_full_disk_refuses_the_group_and_it_goes_on_later(file: Path) -> None:
    """`disk_full` to the caller, nothing stored; with space again the same store works."""
    store = open_store(file)
    kept = job_of()
    store.submit([kept])
    limit = store._db.execute("PRAGMA max_page_count=40").fetchone()[0]
    with pytest.raises(JobsvcError) as refused:
        store.submit([job_of(args=b"x" * 100_000), job_of(args=b"x" * 500_000)])
    assert refused.value.code == "disk_full"
    assert [job.id for job in store.reads.list(JobFilter()).jobs] == [kept.id]
    store._db.execute(f"PRAGMA max_page_count={limit * 1000}")
    store.submit([job_of(args=b"x" * 500_000)])
    assert len(store.reads.list(JobFilter()).jobs) == 2
    store.close()


def test_everything_is_there_after_a_restart(file: Path) -> None:
    """Rows, policies, numbers; also when the newest job has been removed."""
    store = open_store(file)
    job = running(store)
    store.settle([end_of(job)])
    store.submit([newest := job_of(policy=b'{"max_attempts":2}', state="failed", finished_at=NOW)])
    before = stored(store, job)
    store.delete(newest.id)
    store.close()
    again = open_store(file)
    assert stored(again, job) == before
    again.submit([after := job_of()])
    assert after.no > newest.no
    again.close()


def test_removed_space_goes_back(file: Path) -> None:
    """The file does not stay as large as it ever was."""
    store = open_store(file)
    for _ in range(20):
        job = job_of(state="failed", finished_at=NOW, args=b"x" * 200_000)
        store.submit([job])
    (before,) = store._db.execute("PRAGMA page_count").fetchone()
    assert store.purge(NOW + 1, 100) == 20
    (after,) = store._db.execute("PRAGMA page_count").fetchone()
    assert after < before / 2 + 1
    store.close()


# -- opening


def test_the_file_is_marked_as_ours(file: Path) -> None:
    """So that nobody takes another database for it, and space can be given back."""
    open_store(file).close()
    db = sqlite3.connect(file)
    found = [
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version", "auto_vacuum")
    ]
    assert found == [APPLICATION_ID, len(MIGRATIONS), 2]
    assert db.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


@pytest.mark.parametrize(("durability", "level"), [("power", 2), ("process", 1)])
def test_durability_is_what_was_asked(file: Path, durability: Durability, level: int) -> None:
    """FULL flushes every commit, NORMAL only checkpoints."""
    store = SqliteStore(str(file), durability)
    store.open()
    assert store._db.execute("PRAGMA synchronous").fetchone() == (level,)
    store.close()


def test_readers_cannot_write(file: Path) -> None:
    """Whatever a read is given to do."""
    store = open_store(file)
    reader = open_reader(str(file))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM jobs")
    reader.close()
    store.close()


def foreign(file: Path) -> None:
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE theirs (a)")
    db.close()


def marked_by_another(file: Path) -> None:
    db = sqlite3.connect(file)
    db.execute("PRAGMA application_id=77")
    db.close()


def newer(file: Path) -> None:
    open_store(file).close()
    db = sqlite3.connect(file)
    db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.close()


def no_database(file: Path) -> None:
    file.write_bytes(b"this is a text, and long enough to look like a header " * 40)


def damaged(file: Path) -> None:
    open_store(file).close()
    content = bytearray(file.read_bytes())
    content[100:PAGE_BYTES] = b"\xff" * (PAGE_BYTES - 100)
    file.write_bytes(content)


def folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (foreign, "another program"),
        (marked_by_another, "another program"),
        (newer, "newer jobsvc"),
        (no_database, "no SQLite database"),
        (damaged, "damaged"),
        (folder, "no file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_ours_is_refused_by_name(file: Path, prepare: object, says: str) -> None:
    """The file is named, the sentence says what is wrong, and the file stays as it was."""
    assert callable(prepare)
    prepare(file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(StoreRefused, match=says) as refused:
        open_store(file)
    assert refused.value.file == str(file)
    assert before is None or file.read_bytes() == before


def test_an_old_sqlite_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is created."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 9))
    with pytest.raises(StoreRefused, match=r"3\.35"):
        open_store(file)
    assert not file.exists()


def test_a_locked_file_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that writes holds up the start for a moment, not for ever."""
    monkeypatch.setattr(connection, "BUSY_MS", 0)
    open_store(file).close()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreRefused, match="is locked by another process"):
        open_store(file)
    other.close()


# -- statements


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (statements.READY, "jobs_ready"),
        (queries.QUEUED, "jobs_ready"),
        (statements.DUE, "jobs_due"),
        (queries.NEXT_DUE, "jobs_due"),
        (statements.EXPIRED, "jobs_expires"),
        (queries.NEXT_EXPIRES, "jobs_expires"),
        (statements.FINISHED, "jobs_finished"),
        (statements.INTERRUPTED, "jobs_active"),
        (statements.key_holders(4), "jobs_key"),
        (queries.jobs_where(queries.BY_KEY), "jobs_key"),
        (queries.jobs_where(queries.BY_ID), "sqlite_autoindex_jobs_1"),
        (queries.chunk_window(queries.CHUNKS_AFTER), "sqlite_autoindex_chunks_1"),
        (queries.chunk_window(queries.ITEMS_AFTER), "chunks_items"),
        (statements.NEXT_ITEM, "chunks_items"),
        (statements.ORPHANS_GONE, "jobs_due"),
        (statements.settle("failed", 4), "INTEGER PRIMARY KEY"),
        (statements.settle_alike("succeeded", 64), "INTEGER PRIMARY KEY"),
        (statements.CLAIM, "INTEGER PRIMARY KEY"),
        (statements.STATE_CHUNKS, "INTEGER PRIMARY KEY"),
    ],
)
def test_nothing_looks_at_all_jobs(store: SqliteStore, statement: str, index: str) -> None:
    """Each statement of the daemon's own work goes by its index, never through the whole table."""
    marks = [None] * statement.count("?")
    plan = [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {statement}", marks)]
    assert any(index in step for step in plan), plan
    assert not any(step in ("SCAN jobs", "SCAN j", "SCAN chunks") for step in plan), plan


def test_rows_are_cut_into_known_sizes() -> None:
    """Only these statements are ever prepared, and all rows are covered."""
    for count in (0, 1, 3, 5, 63, 64, 500, 1029):
        sizes = list(statements.batches(count))
        assert sum(sizes) == count
        assert set(sizes) <= set(statements.BATCHES)
