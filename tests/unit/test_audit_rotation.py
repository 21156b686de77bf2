"""The files of the audit log: which are kept, and that the check stays right whatever happens between two of them."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from jobsvc.model.audit import Entry, Head, read_record
from jobsvc.store import audit_file, statements
from jobsvc.store.audit_check import check
from jobsvc.store.audit_file import AuditFile
from jobsvc.store.sqlite import SqliteStore

DAY_US = 86_400 * 1_000_000
FULL_BYTES = 2_000
"""Seven of the records here."""


class Log:
    """A log in which a day passes between two records."""

    def __init__(self, folder: Path, *, kept: int = 3, keep_days: int = 20) -> None:
        self.folder = folder
        self.now_us = 1_000 * DAY_US
        self.kept, self.keep_days = kept, keep_days
        self.open(None)

    def open(self, anchor: Head | None) -> None:
        """As at a start."""
        self.file = AuditFile(
            self.folder, "b", lambda: self.now_us, max_bytes=FULL_BYTES, kept=self.kept, keep_days=self.keep_days
        )  # fmt: skip
        assert self.file.open(anchor) == []

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            self.now_us += DAY_US
            self.file.append([Entry(self.now_us, "t", "default", "unix", "jobs.submit")], sync=False)

    def fill(self) -> None:
        """Until the next record begins another file."""
        while (self.folder / "audit.log").stat().st_size < FULL_BYTES:
            self.write()

    def names(self) -> set[str]:
        return {path.name for path in self.folder.glob("audit.log*")}

    def problems(self) -> list[str]:
        """What a check says, beside a database that knows the end of the log."""
        database = self.folder / "jobsvc.db"
        if not database.exists():
            store = SqliteStore(str(database), "process")
            store.open()
            store.close()
        with closing(sqlite3.connect(database)) as db, db:
            db.execute("DELETE FROM audit_heads")  # the database may be one that another log has used
            db.execute(statements.AUDIT_ANCHOR, (self.file.head.seq, bytes.fromhex(self.file.head.hash), 1))
        return check(self.folder).problems


@pytest.mark.parametrize(
    ("late_us", "names"),
    [(0, {"audit.log", "audit.log.1", "audit.log.2"}), (1, {"audit.log", "audit.log.1"})],
)
def test_files_go_when_all_their_records_are_too_old(tmp_path: Path, late_us: int, names: set[str]) -> None:
    """At the next rotation, no sooner; the check knows where the log begins, and misses a file that should be there."""
    log = Log(tmp_path, kept=10)
    for _ in range(2):
        log.fill()
        ended = log.now_us  # in the end the second file's
        log.write()
    log.fill()
    assert log.names() == {"audit.log", "audit.log.1", "audit.log.2"}
    log.now_us = ended + (log.keep_days - 1) * DAY_US + late_us
    assert log.problems() == []
    log.write()
    assert log.names() == names, (
        "the first file has gone, the second only when it ended more than 20 days ago"
    )
    assert log.problems() == []
    for name in sorted(names - {"audit.log"}, reverse=True):
        (tmp_path / name).unlink()
        assert log.problems()[-1].endswith("are missing at the beginning")


def test_after_a_long_silence_only_the_new_file_is_left(tmp_path: Path) -> None:
    """It begins with the record that says so, though the hash before it is of one that is gone."""
    log = Log(tmp_path)
    log.fill()
    log.now_us += 100 * DAY_US
    log.write()
    assert log.names() == {"audit.log"}
    assert log.problems() == []
    first, _ = read_record((tmp_path / "audit.log").read_bytes().splitlines()[0])
    assert (first.what, first.target) == ("audit.rotated", str(first.seq))
    lines = (tmp_path / "audit.log").read_bytes().splitlines(keepends=True)
    (tmp_path / "audit.log").write_bytes(b"".join(lines[1:]))
    assert log.problems() != []


@pytest.mark.parametrize("keep_days", [0, 3_660])
def test_the_bound_of_size_stays(tmp_path: Path, keep_days: int) -> None:
    """However young the records are."""
    log = Log(tmp_path, kept=2, keep_days=keep_days)
    for _ in range(5):
        log.fill()
        log.write()
    assert log.names() == {"audit.log", "audit.log.1", "audit.log.2"}
    assert log.problems() == []


def test_a_file_that_is_young_keeps_the_ones_behind_it(tmp_path: Path) -> None:
    """The clock went back: what would leave a hole in the chain is not removed."""
    log = Log(tmp_path, kept=10)
    log.now_us += 500 * DAY_US
    log.fill()
    log.now_us -= 500 * DAY_US
    for _ in range(3):
        log.write()
        log.fill()
    log.now_us += 100 * DAY_US
    log.write()
    assert len(log.names()) == 5
    assert log.problems() == []


def test_a_copy_that_somebody_made_is_left_alone(tmp_path: Path) -> None:
    """A date is no number of ours."""
    log = Log(tmp_path, kept=1)
    (tmp_path / "audit.log.20260401").write_text("a copy")
    for _ in range(3):
        log.fill()
        log.write()
    assert log.names() == {"audit.log", "audit.log.1", "audit.log.20260401"}


class Killed(BaseException):
    """The daemon was, in the middle of it."""


class Fate:
    """What a rotation does to the disk, counted; the call with number `falls_on` does not happen."""

    def __init__(self, patched: pytest.MonkeyPatch, falls_on: int, end: BaseException) -> None:
        self.calls = 0
        self.falls_on, self.end = falls_on, end
        for owner, name in (
            (os, "fsync"), (os, "fdatasync"), (os, "open"), (os, "close"), (os, "write"),
            (Path, "rename"), (Path, "unlink"), (audit_file, "flush"),
        ):  # fmt: skip
            patched.setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self.falls_on:
                raise self.end
            return function(*args, **named)

        return call


@pytest.mark.parametrize(
    "end", [Killed(), OSError(errno.EMFILE, "Too many open files")], ids=["kill", "error"]
)
def test_whatever_a_rotation_comes_to_the_check_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    """It ends before each of its steps, once: nothing is called missing, and the next rotation makes up for it."""
    falls_on, done, before = 0, False, tmp_path
    while not done:
        falls_on += 1
        folder = tmp_path / str(falls_on)
        folder.mkdir()
        if falls_on > 1:  # a database takes a while to make
            copyfile(before / "jobsvc.db", folder / "jobsvc.db")
        before = folder
        log = Log(folder)
        for _ in range(5):
            log.fill()
            log.write()
        log.fill()
        with monkeypatch.context() as patched:
            fate = Fate(patched, falls_on, end)
            try:
                log.write()
                done = True
            except (Killed, OSError):
                pass
        assert log.problems() == [], fate.calls
        if isinstance(end, Killed):
            log.open(log.file.head)
        for _ in range(2):
            log.write()
            log.fill()
        log.write()
        assert log.problems() == [], falls_on
        assert len(log.names()) <= 1 + log.kept
        log.file.close()
    assert falls_on > 10, "so many steps at least"
