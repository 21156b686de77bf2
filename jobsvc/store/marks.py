"""F2: marks in the database that say how the last daemon left it, and whether its write-ahead log is its own.

All are rows of `meta`. `in_use` is 1 while a daemon has the database open, 0 after a clean stop. `identity` is a random
number for the life of the database, `life` one for each opening. `log` is the first salt of the write-ahead log of that
opening: SQLite adds 1 to it whenever it begins the log anew, so a log that lies beside the file must bear a number a
little above the one in the file, else it is of another database. `whole` is 0 in the file and 1 in the log while a
daemon works: when the log is gone, a file that says 1 has taken it in (any program that opens a database after a crash
does that when it closes it), while one that says 0 has lost it.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from pathlib import Path
from typing import Final, Literal, NamedTuple

IN_USE: Final = "in_use"
IDENTITY: Final = "identity"
LIFE: Final = "life"
LOG: Final = "log"
WHOLE: Final = "whole"

LOG_HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
_LOG_MAGIC: Final = (0x377F0682, 0x377F0683)
_SALT: Final = slice(16, 20)
_FRAME_SALT: Final = slice(8, 12)
SALT_BYTES: Final = 4
LOG_STARTS_MAX: Final = 1 << 20
"""How often one daemon may begin its log anew: at 16 MB each, 16 TB. A foreign log passes by chance once in 4,096."""

_SET: Final = (
    "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value=excluded.value"
)
_SET_RANDOM: Final = (
    "INSERT INTO meta (name, value) VALUES (?, random()) ON CONFLICT (name)"
    " DO UPDATE SET value=excluded.value"
)
_SET_ONCE: Final = "INSERT INTO meta (name, value) VALUES (?, random()) ON CONFLICT (name) DO NOTHING"
_READ: Final = "SELECT name, value FROM meta"


class Marks(NamedTuple):
    """The marks as they stand; None where a program wrote that knew none."""

    in_use: int | None = None
    identity: int | None = None
    life: int | None = None
    log: int | None = None
    whole: int | None = None

    @property
    def log_lost(self) -> bool:
        """Whether the file alone, without a log beside it, has lost what was stored last."""
        return self.in_use == 1 and self.whole == 0


def log_file(path: str) -> Path:
    """Where SQLite keeps the write-ahead log of the database `path`."""
    return Path(path + "-wal")


def log_number(path: str) -> int | None:
    """The first salt of the database's write-ahead log; None when there is no log, or nothing in it. A log whose
    header the power cut in two is none to SQLite, whatever number stands in it.
    """  # fmt: skip
    try:
        with log_file(path).open("rb") as file:
            header = file.read(LOG_HEADER_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(header) <= LOG_HEADER_BYTES or int.from_bytes(header[:4], "big") not in _LOG_MAGIC:
        return None
    if _checksum((0, 0), header[:24], _order(header)) != _two(header[24:32]):
        return None
    return int.from_bytes(header[_SALT], "big")


def is_own_rest(path: str, file: Marks) -> bool:
    """Whether a log without a whole header can be what a power cut left of the database's own. SQLite had begun it
    anew then, so its first frame, old or new, still bears a number of this life.
    """  # fmt: skip
    with log_file(path).open("rb") as opened:
        start = opened.read(LOG_HEADER_BYTES + FRAME_HEADER_BYTES)
    if len(start) < LOG_HEADER_BYTES + FRAME_HEADER_BYTES:
        return False
    salts = (start[_SALT], start[LOG_HEADER_BYTES:][_FRAME_SALT])
    return file.log is None or any(_follows(int.from_bytes(salt, "big"), file.log) for salt in salts)


def holds_commit(path: str) -> bool:
    """Whether there is a whole transaction in the log. A daemon killed in its first leaves none: SQLite, which goes by
    the checksums as this does, then takes the file as it is, whoever began the log.
    """  # fmt: skip
    with log_file(path).open("rb") as file:
        header = file.read(LOG_HEADER_BYTES)
        order = _order(header)
        page_bytes = int.from_bytes(header[8:12], "big")
        sums = _checksum((0, 0), header[:24], order)
        if sums != _two(header[24:32]):
            return False
        while len(frame := file.read(FRAME_HEADER_BYTES + page_bytes)) == FRAME_HEADER_BYTES + page_bytes:
            sums = _checksum(sums, frame[:8] + frame[FRAME_HEADER_BYTES:], order)
            if frame[8:16] != header[16:24] or sums != _two(frame[16:24]):
                return False
            if any(frame[4:8]):  # the size of the database after the commit that this frame ends
                return True
    return False


def _order(header: bytes) -> Literal["big", "little"]:
    return "big" if header[3] & 1 else "little"


def _two(words: bytes) -> tuple[int, int]:
    return int.from_bytes(words[:4], "big"), int.from_bytes(words[4:], "big")


def _checksum(sums: tuple[int, int], data: bytes, order: Literal["big", "little"]) -> tuple[int, int]:
    """SQLite's checksum of the log, going on from an earlier one."""
    first, second = sums
    words = struct.iter_unpack(">II" if order == "big" else "<II", data)
    for one, two in words:
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


def read(db: sqlite3.Connection) -> Marks:
    """The marks of a database that has the table `meta`."""
    found = dict(db.execute(_READ).fetchall())
    return Marks(*(found.get(name) for name in (IN_USE, IDENTITY, LIFE, LOG, WHOLE)))


def own_log(number: int | None, file: Marks, both: Marks) -> bool:
    """Whether a log is that of the database.

    Args:
        number: of the log; None when there is nothing in it.
        file: the marks in the file alone.
        both: the marks in the file and the log together.
    """
    if number is None or file.identity is None:
        return True
    if _follows(number, file.log):
        return True
    # Killed just after it was opened: the log's number had not reached the file, but the opening itself is in the log.
    # Or the power went while the number was on its way into the file: then the log has it, and the rest agrees.
    return both.identity == file.identity and (both.life != file.life or _follows(number, both.log))


def _follows(number: int, first: int | None) -> bool:
    """Whether a log with this number can be the one that began with `first`."""
    return first is not None and (number - first) % (1 << 32) < LOG_STARTS_MAX


def born(db: sqlite3.Connection) -> None:
    """Give a database an identity of its own: a new one, or a copy, which must not take up the log of the first."""
    db.execute("DELETE FROM meta WHERE name IN (?, ?, ?)", (LIFE, LOG, WHOLE))
    db.execute(_SET_RANDOM, (IDENTITY,))
    db.execute(_SET, (IN_USE, 0))


def live(db: sqlite3.Connection) -> None:
    """Begin a life: what the log holds from here on is known by it."""
    db.execute(_SET_RANDOM, (LIFE,))


def take(db: sqlite3.Connection, path: str) -> None:
    """Mark the database as in use, durably and in the file itself, where it outlives the loss of the log."""
    db.execute("BEGIN IMMEDIATE")
    db.execute(_SET, (IN_USE, 1))
    live(db)
    db.execute(_SET_ONCE, (IDENTITY,))
    db.execute("COMMIT")
    number = log_number(path)  # only now the log has one
    if number is not None:
        db.execute(_SET, (LOG, number))
    part(db)


def part(db: sqlite3.Connection) -> None:
    """Let file and log differ in `whole`, after a checkpoint has made them the same."""
    db.execute(_SET, (WHOLE, 0))
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    db.execute(_SET, (WHOLE, 1))


def leave(db: sqlite3.Connection) -> None:
    """Mark the database as closed by its user."""
    db.execute(_SET, (IN_USE, 0))


def _file_at(place: Path) -> tuple[int, int] | None:
    """Which file lies there."""
    try:
        info = place.stat()
    except FileNotFoundError:
        return None
    return info.st_dev, info.st_ino


class Misplaced(Exception):
    """An open database, or its log, is not what lies at its place any more: nobody will find what goes into it."""


class LogWatch:
    """Notices that SQLite has begun the log of an open database anew: all that was in it is in the file now. And that
    one of the two was taken away, or another put in its place.
    """  # fmt: skip

    def __init__(self, path: str) -> None:
        self._places = [(place, _file_at(place)) for place in (Path(path), log_file(path))]
        self._log = os.open(
            log_file(path), os.O_RDONLY | os.O_CLOEXEC
        )  # the same file until the database is closed
        self._salt = b""
        self.look()

    def look(self) -> bool:
        """Whether it has begun anew since the last look. A short read and two stats: this is asked after every commit.

        Raises:
            Misplaced: what was committed is lost to the next start.
        """  # fmt: skip
        for place, file in self._places:
            if _file_at(place) != file:
                raise Misplaced(
                    f"{place} was removed, or another file was put in its place, while it was open"
                )
        before, self._salt = self._salt, os.pread(self._log, SALT_BYTES, _SALT.start)
        return self._salt != before

    def close(self) -> None:
        """Look no more."""
        os.close(self._log)
