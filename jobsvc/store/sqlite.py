"""F2: the store on one SQLite connection, blocking: what `threaded` runs on its writer thread and `memory` inline.

The writes of `ports.Store` with plain values; the reads are those of `reads`. Must not be used by two threads at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, cast

from jobsvc.model.job import Job
from jobsvc.ports import Append, Change, Claim, Durability, Move, Recovered, Settled, Step, Submitted
from jobsvc.store import changes, claiming, fenced, recovery, submitting
from jobsvc.store.connection import (
    MEMORY,
    Connect,
    abandon_writer,
    cannot_write,
    close_writer,
    connect,
    rollback,
)
from jobsvc.store.marks import LogWatch, part
from jobsvc.store.opening import Opened, open_writer, wall_us
from jobsvc.store.reads import Reads
from jobsvc.store.session import Refused, Session, Short


class Call(NamedTuple):
    """One call of a write: the name of the method and its arguments."""

    kind: str
    args: tuple[Any, ...]


MERGED: Final = frozenset(("submit", "append", "settle", "step", "move", "claim"))
"""Writes that take a list: the lists of a group are joined, kind by kind."""


class SqliteStore:
    """The store on `path`, or in memory.

    Args:
        path: of the database file; `:memory:` for one that ends with the object.
        durability: `power` flushes every commit to the disk; `process` survives the death of the process only.
        make: makes the connection.
        now_us: the wall clock, for the name of a backup.
    """

    def __init__(
        self,
        path: str = MEMORY,
        durability: Durability = "power",
        make: Connect = connect,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self.path = path
        self._make = make
        self._now_us = now_us
        self.opened = Opened()
        self.durability: Durability = "memory" if path == MEMORY else durability

    # -- life
    def open(self) -> None:
        """Open or create the database, check and migrate it: `opened` tells. Raises `StoreRefused`."""
        self._db, self.opened = open_writer(self.path, self.durability, self._make, self._now_us)
        self._log_watch = None if self.path == MEMORY else LogWatch(self.path)
        self._session = Session(self._db, unclean=self.opened.unclean)
        self.policies = self._session.policies
        self.reads = Reads(self._db, self.policies)

    def close(self) -> None:
        """Mark as closed, checkpoint and close.

        Raises:
            CannotWrite, sqlite3.Error: what was stored is kept, but the next start finds it as after a crash.
        """
        self._unwatch()
        with self._refusing():
            close_writer(self._db, self.path)

    def abandon(self) -> None:
        """Close after a fatal failure: nothing more is written, as if the process had been killed."""
        self._unwatch()
        abandon_writer(self._db, self.path)

    def _unwatch(self) -> None:
        if self._log_watch is not None:
            self._log_watch.close()

    def take_refused(self) -> list[Refused]:
        """The writes of attempts that the last group's fences have refused, now the caller's."""
        refused, self._session.refused = self._session.refused, []
        return refused

    # -- groups
    def group(self, calls: Sequence[Call]) -> list[Any]:
        """Run these calls in one transaction; their answers in the order of the calls.

        Raises:
            CannotWrite: for now; nothing of the group was stored.
            sqlite3.Error: any other failure of the database, which is fatal; nothing was stored either.
        """
        with self._refusing():
            try:
                return self._transaction(calls, each=False)
            except Short:
                return self._transaction(calls, each=True)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """What passes is a refusal, no failure."""
        try:
            yield
        except sqlite3.Error as error:
            refusal = cannot_write(error, self.path)
            if refusal is None:
                raise
            raise refusal from error

    def _transaction(self, calls: Sequence[Call], *, each: bool) -> list[Any]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._session.begin()
            answers = self._apply(calls, each=each)
            self._db.execute("COMMIT")
        except BaseException:
            rollback(self._db)
            self._session.forget()
            raise
        if self._log_watch is not None and self._log_watch.look():
            self._part(self._log_watch)
        return answers

    def _part(self, log: LogWatch) -> None:
        """A checkpoint has been made: the file must not say any more that it has taken in the log."""
        try:
            part(self._db)
        except sqlite3.Error as error:
            # What was asked for is committed. Without space the mark has to wait for the next checkpoint.
            if cannot_write(error, self.path) is None:
                raise
        log.look()

    def _apply(self, calls: Sequence[Call], *, each: bool) -> list[Any]:
        joined: dict[str, list[Any]] = {}
        for kind, args in calls:
            if kind in MERGED:
                joined.setdefault(kind, []).extend(args[0])
        written = {kind: iter(answers) for kind, answers in self._merged(joined, each=each)}
        return [
            list(islice(written[kind], len(args[0]))) if kind in MERGED else self._single(kind, *args)
            for kind, args in calls
        ]

    def _merged(self, joined: Mapping[str, list[Any]], *, each: bool) -> Iterator[tuple[str, list[Any]]]:
        session, reads = self._session, self.reads
        if "submit" in joined:
            yield "submit", submitting.submit(session, reads, joined["submit"])
        if "append" in joined:
            yield "append", fenced.append(session, joined["append"], each=each)
        if "settle" in joined or "step" in joined:
            ends, steps = joined.get("settle", []), joined.get("step", [])
            ended, stepped = fenced.settle_and_step(session, ends, steps, each=each)
            yield "settle", ended
            yield "step", stepped
        if "move" in joined:
            yield "move", changes.move(session, reads, joined["move"])
        if "claim" in joined:
            yield "claim", claiming.claim(session, reads, joined["claim"])

    def _single(self, kind: str, *args: Any) -> Any:
        session, reads = self._session, self.reads
        singles: dict[str, Callable[..., Any]] = {
            "change": partial(changes.change, session, reads),
            "wake": partial(changes.wake, session),
            "shift_retries": partial(changes.shift_retries, session),
            "expire": partial(changes.expire, session, reads),
            "delete": partial(changes.delete, session),
            "purge": partial(changes.purge, session),
            "recover": partial(recovery.recover, session),
        }
        return singles[kind](*args)

    def _one(self, kind: str, *args: Any) -> Any:
        return self.group((Call(kind, args),))[0]

    # -- writes, each in a transaction of its own
    def recover(self, now: int) -> Recovered:
        """Put back what was active."""
        return cast("Recovered", self._one("recover", now))

    def submit(self, jobs: Sequence[Job]) -> list[Submitted]:
        """Insert jobs."""
        return cast("list[Submitted]", self._one("submit", jobs))

    def append(self, chunks: Sequence[Append]) -> list[bool]:
        """Store chunks of active attempts."""
        return cast("list[bool]", self._one("append", chunks))

    def settle(self, ends: Sequence[Settled]) -> list[bool]:
        """Record outcomes."""
        return cast("list[bool]", self._one("settle", ends))

    def step(self, steps: Sequence[Step]) -> list[bool]:
        """Change active jobs without ending them."""
        return cast("list[bool]", self._one("step", steps))

    def move(self, moves: Sequence[Move]) -> list[Job | None]:
        """Change waiting jobs."""
        return cast("list[Job | None]", self._one("move", moves))

    def change(self, change: Change) -> Job | None:
        """Other fields for a waiting job."""
        return cast("Job | None", self._one("change", change))

    def claim(self, claims: Sequence[Claim]) -> list[list[Job]]:
        """Queued → running."""
        return cast("list[list[Job]]", self._one("claim", claims))

    def wake(self, now: int, limit: int) -> Mapping[str, int]:
        """Due jobs → queued."""
        return cast("Mapping[str, int]", self._one("wake", now, limit))

    def shift_retries(self, by_us: int) -> int:
        """Move what waits for its next try."""
        return cast("int", self._one("shift_retries", by_us))

    def expire(self, now: int, limit: int) -> list[Job]:
        """Overdue waiting jobs → expired."""
        return cast("list[Job]", self._one("expire", now, limit))

    def delete(self, job_id: bytes) -> bool:
        """Remove a final job."""
        return cast("bool", self._one("delete", job_id))

    def purge(self, before: int, limit: int) -> int:
        """Remove jobs that ended before a moment."""
        return cast("int", self._one("purge", before, limit))
