"""A connection of apsw's with the face of `sqlite3.Connection`, so that the store runs on a recorded file system.

Only what `jobsvc.store` uses. apsw brings an SQLite of its own, newer than most systems'; what it wrote is read again
by the SQLite of this Python.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import apsw

from jobsvc.store.connection import BUSY_MS, STATEMENTS_KEPT, Connect
from tests.torture.filelog import FileLog

_CHANGES_ROWS = ("INSERT", "UPDATE", "DELETE", "REPLACE")


class Rows:
    """The face of `sqlite3.Cursor`: the rows of one statement, all fetched."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self.rowcount = rowcount
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class RecordedConnection:
    """The face of `sqlite3.Connection`, in autocommit mode.

    Args:
        log: the file system that records.
        path: of the database.
        edit: what is run in place of a statement; mutants change pragmas by it.
        before_commit: called before each COMMIT.
    """

    def __init__(
        self, log: FileLog, path: str, edit: Callable[[str], str], before_commit: Callable[[], None]
    ) -> None:
        self._edit = edit
        self._before_commit = before_commit
        with _as_sqlite3():
            self._db = apsw.Connection(path, vfs=log.name, statementcachesize=STATEMENTS_KEPT)
        self._db.set_busy_timeout(BUSY_MS)

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Rows:
        if statement == "COMMIT":
            self._before_commit()
        with _as_sqlite3():
            rows = self._db.execute(self._edit(statement), tuple(parameters)).fetchall()
        changes_rows = statement.lstrip().upper().startswith(_CHANGES_ROWS)
        return Rows(rows, self._db.changes() if changes_rows else -1)

    def getlimit(self, category: int) -> int:
        return self._db.limit(category)

    def close(self) -> None:
        with _as_sqlite3():
            self._db.close()


class _as_sqlite3:  # noqa: N801 - reads as a statement
    """Errors of apsw's become those of `sqlite3`, with the code that says which."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, apsw.Error):
            as_class = (
                sqlite3.IntegrityError
                if isinstance(error, apsw.ConstraintError)
                else sqlite3.DatabaseError
                if isinstance(error, (apsw.CorruptError, apsw.NotADBError))
                else sqlite3.OperationalError
            )
            told = as_class(str(error))
            told.sqlite_errorcode = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
            raise told from error


def connect_to(
    log: FileLog,
    edit: Callable[[str], str] = str,
    before_commit: Callable[[], None] = lambda: None,
) -> Connect:
    """How the store connects to a file on this file system."""

    def connect(path: str) -> sqlite3.Connection:
        return cast("sqlite3.Connection", RecordedConnection(log, path, edit, before_commit))

    return connect
