"""F2: whether an audit log is whole: every record against the one before it, and against what the database knows.

Reads only. Memory does not grow with the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from jobsvc.model.audit import GENESIS, BrokenRecord, Head, Record, read_record
from jobsvc.store import statements as sql
from jobsvc.store.audit_file import AUDIT_FILE, ROTATED, TORN, files
from jobsvc.store.connection import open_look
from jobsvc.store.folder import DATABASE_FILE

PROBLEMS_MAX: Final = 20
"""So many are told; the first says where it began."""


class AuditReport(msgspec.Struct):
    """What a check found.

    Attributes:
        problems: each a sentence that names file, line and record.
        records: how many are whole; `first` and `last` are their numbers, 0 when there are none.
        heads: how many places of the chain the database knows; None when it cannot be asked.
    """

    file: str
    ok: bool = True
    problems: list[str] = msgspec.field(default_factory=list)
    records: int = 0
    first: int = 0
    last: int = 0
    heads: int | None = None


class _Walk:
    """One walk over all records, oldest first."""

    def __init__(self, report: AuditReport, heads: dict[int, str]) -> None:
        self._report = report
        self._heads = heads
        self._head: Head | None = None
        self._torn: tuple[str, str] | None = (
            None  # (place, hash) of a line that the next record must own up to
        )
        self._begun_changed = False  # whether the first line is none
        self._changed = (
            0  # lines behind the last whole record that are none: they stand where records are missing
        )
        # Number of the oldest record: the first of all, or the one that a rotation has told; None when it told none.
        self._begins: int | None = 1

    def line(self, place: str, text: bytes) -> None:
        """The next one."""
        try:
            record, digest = read_record(text)
        except BrokenRecord as error:
            after = f"after record {self._head.seq}" if self._head else "at the beginning"
            self._settle_torn(None)
            self._torn = (f"{place} ({after}): {error}", sha256(text.rstrip(b"\n")).hexdigest())
            return
        self._settle_torn(record)
        self._follow(place, record, digest)
        self._head = Head(record.seq, digest)
        self._changed = 0
        self._report.first = self._report.first or record.seq
        self._report.last = record.seq
        self._report.records += 1
        if record.what == ROTATED:
            told = record.target
            self._begins = int(told) if told is not None and told.isascii() and told.isdigit() else None

    def end(self) -> None:
        """There are no more."""
        self._settle_torn(None)
        last = self._report.last
        newest = max(self._heads, default=0)
        if newest > last:
            self.problem(f"{_missing(last + 1, newest)} at the end: the database knows of them")
        if self._begins is not None and self._report.first > self._begins and not self._begun_changed:
            self.problem(f"{_missing(self._begins, self._report.first - 1)} at the beginning")

    def problem(self, words: str) -> None:
        """Note it."""
        self._report.ok = False
        if len(self._report.problems) < PROBLEMS_MAX:
            self._report.problems.append(words)

    def _settle_torn(self, record: Record | None) -> None:
        """A broken line is right only where the record behind it tells of it: a crash has cut it off."""
        if self._torn is None:
            return
        (words, digest), self._torn = self._torn, None
        if record is None or record.what != TORN or record.target != digest:
            self.problem(words)
            self._changed += 1

    def _follow(self, place: str, record: Record, digest: str) -> None:
        head = self._head
        if head is None:
            self._begun_changed = bool(self._changed)
            known = self._heads.get(record.seq - 1, GENESIS if record.seq == 1 else None)
            if known is not None and known != record.prev:
                self.problem(f"{place}: record {record.seq} does not follow the one that the database knows")
        elif record.seq > head.seq + 1:
            if record.seq - head.seq - 1 > self._changed:  # else they are there, and told to be changed
                self.problem(f"{place}: {_missing(head.seq + 1, record.seq - 1)} before record {record.seq}")
        elif record.seq <= head.seq:
            self.problem(
                f"{place}: record {record.seq} stands behind record {head.seq}: out of order, or twice"
            )
        elif record.prev != head.hash:
            self.problem(
                f"{place}: record {record.seq} does not follow record {head.seq}: one of them was replaced"
            )
        if self._heads.get(record.seq, digest) != digest:
            self.problem(f"{place}: record {record.seq} is another than the one that the database knows")


def check(folder: Path) -> AuditReport:
    """Look through the whole log of a data directory, also beside a daemon.

    Raises:
        OSError: a file cannot be read.
    """
    path = folder / AUDIT_FILE
    report = AuditReport(str(path))
    heads = _heads(folder / DATABASE_FILE)
    report.heads = None if heads is None else len(heads)
    walk = _Walk(report, heads or {})
    if heads is None and (folder / DATABASE_FILE).exists():
        walk.problem(f"{folder / DATABASE_FILE} cannot be asked where the log should end")
    for place, text in _lines(path):
        walk.line(place, text)
    walk.end()
    if not report.records and not (folder / DATABASE_FILE).exists() and not files(path):
        walk.problem(
            f"{folder} holds neither an audit log nor a database: name the data directory of a daemon"
        )
    return report


def _missing(first: int, last: int) -> str:
    return f"record {first} is missing" if first == last else f"records {first} to {last} are missing"


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    for file in files(path):
        with file.open("rb") as opened:
            for number, text in enumerate(opened, 1):
                yield f"{file.name} line {number}", text


def _heads(database: Path) -> dict[int, str] | None:
    """Number → hash of the records that the database knows; None when there is no such database."""
    if not database.exists():
        return None
    try:
        with closing(open_look(str(database), "mode=ro")) as db:
            return {seq: bytes(digest).hex() for seq, digest in db.execute(sql.AUDIT_HEADS)}
    except sqlite3.Error:
        return None
