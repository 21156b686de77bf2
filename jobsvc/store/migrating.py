"""F2: bringing a database to this program's schema: first a whole copy of it, then all that is missing in one step."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Final

from jobsvc.model.crashpoints import crash
from jobsvc.store import marks
from jobsvc.store.connection import StoreRefused, is_disk_full, rollback
from jobsvc.store.files import flush
from jobsvc.store.schema import APPLICATION_ID, MIGRATIONS

BACKUP_FOLDER: Final = "backup"
"""In the data directory."""


def stamp(now_us: int) -> str:
    """A moment as it stands in names of backups, in UTC."""
    second, micro = divmod(now_us, 1_000_000)
    return datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%S") + f".{micro:06}Z"


def advice(path: str) -> str:
    """What to do about a database that cannot be used, as the rest of a sentence."""
    folder = Path(path).parent / BACKUP_FOLDER
    newest = max(folder.glob("*.db"), key=lambda file: file.stat().st_mtime, default=None)
    if newest is None:
        return f"move it and {marks.log_file(path)} away and put a backup in its place, or start empty"
    return f"move it and {marks.log_file(path)} away and restore the newest backup: cp {newest} {path}"


def apply(db: sqlite3.Connection, version: int) -> None:
    """Run the migrations after number `version`, all or none. Leaves the connection as it was when they fail."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for migration in MIGRATIONS[version:]:
            for statement in migration:
                db.execute(statement)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        if version == 0:
            marks.born(db)
        else:
            # With this transaction the log begins: killed right after it, the log must be known as ours.
            marks.live(db)
        crash("CP14")
        db.execute("COMMIT")
    except BaseException:
        rollback(db)
        raise


def migrate(db: sqlite3.Connection, path: str, version: int, now_us: int) -> Path:
    """Copy the database as it is into the folder of backups, then migrate it. Answers where the copy is.

    Raises:
        StoreRefused: no room for the copy, or a migration failed; the database is as it was.
    """
    folder = Path(path).parent / BACKUP_FOLDER
    backup = _free(folder / f"jobsvc-schema{version}-{stamp(now_us)}.db")
    to = f"its schema is {version} and must become {len(MIGRATIONS)}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        copy(db, backup)
    except (sqlite3.Error, OSError) as error:
        raise StoreRefused(
            path,
            f"{to}, but it cannot be copied to {backup} first ({error}); make room there and start again. "
            "Nothing was changed.",
        ) from error
    try:
        apply(db, version)
    except sqlite3.Error as error:
        cure = "free some space" if is_disk_full(error) else "start the older jobsvc, and report this"
        raise StoreRefused(
            path,
            f"{to}, but that failed ({error}) and was taken back; {cure}. The copy made before is {backup}.",
        ) from error
    return backup


def _free(file: Path) -> Path:
    """A name that is not taken: a daemon killed in its migration may be started again within the same second."""
    names = chain([file], (file.with_stem(f"{file.stem}-{number}") for number in count(2)))
    return next(name for name in names if not name.exists())


def copy(db: sqlite3.Connection, to: Path) -> None:
    """Write a whole copy of the database into one file of its own, for the owner's eyes, also beside one who writes.

    It is there whole or not at all, and flushed to the disk.

    Raises:
        FileExistsError: `to` is there.
        OSError, sqlite3.Error: it cannot be written; nothing is left behind.
    """
    if to.exists():
        raise FileExistsError(f"{to} is there already")
    new = to.with_name(to.name + ".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(sqlite3.connect(new, isolation_level=None)) as target:
            db.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file that needs no log beside it
            if target.execute("SELECT 1 FROM sqlite_schema WHERE name='meta'").fetchone():
                target.execute("BEGIN")
                marks.born(target)
                target.execute("COMMIT")
        flush(new)
        crash("CP17")
        new.rename(to)
        flush(to.parent)
    except BaseException:
        for left in new.parent.glob(new.name + "*"):
            left.unlink()
        raise
