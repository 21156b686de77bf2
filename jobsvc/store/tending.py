"""F2: what people do with a database from outside: look at it, copy it, migrate it; without a daemon or beside one.

Must not disturb a daemon: nothing here brings the log into the file or removes it while one has the database open,
and what only looks, or copies, keeps none from being started meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from jobsvc.store import marks
from jobsvc.store.connection import StoreRefused, close_writer, connect, open_look
from jobsvc.store.folder import daemon_in, holding
from jobsvc.store.migrating import BACKUP_FOLDER, advice, copy, stamp
from jobsvc.store.opening import exists, inspect, open_writer, refusal
from jobsvc.store.schema import MIGRATIONS

PROBLEMS_MAX: Final = 20
"""Lines of what a check found: a damaged database has thousands, and the first say where it is."""

_T = TypeVar("_T")

_COUNTS: Final = "SELECT state, count(*) FROM jobs GROUP BY state"


class Report(msgspec.Struct, kw_only=True):
    """What a check found.

    Attributes:
        file: the database.
        ok: whether a daemon would take it.
        problems: why not, or what is damaged; each a sentence for people.
        schema, schema_known: of the file, and the newest this program knows; null when the file cannot be read.
        closed: whether its last daemon closed it; false while one has it open, null from before that was marked.
        daemon: the process that has it open, null when none does.
        bytes, log_bytes: of the file and its write-ahead log.
        jobs: how many there are in each state.
    """

    file: str
    ok: bool = True
    problems: list[str] = msgspec.field(default_factory=list)
    schema: int | None = None
    schema_known: int = len(MIGRATIONS)
    closed: bool | None = None
    daemon: int | None = None
    bytes: int = 0
    log_bytes: int = 0
    jobs: dict[str, int] = msgspec.field(default_factory=dict)


def check(path: str) -> Report:
    """Look through the whole database, also beside a daemon. Changes nothing.

    Raises:
        StoreRefused: there is no such file.
    """
    _must_exist(path)
    file = Path(path)
    size = file.stat().st_size if file.exists() else 0
    report = Report(file=path, daemon=daemon_in(file.parent), bytes=size)
    log = marks.log_file(path)
    report.log_bytes = log.stat().st_size if log.exists() else 0
    try:
        exists(path)
        found, _ = _at_rest(path, lambda: inspect(path))
        report.schema = found.version
        report.closed = None if found.marks.in_use is None else not found.marks.in_use
        damage, report.jobs = _at_rest(path, lambda: _seen(path))
        report.problems += damage
    except StoreRefused as refused:
        report.problems.append(f"It {refused.detail}")
    except sqlite3.Error as error:
        report.problems.append(f"It {refusal(path, error).detail}")
    report.ok = not report.problems
    return report


def accept_missing_log(path: str) -> None:
    """Let the next start take a database whose write-ahead log is gone, if the file alone is whole.

    Raises:
        StoreRefused: a daemon has it, the file is damaged, or its log is there.
    """
    with _alone(path):
        _must_exist(path)
        if marks.log_file(path).exists():
            raise StoreRefused(
                path,
                f"has its write-ahead log, {marks.log_file(path)}; look at it with: jobsvc db check {path}",
            )
        with _speaking(path):
            with closing(open_look(path, "immutable=1")) as db:
                damage = _damage(db)
            if damage:
                raise StoreRefused(path, f"is damaged ({damage[0]}); {advice(path)}.")
            with closing(connect(path)) as db:
                marks.leave(db)


def backup(path: str, to: Path | None, now_us: int) -> Path:
    """Write a whole copy, as it is at one moment, also beside a daemon. Answers where it is.

    Args:
        to: a file that is not there yet, or a folder; None: the folder of backups beside the database.

    Raises:
        StoreRefused: no such database, or one that a start would refuse.
        OSError: the copy cannot be written; nothing of it is left.
    """
    with _speaking(path):
        _must_exist(path)
        exists(path)
        _at_rest(path, lambda: inspect(path))
        if to is None:
            to = Path(path).parent / BACKUP_FOLDER
            to.mkdir(mode=0o700, exist_ok=True)
        made = to / f"jobsvc-{stamp(now_us)}.db" if to.is_dir() else to
        _at_rest(path, lambda: _copied(path, made), made.unlink)
    return made


def migrate(path: str, now_us: Callable[[], int]) -> tuple[int, int, Path | None]:
    """Bring the database to this program's schema. Answers the schema before and after, and where the copy is.

    Raises:
        StoreRefused: a daemon has it, or it cannot be migrated; it is as it was.
    """
    with _alone(path), _speaking(path):
        _must_exist(path)
        exists(path)
        found, _ = inspect(path)
        if found.version == len(MIGRATIONS):
            return found.version, found.version, None
        db, opened = open_writer(path, "power", now_us=now_us)
        close_writer(db, path)
    return found.version, len(MIGRATIONS), opened.backup


def _must_exist(path: str) -> None:
    if not Path(path).is_file() and not marks.log_file(path).exists():
        raise StoreRefused(path, "is not there; name the data directory with: jobsvc --data-dir DIR db …")


def _seen(path: str) -> tuple[list[str], dict[str, int]]:
    """What is damaged, and how many jobs are in each state."""
    with _looking(path) as db:
        return _damage(db), dict(db.execute(_COUNTS).fetchall())


def _copied(path: str, to: Path) -> None:
    with _looking(path) as db:
        copy(db, to)


def _damage(db: sqlite3.Connection) -> list[str]:
    words = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})").fetchall()]
    return [] if words == ["ok"] else [" ".join(line.split()) for line in words]


@contextmanager
def _alone(path: str) -> Iterator[None]:
    with holding(Path(path).parent) as daemon:
        if daemon is not None:
            raise StoreRefused(path, f"is in use by a daemon (pid {daemon}); stop it first: kill {daemon}")
        yield


@contextmanager
def _speaking(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise refusal(path, error) from error


def _at_rest(path: str, look: Callable[[], _T], undo: Callable[[], object] = lambda: None) -> _T:
    """What a look at the database gives, or raises; looked at again when that was a mixture of two moments.

    A database without a log is read without a lock, as it lies there. So when a daemon that was started meanwhile has
    written to the file, nothing of it counts, and what came of it is taken back by `undo`; the next look finds a log.
    """
    while True:
        written = _written(path) if marks.log_number(path) is None else None
        try:
            seen = look()
        except (sqlite3.Error, StoreRefused):
            if written in (None, _written(path)):
                raise
        else:
            if written in (None, _written(path)):
                return seen
            undo()


def _written(path: str) -> tuple[int, int, int]:
    """Changes whenever the file is written to, whoever does it."""
    info = Path(path).stat()
    return info.st_ino, info.st_size, info.st_mtime_ns


@contextmanager
def _looking(path: str) -> Iterator[sqlite3.Connection]:
    """A connection that sees file and log, and leaves both as they are."""
    alone = marks.log_number(path) is None
    with closing(open_look(path, "immutable=1" if alone else "mode=ro")) as db:
        yield db
