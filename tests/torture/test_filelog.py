"""The model of a disk that power cuts are tried on: it must lose what a disk may lose, and nothing more."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from jobsvc.store.sqlite import SqliteStore
from tests.contract.store_harness import job_of
from tests.torture.filelog import SECTOR_BYTES, Disk, FileLog, Image, Operation
from tests.torture.recorded import connect_to

A, B = b"a" * SECTOR_BYTES, b"b" * SECTOR_BYTES


def disk_after(*operations: Operation) -> Disk:
    disk = Disk()
    for operation in operations:
        disk.apply(operation)
    return disk


def torn_images(disk: Disk) -> list[Image]:
    return [disk.torn(random.Random(seed)) for seed in range(200)]


FILE_MADE = (Operation("create", "f"), Operation("sync_folder"))


def test_what_was_not_synced_is_gone() -> None:
    """A clean cut keeps each file up to its last sync; the death of the process alone keeps everything."""
    disk = disk_after(
        *FILE_MADE,
        Operation("write", "f", 0, A),
        Operation("sync", "f"),
        Operation("write", "f", 512, B),
        Operation("truncate", "f", 100),
    )
    assert disk.clean() == [{"f": A}]
    assert disk.whole() == {"f": A[:100]}


def test_torn_writes_are_whole_sectors_in_any_combination() -> None:
    """Of two sectors written together every combination is found, the gap before a later one as zeros."""
    disk = disk_after(*FILE_MADE, Operation("write", "f", 0, A + B))
    found = {image["f"] for image in torn_images(disk)}
    assert found == {b"", A, bytes(SECTOR_BYTES) + B, A + B}


def test_what_was_synced_is_never_torn() -> None:
    """Tearing touches later writes only."""
    disk = disk_after(
        *FILE_MADE, Operation("write", "f", 0, A), Operation("sync", "f"), Operation("write", "f", 512, B)
    )
    assert {image["f"] for image in torn_images(disk)} == {A, A + B}


def test_a_deleted_file_may_be_back() -> None:
    """Until its folder is synced, a file deleted is found or not, and so is a new one of its name."""
    written = (*FILE_MADE, Operation("write", "f", 0, A), Operation("sync", "f"))
    deleted = (*written, Operation("delete", "f"))
    assert disk_after(*deleted).clean() == [{"f": A}, {}]
    assert {tuple(image.items()) for image in torn_images(disk_after(*deleted))} == {(("f", A),), ()}
    again = (*deleted, Operation("create", "f"), Operation("write", "f", 0, B), Operation("sync", "f"))
    assert disk_after(*again).clean() == [{"f": A}, {"f": B}]
    assert disk_after(*again, Operation("sync_folder")).clean() == [{"f": B}]


def test_the_log_tells_what_is_in_the_files(tmp_path: Path) -> None:
    """Played again, the operations give the very files that SQLite wrote: none was missed."""
    log = FileLog()
    store = SqliteStore(str(tmp_path / "jobs.db"), make=connect_to(log))
    try:
        store.open()
        store.submit([job_of(args=b"x" * 10_000)])
        disk = disk_after(*log.operations)
        found = {
            file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")
        }
        assert disk.whole() == found
        assert len(found) == 2
        store.close()
        disk = disk_after(*log.operations)
        assert disk.whole() == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    finally:
        log.close()


def test_errors_are_those_of_the_usual_connection(tmp_path: Path) -> None:
    """Class and code are what the store tells them apart by."""
    log = FileLog()
    try:
        db = connect_to(log)(str(tmp_path / "some.db"))
        usual = sqlite3.connect(":memory:", isolation_level=None)
        for statement in ("CREATE TABLE t (x UNIQUE)", "INSERT INTO t VALUES (1)"):
            assert db.execute(statement).rowcount == usual.execute(statement).rowcount
        for wrong in ("INSERT INTO t VALUES (1)", "SELECT y FROM t", "nonsense"):
            with pytest.raises(sqlite3.Error) as usual_error:
                usual.execute(wrong)
            with pytest.raises(type(usual_error.value)) as error:
                db.execute(wrong)
            assert error.value.sqlite_errorcode == usual_error.value.sqlite_errorcode
        usual.close()
        db.close()
        (tmp_path / "garbage.db").write_bytes(b"garbage!" * 1000)
        garbage = connect_to(log)(str(tmp_path / "garbage.db"))
        with pytest.raises(sqlite3.DatabaseError) as no_database:
            garbage.execute("SELECT * FROM sqlite_schema")
        assert no_database.value.sqlite_errorcode == sqlite3.SQLITE_NOTADB
        garbage.close()
    finally:
        log.close()
