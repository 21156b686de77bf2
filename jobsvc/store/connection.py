"""F2: connections to the database: how they are made, closed and left, and how their errors are told apart.

Runs on whatever thread calls; a connection stays with one thread at a time. Whether a file may be used at all decides
`opening`.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from jobsvc.model.crashpoints import crash
from jobsvc.model.errors import CannotWrite
from jobsvc.store import marks

MEMORY: Final = ":memory:"

BUSY_MS: Final = 2_000
"""How long a statement waits for another process's lock before it fails. Who only reads, as a backup does, takes none;
and everybody who has asked for a write waits so long."""
READER_CACHE_KIB: Final = 2 * 1024
STATEMENTS_KEPT: Final = 256
PROBE_BYTES: Final = 4096
BUSY_AGAIN_S: Final = 1
"""`retry_after_s` of what another process's lock or a read-only file system has refused."""


class StoreRefused(Exception):
    """The database cannot be used. `file` is its path, `detail` one sentence: what is wrong and what to do."""

    def __init__(self, file: str, detail: str) -> None:
        super().__init__(f"{file}: {detail}")
        self.file = file
        self.detail = detail


Connect = Callable[[str], sqlite3.Connection]
"""How a connection to a file is made: the seam at which a test records, or cuts off, all that is written."""


def connect(path: str) -> sqlite3.Connection:
    """A connection in autocommit mode, as every one of the store is made."""
    # One thread at a time is this package's own rule; closing happens on another than using.
    return sqlite3.connect(
        path,
        timeout=BUSY_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS_KEPT,
    )


def open_reader(path: str, make: Connect = connect) -> sqlite3.Connection:
    """A connection that cannot write and never checkpoints."""
    db = make(path)
    for pragma in (
        "query_only=ON",
        "wal_autocheckpoint=0",
        f"cache_size=-{READER_CACHE_KIB}",
        "trusted_schema=OFF",
    ):
        db.execute(f"PRAGMA {pragma}")
    return db


Look = Literal["mode=ro", "immutable=1"]


def open_look(path: str, look: Look) -> sqlite3.Connection:
    """A connection that leaves file and log as they are, also when it is the last to be closed.

    Args:
        look: `mode=ro` sees the file and its log; `immutable=1` the file alone, as it lies there.
    """
    return sqlite3.connect(
        f"file:{quote(path)}?{look}", uri=True, timeout=BUSY_MS / 1000, isolation_level=None
    )


def close_writer(db: sqlite3.Connection, path: str) -> None:
    """Say in the database that it was closed, bring everything into the main file, and close.

    Raises:
        sqlite3.Error: it cannot be written; it is then left as after a crash.
    """
    if path != MEMORY:
        try:
            marks.leave(db)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            abandon_writer(db, path)
            raise
    crash("CP16")
    db.close()


def abandon_writer(db: sqlite3.Connection, path: str) -> None:
    """Close without a checkpoint: after a failed write nothing may be written that could look like a success.

    The last connection to be closed would bring the log into the file. So another is open meanwhile, one that cannot
    write: the log stays for the next start, which tells good from bad.
    """
    with closing(open_look(path, "mode=ro")) as other:
        with suppress(
            sqlite3.Error
        ):  # the read takes the lock that counts; a disk that is gone has no log to save
            other.execute("PRAGMA schema_version").fetchone()
        db.close()


def rollback(db: sqlite3.Connection) -> None:
    """End a failed transaction; SQLite may have ended it already."""
    if db.in_transaction:
        # When even this fails, the error that led here says more; the next BEGIN will not pass.
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")


# -- errors ----------------------------------------------------------------------------------------------------------

_LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_SYNC: Final = (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)


def code_of(error: sqlite3.Error) -> int:
    """SQLite's extended result code; 0 where it has none."""
    return getattr(error, "sqlite_errorcode", 0)


def trouble(error: sqlite3.Error) -> str:
    """Why a database cannot be opened, and what to do, as the rest of a sentence that began with its name."""
    code = code_of(error) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return "is no SQLite database; move it away, or name another data directory."
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"cannot be written ({error}); check the permissions of the file and its folder."
    if code in _LOCKED:
        return "is locked by another process; stop that first."
    if is_disk_full(error):
        return "cannot be opened, the disk is full; free some space."
    return f"cannot be used ({error}); look at the kernel's log for errors of the disk."


def is_disk_full(error: sqlite3.Error) -> bool:
    """Whether space ran out; nothing was lost, and it goes on when there is space again."""
    code = code_of(error)
    # The index of the WAL is a shared memory file, and growing it fails with a code of its own.
    return bool(code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE)


def is_broken(error: BaseException | None) -> bool:
    """Whether disk or file have failed, for a read: what is there cannot be relied upon any more."""
    return isinstance(error, sqlite3.Error) and code_of(error) & 0xFF in (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def disk_full() -> CannotWrite:
    """What each caller of a group gets that found no space."""
    return CannotWrite(
        "disk_full", "The disk of the data directory is full; nothing of this request was stored."
    )


def _locked() -> CannotWrite:
    return CannotWrite(
        "overloaded",
        "Another process keeps the database locked; nothing of this request was stored.",
        retry_after_s=BUSY_AGAIN_S,
    )


def _read_only() -> CannotWrite:
    return CannotWrite(
        "overloaded",
        "The file system of the data directory is read-only; nothing of this request was stored.",
        retry_after_s=BUSY_AGAIN_S,
    )


def cannot_write(error: sqlite3.Error, path: str) -> CannotWrite | None:
    """The refusal that the failure of a write amounts to; None when it is fatal: a failed flush above all.

    After a failed flush nobody knows what is on the disk, and the next flush would report success.
    """
    code = code_of(error)
    if is_disk_full(error):
        return disk_full()
    if code & 0xFF in _LOCKED:
        return _locked()
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        return _read_only()
    if code & 0xFF == sqlite3.SQLITE_IOERR and code not in _SYNC and path != MEMORY:
        # SQLite does not tell what the kernel said; a write of our own in the same folder does.
        said = _probe(path)
        if said == errno.EROFS:
            return _read_only()
        if said in (errno.ENOSPC, errno.EDQUOT):
            return disk_full()
    return None


def _probe(path: str) -> int | None:
    """What the kernel says to a small write beside the database: its error number, or None when it takes it."""
    file = Path(path + "-probe")
    try:
        probe = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(probe, bytes(PROBE_BYTES), 0)
            os.fsync(probe)
        finally:
            os.close(probe)
            file.unlink()
    except OSError as error:
        return error.errno
    return None
