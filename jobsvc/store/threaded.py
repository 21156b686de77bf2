"""F2: the store on a file, with Deferreds: one thread writes, in groups; a few others read. Nothing here blocks.

A group is whatever gathered while the last commit ran: under load many calls share one flush of the disk, and a
single call waits for nothing. All answers of a group come back in one wake-up of the reactor.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from jobsvc.model.errors import CannotWrite, JobsvcError
from jobsvc.ports import Durability
from jobsvc.runtime.threads import NamedPool
from jobsvc.store.connection import is_broken, open_reader
from jobsvc.store.face import StoreFace
from jobsvc.store.reads import Reads
from jobsvc.store.session import Refused
from jobsvc.store.sqlite import MERGED, Call, SqliteStore

GROUP_ROWS_MAX: Final = 2_000
"""About 30 ms of work: what waits behind a large group must not wait long."""
SUBMITS_WAITING_MAX: Final = 50_000
"""Jobs handed in and not yet stored; beyond that submits are refused (`overloaded`), everything else still goes in."""
READERS: Final = 3
READS_WAITING_MAX: Final = 10_000
"""More than all connections the daemon accepts can ask for at once."""
LISTERS: Final = 2
"""Threads for lists, which may look at every row there is (a label that nobody has): they must not hold up the others,
whose reads take microseconds."""
LISTS_WAITING_MAX: Final = 500
"""Lists that wait for those; more are refused (`overloaded`)."""

T = TypeVar("T")
_Asked = tuple[Call, Deferred[Any], int]
"""A call, who waits for its answer, and how many groups were known then not to have been written for now."""
_Answer = tuple[Deferred[Any], Any]


class ThreadedStore(StoreFace):
    """The `Store` on a database file.

    Args:
        path: of the database file.
        durability: `power` or `process`.
        reactor: where answers are delivered.
        on_fatal: told once when a write failed for good, or a read found file or disk broken. Every write after that is
            answered with that failure, and nothing is written any more: the daemon must end and start again.
        monotonic: measures commits.
    """

    def __init__(
        self,
        path: str,
        durability: Durability,
        reactor: IReactorFromThreads,
        on_fatal: Callable[[Failure], None],
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._store = SqliteStore(path, durability)
        self.durability = durability
        self._reactor = reactor
        self._on_fatal = on_fatal
        self._inbox: SimpleQueue[_Asked | None] = SimpleQueue()
        self._full_groups = 0  # groups that could not be written for now; the writer counts
        self._passing: CannotWrite | None = None  # why the last of them could not
        self._known_groups = 0  # …and how many of them the reactor has been told of
        self._submits_waiting = 0
        self._broken: Failure | None = None
        self._ended: Deferred[None] = Deferred()
        self._writer = threading.Thread(target=self._work, name="jobsvc-store-writer", daemon=True)
        self._pool = NamedPool(reactor, "jobsvc-store-reader", READERS, READS_WAITING_MAX)
        self._lists = NamedPool(reactor, "jobsvc-store-lister", LISTERS, LISTS_WAITING_MAX)
        self._reader = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []

    # -- life
    def open(self) -> Deferred[None]:
        """Start the writer, which opens the database."""
        self._opened: Deferred[None] = Deferred()
        self._writer.start()
        return self._opened

    def close(self) -> Deferred[None]:
        """End the readers, finish the writes in hand, checkpoint (not after a fatal failure), end the writer."""

        async def in_order() -> None:
            await self._pool.stop()
            await self._lists.stop()
            for connection in self._reader_connections:
                connection.close()
            if self._writer.ident is None:  # a stop that came before `open`
                return
            self._inbox.put(None)
            await self._ended
            self._writer.join()

        return Deferred.fromCoroutine(in_order())

    # -- for people
    @property
    def waiting_calls(self) -> int:
        """Calls that wait for the writer."""
        return self._inbox.qsize()

    @property
    def reads(self) -> int:
        """Reads that wait or run."""
        return self._pool.in_flight + self._lists.in_flight

    @property
    def broken(self) -> bool:
        """Whether nothing can be written or read any more."""
        return self._broken is not None

    # -- doors
    def _write(self, kind: str, *args: Any) -> Deferred[Any]:
        if kind == "submit":
            if self._submits_waiting >= SUBMITS_WAITING_MAX:
                return fail(
                    JobsvcError("overloaded", "Too many jobs wait to be stored; try again.", retry_after_s=1)
                )
            self._submits_waiting += len(args[0])
        answer: Deferred[Any] = Deferred()
        self._inbox.put((Call(kind, args), answer, self._known_groups))
        return answer

    def _read(self, kind: str, *args: Any, **options: Any) -> Deferred[Any]:
        pool = self._lists if kind == "list" else self._pool
        return pool.run(self._read_here, kind, args, options).addErrback(self._unread)

    def _unread(self, failure: Failure) -> Failure:
        if is_broken(failure.value) and self._broken is None:
            self._broken = failure
            self._fatal("a read of {path} failed", failure)
        return failure

    # -- reader threads
    def _read_here(self, kind: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        reads: Reads | None = getattr(self._reader, "reads", None)
        if reads is None:
            connection = open_reader(self._store.path)
            self._reader_connections.append(connection)
            reads = self._reader.reads = Reads(connection, self._store.policies)
        return reads.steady(kind, *args, **options)

    # -- the writer thread
    def _work(self) -> None:
        try:
            self._store.open()
        except Exception:  # noqa: BLE001 - no Deferred is awaited here; whoever waits for `open` is told
            self._reactor.callFromThread(self._opened.errback, Failure())
            self._reactor.callFromThread(self._ended.callback, None)  # a close must not wait for this thread
            return
        self._reactor.callFromThread(self._open)
        while (group := self._gather()) is not None:
            self._run(group)
        try:
            if self._broken is None:
                self._store.close()
            else:
                self._store.abandon()
        except CannotWrite as refusal:
            self._log.warn(
                "{path} could not be closed: {refusal} The next start will check it.",
                path=self._store.path, refusal=refusal.detail, action="not_closed",
            )  # fmt: skip
            self._reactor.callFromThread(self._ended.callback, None)
        except Exception:  # noqa: BLE001 - as above, for `close`
            self._reactor.callFromThread(self._ended.errback, Failure())
        else:
            self._reactor.callFromThread(self._ended.callback, None)

    def _gather(self) -> list[_Asked] | None:
        """Wait for the first call, then take all that wait with it; None when the store is closed."""
        first = self._inbox.get()
        if first is None:
            return None
        group = [first]
        rows = _rows(first[0])
        while rows < GROUP_ROWS_MAX:
            try:
                waiting = self._inbox.get_nowait()
            except Empty:
                break
            if waiting is None:
                self._inbox.put(None)  # nothing is handed in after it, so it stays the last
                break
            group.append(waiting)
            rows += _rows(waiting[0])
        return group

    def _run(self, group: list[_Asked]) -> None:
        submitted = sum(len(call.args[0]) for call, _, _ in group if call.kind == "submit")
        fatal: Failure | None = None
        refused: list[Refused] = []
        self.figures.taken = began = self._monotonic()
        try:
            if self._broken is not None:
                self._broken.raiseException()
            answers = self._written(group)
            refused = self._store.take_refused()
            self.figures.committed(len(group), began, self._monotonic())
        except JobsvcError as refusal:
            answers = [Failure(refusal) for _ in group]
        except Exception as error:  # noqa: BLE001 - every caller is told, and the daemon
            if self._broken is None:
                self._broken = fatal = Failure()
            answers = [Failure(error) for _ in group]
        self.figures.taken = None
        delivered = [(deferred, answer) for (_, deferred, _), answer in zip(group, answers, strict=True)]
        self._reactor.callFromThread(self._deliver, delivered, submitted, refused, fatal, self._full_groups)

    def _written(self, group: list[_Asked]) -> list[Any]:
        if group[0][2] != self._full_groups and self._passing is not None:
            # Asked for in ignorance of a full disk: what was to come before it is not stored, so neither is this.
            raise self._passing.with_traceback(None)
        try:
            return self._store.group([call for call, _, _ in group])
        except CannotWrite as refusal:
            self._full_groups += 1
            self._passing = refusal
            raise

    # -- back on the reactor
    def _open(self) -> None:
        self.figures.opened = True
        opened = self._store.opened
        if opened.backup is not None:
            self._log.info(
                "the database had schema {schema}; it was migrated, and is kept as it was in {backup}",
                schema=opened.migrated_from, backup=str(opened.backup), action="migrated",
            )  # fmt: skip
        if opened.unclean:
            self._log.warn(
                "the last daemon on {path} ended without closing it; the file was checked in {checked_s:.3f} s",
                path=self._store.path, checked_s=opened.checked_s, action="unclean_start",
            )  # fmt: skip
        self._opened.callback(None)

    def _fatal(self, words: str, failure: Failure) -> None:
        self._log.failure(words, failure, path=self._store.path, action="store_failed")
        self._on_fatal(failure)

    def _deliver(
        self,
        answers: list[_Answer],
        submitted: int,
        refused: list[Refused],
        fatal: Failure | None,
        full_groups: int,
    ) -> None:
        self._submits_waiting -= submitted
        self._count(refused)
        self._known_groups = full_groups
        for deferred, answer in answers:
            if isinstance(answer, Failure):
                deferred.errback(answer)
            else:
                deferred.callback(answer)
        if fatal is not None:
            self._fatal("a write to {path} failed", fatal)


def _rows(call: Call) -> int:
    return len(call.args[0]) if call.kind in MERGED else 1
