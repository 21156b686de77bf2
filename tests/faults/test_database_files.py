"""F37: no start on a database that is not whole and ours; and nothing is ever created over what could have been one."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from jobsvc.store import marks
from jobsvc.store.connection import StoreRefused
from tests.contract.store_harness import NOW, job_of
from tests.faults import files
from tests.faults.files import content, count, crashed, log_of, opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "jobsvc.db"


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (files.truncated_to_nothing, r"is empty.* move it and .*jobsvc\.db-wal away"),
    (files.crashed_and_truncated_to_nothing, r"is empty.* move it and .*jobsvc\.db-wal away"),
    (files.truncated_in_the_middle, r"is damaged .* move it and .*jobsvc\.db-wal away"),
    (files.cut_within_a_page, r"is damaged .* move it and .*jobsvc\.db-wal away"),
    (files.garbage, r"is no SQLite database; move it away"),
    (files.a_page_of_garbage, r"is damaged .* move it and .*jobsvc\.db-wal away"),
    (files.a_page_of_garbage_after_a_crash, r"is damaged .* move it and .*jobsvc\.db-wal away"),
    (
        files.deleted_log,
        r"write-ahead log .*jobsvc\.db-wal is gone.*jobsvc db check --accept-missing-wal .*jobsvc\.db",
    ),
    (
        files.emptied_log,
        r"write-ahead log .*jobsvc\.db-wal was emptied or overwritten.* move it away and .*--accept-missing-wal ",
    ),
    (files.overwritten_log, r"write-ahead log .*jobsvc\.db-wal was emptied or overwritten"),
    (files.a_folder_in_its_place, r"is no file; move it away"),
    (
        files.deleted_database,
        r"is missing, but its write-ahead log .*jobsvc\.db-wal is there; put the database back",
    ),
    (files.log_of_another, r"write-ahead log of another database, .*jobsvc\.db-wal; put its own log back"),
    (files.log_of_another_after_a_clean_stop, r"write-ahead log of another database, .*jobsvc\.db-wal"),
    (
        files.log_beside_a_backup,
        r"write-ahead log of another database, .*jobsvc\.db-wal.* or move that one away",
    ),
    (files.another_program, r"another program; name another data directory"),
    (files.newer_schema, r"newer jobsvc \(schema 9999, this one knows \d+\); start that one"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_what_must_not_be_used_is_refused_and_left_alone(
    file: Path, damage: Callable[[Path], None], says: str
) -> None:
    """F37, F41: the sentence names the file and what to do, and not a byte of it or its log is touched."""
    damage(file)
    before = content(file.parent)
    for _ in range(2):  # the first refusal must not make the second start succeed
        with pytest.raises(StoreRefused) as refused:
            opened(file)
        assert re.search(says, refused.value.detail), refused.value.detail
        assert refused.value.file == str(file)
        assert content(file.parent) == before


def test_the_newest_backup_is_named(file: Path) -> None:
    """F37: whoever has to restore is told with which command."""
    files.closed(file)
    backup = file.parent / "backup" / "jobsvc-yesterday.db"
    backup.parent.mkdir()
    backup.write_bytes(file.read_bytes())
    file.write_bytes(file.read_bytes()[:8192])
    with pytest.raises(StoreRefused, match=re.escape(f"cp {backup} {file}")):
        opened(file)
    file.unlink()
    file.write_bytes(backup.read_bytes())
    opened(file).close()
    assert count(file) == 200


def test_a_crash_is_no_reason_to_refuse(file: Path) -> None:
    """Killed at any moment: the log is read, the file checked, everything is there, however often."""
    crashed(file, 3)
    for turn in range(2, 5):
        crashed(file, 3)
        assert count(file) == turn * 150
    store = opened(file)
    assert store.opened.unclean
    assert store.opened.checked_s is not None
    assert store.recover(NOW).unclean
    store.close()
    again = opened(file)
    assert not again.opened.unclean
    assert not again.recover(NOW).unclean
    again.close()
    assert count(file) == 600


def test_a_large_database_is_checked_after_an_unclean_end_only(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of a small one costs nothing; that of a large one is paid for when there is a reason."""
    monkeypatch.setattr("jobsvc.store.opening.CHECK_ALWAYS_BYTES", 0)
    files.closed(file)
    clean = opened(file)
    assert clean.opened.checked_s is None
    clean.abandon()
    unclean = opened(file)
    assert unclean.opened.checked_s is not None
    unclean.close()


def test_killed_between_the_first_write_and_its_checkpoint(file: Path) -> None:
    """The log bears a number that the file does not know yet; that it is its own shows in the log itself."""
    files.closed(file)
    alone = file.read_bytes()
    store = opened(file)
    log = log_of(file).read_bytes()
    store.abandon()
    file.write_bytes(alone)  # as if the process had been killed before the checkpoint of its start
    log_of(file).write_bytes(log)
    again = opened(file)
    assert again.opened.unclean
    again.close()
    assert count(file) == 200


def test_another_program_that_looked_after_a_crash_does_no_harm(file: Path) -> None:
    """It brings the log into the file and removes it, as SQLite does when the last one closes: nothing is lost."""
    crashed(file, 3)
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not log_of(file).exists()
    store = opened(file)
    assert store.opened.unclean
    store.close()
    assert count(file) == 150


@pytest.mark.parametrize("jobs", [10, 30_000])
def test_a_log_is_missed_however_much_was_stored(file: Path, jobs: int) -> None:
    """F37: also after SQLite has made a checkpoint and begun the log anew; but not when it was brought in."""
    store = opened(file)
    begun = marks.log_number(str(file))
    for _ in range(jobs // 10):
        store.submit([job_of(args=b"x" * 400) for _ in range(10)])
    assert (marks.log_number(str(file)) != begun) == (jobs > 10)
    store.abandon()
    log = log_of(file).read_bytes()
    log_of(file).unlink()
    with pytest.raises(StoreRefused, match="is gone"):
        opened(file)
    log_of(file).write_bytes(log)
    opened(file).close()
    assert count(file) == jobs


def test_a_log_that_began_anew_is_its_own(file: Path) -> None:
    """After checkpoints SQLite begins the log again with another number."""
    store = opened(file)
    for _ in range(5):
        store.submit([job_of()])
        assert store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    store.submit([job_of()])
    store.abandon()
    again = opened(file)
    assert again.opened.unclean
    again.close()
    assert count(file) == 6


def test_a_half_made_database_is_no_database(file: Path) -> None:
    """A first start that was killed while it created the file leaves nothing that a later one takes for real."""
    file.with_name("jobsvc.db.new").write_bytes(b"half")
    store = opened(file)
    store.close()
    assert sorted(content(file.parent)) == ["jobsvc.db"]


def test_a_fatal_end_leaves_the_log(file: Path) -> None:
    """After a failed write nothing more is brought into the file: the next start finds all as it was."""
    files.closed(file)
    store = opened(file)
    store.submit([job_of()])
    before = content(file.parent)
    store.abandon()
    assert content(file.parent) == before
    assert count(file) == 201
