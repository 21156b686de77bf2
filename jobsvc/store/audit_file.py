"""F2: the files of the audit log: appended to, never rewritten; rotated by size with the chain going on, kept by age.

Blocking; every method runs on one thread at a time, never the reactor's. `audit.log` is the newest, `audit.log.1` the
one before. A line that a crash cut off stays as it is, and the next record says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from jobsvc.model.audit import BrokenRecord, Entry, Head, chained, read_record
from jobsvc.model.clock import time_text
from jobsvc.model.limits import AUDIT_KEEP_DAYS, MIB
from jobsvc.store.files import flush

AUDIT_FILE: Final = "audit.log"
FILE_MAX_BYTES: Final = 16 * MIB
"""Of one file, about 35,000 records; then the next is begun, and it is looked which are old enough to go."""
FILES_KEPT: Final = 16
"""Files beside the newest; the oldest is removed when there are more: a quarter of a gigabyte in all."""
NUMBERS: Final = 2
"""Times as many numbers as files that are kept are ours: a crash between the new file and the removal of the oldest
leaves one too many. A file with a number far beyond, such as a date, was made by somebody else, and stays."""
_DAY_US: Final = 86_400 * 1_000_000
TAIL_BYTES: Final = 64 * 1024
"""Read of the end of a file at a start: any record is far shorter."""
TORN, BROKEN, GAP, ROTATED = "audit.torn", "audit.broken", "audit.gap", "audit.rotated"
"""What the log says of itself: a line was cut off by a crash; the last record is not what was written; records are
missing that the database knows of; a new file was begun, and where the oldest that is kept begins."""


class AuditFile:
    """The log of one data directory.

    Args:
        boot: this start of the daemon, in every record.
        now_us: the wall clock, for what the log says of itself, and for what is old.
        keep_days: files whose records are all older go; 0: none does for its age.
    """

    def __init__(
        self,
        folder: Path,
        boot: str,
        now_us: Callable[[], int],
        *,
        max_bytes: int = FILE_MAX_BYTES,
        kept: int = FILES_KEPT,
        keep_days: int = AUDIT_KEEP_DAYS,
    ) -> None:
        self.path = folder / AUDIT_FILE
        self._boot = boot
        self._now_us = now_us
        self._max_bytes = max_bytes
        self._kept = kept
        self._keep_us = keep_days * _DAY_US
        self._fd: int | None = None
        self._size = 0
        self.head = Head()
        self.dirty = False
        """Whether something was written that is not on the disk yet."""

    def open(self, anchor: Head | None) -> list[str]:
        """Go on behind the last record.

        Args:
            anchor: where the database saw the chain last.

        Returns:
            What is wrong with the end of the log, a sentence each; the log itself tells it too, in its next record.

        Raises:
            OSError: it cannot be read or written.
        """
        self._fd = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        os.fchmod(self._fd, 0o600)
        self._size = os.fstat(self._fd).st_size
        tail = _tail(self.path) or _tail(_numbered(self.path, 1))
        told: list[tuple[str, Entry, int]] = []
        lines = tail.split(b"\n")
        torn = lines.pop()
        self.head, whole = _last_good(lines)
        if torn:
            if self._size:
                self._write(b"\n")
            words = f"the last record was cut off by a crash ({len(torn)} bytes)"
            told.append((words, self._own(TORN, sha256(torn).hexdigest(), len(torn)), 0))
        if not whole:
            words = f"the end of the log is no record of it; the last good one is number {self.head.seq}"
            told.append((words, self._own(BROKEN, str(self.head.seq)), 0))
        if anchor is not None and anchor.seq > self.head.seq:
            first, last = self.head.seq + 1, anchor.seq
            words = f"records {first} to {last} are missing"
            told.append((words, self._own(GAP, f"{first}-{last}", last - first + 1), last - first + 1))
        elif anchor is not None and anchor.seq == self.head.seq and anchor.hash != self.head.hash:
            words = f"record {anchor.seq} is another than the one that the database knows"
            told.append((words, self._own(BROKEN, str(anchor.seq)), 0))
        for _, entry, skip in told:
            line, self.head = chained(self.head, self._boot, entry, skip=skip)
            self._write(line)
        return [f"{self.path}: {words}" for words, _, _ in told]

    def append(self, entries: Sequence[Entry], *, sync: bool) -> Head:
        """Write these; with `sync` they are on the disk when it returns.

        Raises:
            OSError: nothing of them was written.
        """
        if entries and self._size >= self._max_bytes:
            self._rotate()
        head, lines = self.head, []
        for entry in entries:
            line, head = chained(head, self._boot, entry)
            lines.append(line)
        if lines:
            self._write(b"".join(lines))
            self.head = head
        if sync and self.dirty and self._fd is not None:
            os.fdatasync(self._fd)
            self.dirty = False
        return self.head

    def close(self) -> None:
        """The end; what was written is on the disk. Raises OSError."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _own(self, what: str, target: str | None, count: int | None = None) -> Entry:
        return Entry(self._now_us(), "daemon", None, None, what, target, count)

    def _write(self, data: bytes) -> None:
        """All of it or nothing."""
        assert self._fd is not None
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            with suppress(
                OSError
            ):  # half a record would break the chain; the disk is full, taking away still works
                os.ftruncate(self._fd, self._size)
            raise
        self._size += done
        self.dirty = True

    def _rotate(self) -> None:
        """Begin the next file.

        What is not kept goes last, when the record that tells where the log now begins is on the disk: whatever happens
        in between, more is there than that record says, never less.
        """
        assert self._fd is not None
        os.fsync(self._fd)
        if self.path.exists():  # otherwise the try before this one came so far, and no further
            for number in self._older():
                _numbered(self.path, number).rename(_numbered(self.path, number + 1))
            self.path.rename(_numbered(self.path, 1))
        old, self._fd = (
            self._fd,
            os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600),
        )
        os.close(old)
        self._size = 0
        older = self._older()
        going = self._going(older)
        first = _first_of(_numbered(self.path, number) for number in older[len(going) :])
        own = self._own(ROTATED, str(self.head.seq + 1 if first is None else first))
        line, head = chained(self.head, self._boot, own)
        self._write(line)
        self.head = head
        os.fdatasync(self._fd)
        flush(self.path.parent)
        for number in going:
            _numbered(self.path, number).unlink(missing_ok=True)

    def _older(self) -> list[int]:
        """The numbers of the files before the newest, oldest first."""
        return [n for n in range(NUMBERS * self._kept, 0, -1) if _numbered(self.path, n).exists()]

    def _going(self, older: Sequence[int]) -> list[int]:
        """Those that are not kept: too many, or too old. The first that stays ends them, so that there is no hole."""
        bound = time_text(self._now_us() - self._keep_us) if self._keep_us else ""
        going: list[int] = []
        for number in older:
            if number <= self._kept and _ended_at(_numbered(self.path, number)) >= bound:
                break
            going.append(number)
        return going


def files(path: Path) -> list[Path]:
    """The files of the log that `path` is the newest of, oldest first."""
    numbered = [
        (int(each.name.rpartition(".")[2]), each)
        for each in path.parent.glob(f"{path.name}.*")
        if each.name.rpartition(".")[2].isdigit()
    ]
    older = [each for _, each in sorted(numbered, reverse=True)]
    return [*older, path] if path.exists() else older


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _tail(path: Path) -> bytes:
    """The end of a file, from the beginning of a line."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return b""
    return tail if size <= TAIL_BYTES else tail[tail.find(b"\n") + 1 :]


def _last_good(lines: Sequence[bytes]) -> tuple[Head, bool]:
    """The head behind the last line that is a record, and whether that is the last line of all."""
    for at in range(len(lines) - 1, -1, -1):
        with suppress(BrokenRecord):
            record, digest = read_record(lines[at])
            return Head(record.seq, digest), at == len(lines) - 1
    return Head(), not lines


def _ended_at(path: Path) -> str:
    """The time of the last record of a file; later than any when nothing in its end is a record."""
    for line in reversed(_tail(path).split(b"\n")):
        with suppress(BrokenRecord):
            return read_record(line)[0].at
    return "~"


def _first_of(paths: Iterable[Path]) -> int | None:
    """Number of the oldest record in these files, oldest first; None when there is none."""
    for path in paths:
        with path.open("rb") as opened, suppress(BrokenRecord):
            return read_record(opened.readline())[0].seq
    return None
