"""F2: connections to the database: opened, checked, migrated, and how their errors are told apart.

Runs on whatever thread calls; a connection stays with one thread at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from jobsvc.model.crashpoints import crash
from jobsvc.model.errors import JobsvcError
from jobsvc.ports import Durability
from jobsvc.store.schema import APPLICATION_ID, MIGRATIONS, PAGE_BYTES
from jobsvc.store.statements import VARIABLES_MAX

MEMORY: Final = ":memory:"

SQLITE_MIN: Final = (3, 35, 0)
"""UPDATE FROM came with 3.33; older than 3.35 is not tested."""
BUSY_MS: Final = 5_000
"""How long a statement waits for another process's lock, a backup tool's say, before it fails."""
WRITER_CACHE_KIB: Final = 16 * 1024
"""Pages of the newest 60,000 jobs or so: what is claimed and settled next is still in memory."""
READER_CACHE_KIB: Final = 2 * 1024
CHECKPOINT_PAGES: Final = 4_000
"""16 MB of WAL before its pages go to the file: a page changed by insert, claim and outcome goes there once."""
WAL_KEEP_BYTES: Final = 64 * 1024 * 1024
"""A WAL that grew larger behind a slow reader is cut back to this."""
STATEMENTS_KEPT: Final = 256


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


def open_writer(path: str, durability: Durability, make: Connect = connect) -> sqlite3.Connection:
    """The one connection that writes, made by `make`: database created or migrated, pragmas set.

    Raises:
        StoreRefused: not a database, not ours, newer than this program, not writable, or SQLite is too old.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        wanted = ".".join(map(str, SQLITE_MIN))
        raise StoreRefused(
            path, f"SQLite {wanted} or later is needed, this Python has {sqlite3.sqlite_version}."
        )
    try:
        db = make(path)
    except sqlite3.Error as error:
        raise StoreRefused(
            path, f"cannot be opened ({error}); check the folder and its permissions."
        ) from error
    try:
        _prepare(db, path, durability)
    except sqlite3.Error as error:
        db.close()
        raise StoreRefused(path, _trouble(error)) from error
    except StoreRefused:
        db.close()
        raise
    return db


def _trouble(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return "is no SQLite database; move it away, or name another data directory."
    if code == sqlite3.SQLITE_CORRUPT:
        return f"is damaged ({error}); restore a backup, or move it away to start empty."
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"cannot be written ({error}); check the permissions of the file and its folder."
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "is locked by another process; stop that first."
    if is_disk_full(error):
        return "cannot be opened, the disk is full; free some space."
    return f"cannot be used ({error})."


def _prepare(db: sqlite3.Connection, path: str, durability: Durability) -> None:
    version = _check_ours(db, path)
    db.execute("SELECT json_group_array(json('[]'))")  # built in since 3.38; before that a build may lack it
    if db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) < VARIABLES_MAX:
        raise StoreRefused(
            path, f"this SQLite was built for fewer than {VARIABLES_MAX} variables in a statement."
        )
    if version == 0:
        # These three hold only when they are set before the first table.
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")
    if path != MEMORY:
        (mode,) = db.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise StoreRefused(path, "its file system cannot hold a write-ahead log; use a local disk.")
    for pragma in (
        f"synchronous={'FULL' if durability == 'power' else 'NORMAL'}",
        f"wal_autocheckpoint={CHECKPOINT_PAGES}",
        f"journal_size_limit={WAL_KEEP_BYTES}",
        f"cache_size=-{WRITER_CACHE_KIB}",
        "temp_store=MEMORY",
        "secure_delete=OFF",  # Debian's default; overwriting what is freed doubles the cost of removal
        "trusted_schema=OFF",
        "cell_size_check=ON",
    ):
        db.execute(f"PRAGMA {pragma}")
    for number, migration in enumerate(MIGRATIONS[version:], version + 1):
        _migrate(db, number, migration)


def _check_ours(db: sqlite3.Connection, path: str) -> int:
    """The number of the last migration applied; 0 for an empty file."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreRefused(path, "is the database of another program; name another data directory.")
    if version > len(MIGRATIONS):
        raise StoreRefused(
            path,
            f"was written by a newer jobsvc (schema {version}, this one knows {len(MIGRATIONS)}); start that one.",
        )
    return int(version)


def _migrate(db: sqlite3.Connection, number: int, statements: tuple[str, ...]) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            db.execute(statement)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={number}")
        crash("CP14")
        db.execute("COMMIT")
    except sqlite3.Error:
        rollback(db)
        raise


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


def close_writer(db: sqlite3.Connection) -> None:
    """Bring everything into the main file and close."""
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    crash("CP16")
    db.close()


def rollback(db: sqlite3.Connection) -> None:
    """End a failed transaction; SQLite may have ended it already."""
    if db.in_transaction:
        # When even this fails, the error that led here says more; the next BEGIN will not pass.
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")


def is_disk_full(error: sqlite3.Error) -> bool:
    """Whether space ran out; nothing was lost, and it goes on when there is space again."""
    code = getattr(error, "sqlite_errorcode", 0)
    # The index of the WAL is a shared memory file, and growing it fails with a code of its own.
    return bool(code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE)


def disk_full() -> JobsvcError:
    """What each caller of a group gets that found no space."""
    return JobsvcError(
        "disk_full", "The disk of the data directory is full; nothing of this request was stored."
    )
