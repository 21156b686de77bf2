"""F2: whether a file may be used as the database, and opening it for writing: created, checked, migrated, marked.

What is there is looked at through connections that change nothing, so that a refused file stays as it was; and no
file is ever created over anything that could have been a database. Runs on the writer's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic, time_ns
from typing import Final, NamedTuple

from jobsvc.ports import Durability
from jobsvc.store import marks
from jobsvc.store.connection import (
    MEMORY,
    Connect,
    Look,
    StoreRefused,
    abandon_writer,
    code_of,
    connect,
    open_look,
    trouble,
)
from jobsvc.store.files import flush
from jobsvc.store.marks import Marks
from jobsvc.store.migrating import advice, apply, migrate
from jobsvc.store.schema import APPLICATION_ID, MIGRATIONS, PAGE_BYTES
from jobsvc.store.statements import VARIABLES_MAX

SQLITE_MIN: Final = (3, 35, 0)
"""UPDATE FROM came with 3.33; older than 3.35 is not tested."""
CHECK_ALWAYS_BYTES: Final = 64 * 1024 * 1024
"""A database of this size, 300,000 jobs, is checked in 0.2 s: at every start. Larger: after an unclean end."""
WRITER_CACHE_KIB: Final = 16 * 1024
"""Pages of the newest 60,000 jobs or so: what is claimed and settled next is still in memory. A daemon
grows by it, a few MB for each 10,000 jobs, until it is full; the readers add 2 MB each."""
CHECKPOINT_PAGES: Final = 4_000
"""16 MB of WAL before its pages go to the file: a page changed by insert, claim and outcome goes there once."""
WAL_KEEP_BYTES: Final = 64 * 1024 * 1024
"""A WAL that grew larger behind a slow reader is cut back to this."""


def wall_us() -> int:
    """The wall clock."""
    return time_ns() // 1000


class Opened(NamedTuple):
    """How a database was found.

    Attributes:
        unclean: the last daemon on it ended without closing it.
        checked_s: how long the check of the file took; None when it was not needed.
        migrated_from: the number of the schema it had, when that was an older one.
        backup: the copy that was made before it was migrated.
    """

    unclean: bool = False
    checked_s: float | None = None
    migrated_from: int | None = None
    backup: Path | None = None


class Found(NamedTuple):
    """What a file holds. `version` is the number of its schema."""

    version: int
    marks: Marks

    @property
    def unclean(self) -> bool:
        """Whether nobody has closed it. Before there were marks, nobody said."""
        return self.marks.in_use != 0


def open_writer(
    path: str, durability: Durability, make: Connect = connect, now_us: Callable[[], int] = wall_us
) -> tuple[sqlite3.Connection, Opened]:
    """The one connection that writes, made by `make`: database checked, created or migrated, pragmas set.

    Raises:
        StoreRefused: not a database, not ours, damaged, newer than this program, not writable, its log gone or that of
            another, or SQLite is too old.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        wanted = ".".join(map(str, SQLITE_MIN))
        raise StoreRefused(
            path, f"SQLite {wanted} or later is needed, this Python has {sqlite3.sqlite_version}."
        )
    if path == MEMORY:
        db = make(path)
        _prepare(db, path, durability)
        apply(db, 0)
        return db, Opened()
    try:
        if not exists(path):
            _create(path)
        found, opened = inspect(path)
        db = make(path)
    except sqlite3.Error as error:
        raise refusal(path, error) from error
    except OSError as error:
        raise StoreRefused(
            path, f"cannot be used ({error}); check the folder and its permissions."
        ) from error
    try:
        _prepare(db, path, durability)
        if found.version < len(MIGRATIONS):
            backup = migrate(db, path, found.version, now_us())
            opened = opened._replace(migrated_from=found.version, backup=backup)
        marks.take(db, path)
    except sqlite3.Error as error:
        abandon_writer(db, path)
        raise refusal(path, error) from error
    except StoreRefused:
        abandon_writer(db, path)
        raise
    return db, opened


def refusal(path: str, error: sqlite3.Error) -> StoreRefused:
    """Why this database cannot be used."""
    if code_of(error) & 0xFF == sqlite3.SQLITE_CORRUPT:
        return _damaged(path, str(error))
    return StoreRefused(path, trouble(error))


def _damaged(path: str, words: str) -> StoreRefused:
    return StoreRefused(path, f"is damaged ({words}); {advice(path)}.")


# -- what lies there -------------------------------------------------------------------------------------------------


def exists(path: str) -> bool:
    """Whether there is a database; False: there is nothing, and one may be created.

    Raises:
        StoreRefused: there is none, but there was one.
    """
    file, log = Path(path), marks.log_file(path)
    if not file.exists():
        if log.exists() and log.stat().st_size:
            raise StoreRefused(
                path,
                f"is missing, but its write-ahead log {log} is there; put the database back beside it, "
                "or move the log away to start empty.",
            )
        return False
    if not file.is_file():
        raise StoreRefused(path, "is no file; move it away, or name another data directory.")
    if not file.stat().st_size:
        raise StoreRefused(path, f"is empty, which a database of jobsvc never is; {advice(path)}.")
    return True


def inspect(path: str) -> tuple[Found, Opened]:
    """Look at a database that is there, with its log, and check it where that is needed. Changes nothing.

    Raises:
        StoreRefused: it must not be used.
        sqlite3.Error: it cannot be read.
    """
    number = marks.log_number(path)
    try:
        with closing(open_look(path, "immutable=1")) as alone:
            file = _found(alone, path)
    except sqlite3.Error:
        # Killed in the middle of a checkpoint: file and log together are whole, the file alone need not be.
        if number is None:
            raise
        file = None
    if number is None and file is not None and file.marks.log_lost:
        _refuse_lost_log(path, file.marks)
    look: Look = "immutable=1" if number is None else "mode=ro"
    with closing(open_look(path, look)) as both:
        found = _found(both, path)
        own = file is None or marks.own_log(number, file.marks, found.marks)
        if not own and marks.holds_commit(path):
            raise StoreRefused(
                path,
                f"lies beside the write-ahead log of another database, {marks.log_file(path)}; put its own log back, "
                "or move that one away.",
            )
        if not found.unclean and Path(path).stat().st_size > CHECK_ALWAYS_BYTES:
            return found, Opened()
        began = monotonic()
        _check(both, path)
        return found, Opened(unclean=found.unclean, checked_s=monotonic() - began)


def _refuse_lost_log(path: str, alone: Marks) -> None:
    """Raise unless something of the log is left. That of a power cut in its first page is enough: before it, all that
    was stored had been taken into the file.
    """  # fmt: skip
    log = marks.log_file(path)
    if not log.exists():
        happened, then = "is gone", "go on without it"
    elif not marks.is_own_rest(path, alone):
        happened, then = "was emptied or overwritten", "move it away and go on without it"
    else:
        return
    raise StoreRefused(
        path,
        f"was not closed, and its write-ahead log {log} {happened}, with all that was stored last; put the right one "
        f"back beside it, restore a backup, or {then}: jobsvc db check --accept-missing-wal {path}",
    )


def _found(db: sqlite3.Connection, path: str) -> Found:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID or version < 1:
        raise StoreRefused(path, "is the database of another program; name another data directory.")
    if version > len(MIGRATIONS):
        raise StoreRefused(
            path,
            f"was written by a newer jobsvc (schema {version}, this one knows {len(MIGRATIONS)}); start that one.",
        )
    return Found(version, marks.read(db))


def _check(db: sqlite3.Connection, path: str) -> None:
    db.execute("PRAGMA cell_size_check=ON")
    (words,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if words != "ok":
        raise _damaged(path, " ".join(words.replace("*** in database main ***", "").split()))


# -- making it usable ------------------------------------------------------------------------------------------------


def _create(path: str) -> None:
    """Make a new database beside the place where it is to be, and put it there whole."""
    new = Path(path + ".new")
    for left in new.parent.glob(new.name + "*"):
        left.unlink()
    with closing(connect(str(new))) as db:
        # These hold only when they are set before the first table.
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        apply(db, 0)
        db.execute("PRAGMA journal_mode=WAL")
    flush(new)
    new.rename(path)
    flush(new.parent)


def _prepare(db: sqlite3.Connection, path: str, durability: Durability) -> None:
    db.execute("SELECT json_group_array(json('[]'))")  # built in since 3.38; before that a build may lack it
    if db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) < VARIABLES_MAX:
        raise StoreRefused(
            path, f"this SQLite was built for fewer than {VARIABLES_MAX} variables in a statement."
        )
    if path == MEMORY:
        db.execute(f"PRAGMA page_size={PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")
    else:
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
