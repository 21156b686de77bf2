"""Databases as crashes and people leave them, for tests of what a start makes of them."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from jobsvc.store.migrating import copy
from jobsvc.store.schema import PAGE_BYTES
from jobsvc.store.sqlite import SqliteStore
from tests.contract.store_harness import job_of

ROOT = Path(__file__).parents[2]
KILL_DEADLINE_S = 60.0
_CRASH = """
import os, sys
from jobsvc.store.sqlite import SqliteStore
from tests.contract.store_harness import job_of
store = SqliteStore(sys.argv[1], "process")
store.open()
for _ in range(int(sys.argv[2])):
    store.submit([job_of(id=os.urandom(16), args=b"x" * 100) for _ in range(50)])
os.kill(os.getpid(), 9)
"""


def log_of(file: Path) -> Path:
    """The write-ahead log of a database."""
    return Path(f"{file}-wal")


def opened(file: Path) -> SqliteStore:
    """The store on this file, open."""
    store = SqliteStore(str(file), "process")
    store.open()
    return store


def closed(file: Path, jobs: int = 200) -> None:
    """A database with some jobs that was closed as it should be."""
    store = opened(file)
    store.submit([job_of(args=b"x" * 100) for _ in range(jobs)])
    store.close()


def crashed(file: Path, groups: int = 20) -> None:
    """A database whose writer was killed: what it stored, fifty jobs a group, lies in the write-ahead log."""
    command = [sys.executable, "-c", _CRASH, str(file), str(groups)]
    done = subprocess.run(command, cwd=ROOT, timeout=KILL_DEADLINE_S, check=False)
    assert done.returncode == -9
    assert log_of(file).stat().st_size > 0


def count(file: Path) -> int:
    """How many jobs a start would find, log included; nothing is changed."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        (jobs,) = db.execute("SELECT count(*) FROM jobs").fetchone()
    return int(jobs)


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but the index of the log, which is no data."""
    return {
        file.name: file.read_bytes()
        for file in sorted(folder.iterdir())
        if file.is_file() and not file.name.endswith("-shm")
    }


# -- damage; each leaves in `file` what a start must refuse


def truncated_to_nothing(file: Path) -> None:
    """A shell's `>` in the wrong place."""
    closed(file)
    os.truncate(file, 0)


def crashed_and_truncated_to_nothing(file: Path) -> None:
    crashed(file)
    os.truncate(file, 0)


def overwrite_a_page(file: Path) -> None:
    """As a failing disk does."""
    page = file.stat().st_size // PAGE_BYTES // 2
    with file.open("r+b") as database:
        database.seek(page * PAGE_BYTES)
        database.write(b"\xa5" * PAGE_BYTES)


def truncated_in_the_middle(file: Path) -> None:
    closed(file)
    os.truncate(file, file.stat().st_size // PAGE_BYTES // 2 * PAGE_BYTES)


def cut_within_a_page(file: Path) -> None:
    closed(file)
    os.truncate(file, file.stat().st_size - PAGE_BYTES // 2)


def garbage(file: Path) -> None:
    file.write_bytes(b"this was a database once, now it is a text of some length " * 400)


def a_page_of_garbage(file: Path) -> None:
    """In the middle of the rows, found by no read of the start itself."""
    closed(file)
    overwrite_a_page(file)


def a_page_of_garbage_after_a_crash(file: Path) -> None:
    closed(file)
    opened(file).abandon()
    overwrite_a_page(file)


def deleted_log(file: Path) -> None:
    crashed(file)
    log_of(file).unlink()


def emptied_log(file: Path) -> None:
    crashed(file)
    log_of(file).write_bytes(b"")


def overwritten_log(file: Path) -> None:
    crashed(file)
    log_of(file).write_bytes(b"not a log " * 1000)


def a_folder_in_its_place(file: Path) -> None:
    file.mkdir()


def deleted_database(file: Path) -> None:
    crashed(file)
    file.unlink()


def log_of_another(file: Path) -> None:
    """Of a database that has lived through the same."""
    other = file.with_name("other.db")
    crashed(file)
    crashed(other)
    shutil.move(log_of(other), log_of(file))
    other.unlink()


def log_of_another_after_a_clean_stop(file: Path) -> None:
    other = file.with_name("other.db")
    closed(file)
    crashed(other)
    shutil.move(log_of(other), log_of(file))
    other.unlink()


def log_beside_a_backup(file: Path) -> None:
    """A backup was put in the place of a database that had crashed, and the log was left lying."""
    crashed(file)
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        copy(db, file.with_name("copy.db"))
    shutil.move(file.with_name("copy.db"), file)


def another_program(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE theirs (a)")


def newer_schema(file: Path) -> None:
    closed(file)
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version=9999")


# -- disks


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    """A file system of this size in a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    """Take up all the space of a file system but so much; the file that does it."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        while True:
            system = os.statvfs(folder)
            try:
                os.posix_fallocate(file.fileno(), 0, system.f_bavail * system.f_frsize - leave_bytes)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                # A daemon that works there took some of it after we looked.
            else:
                break
    return ballast
