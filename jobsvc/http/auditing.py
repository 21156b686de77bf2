"""F3: the audit trail: who changed what, and who was refused; handed to a thread that writes it down.

A record costs the reactor one tuple in a list. Nothing waits for the log: what is told is written within
`GATHER_S`, on the disk within `SYNC_S`, and the database remembers every `ANCHOR_S` where the log stands. A `kill -9`
can cost the records of the first, a power cut those of the second; either, the counts of the refusals of a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.http.request import Request
from jobsvc.http.tally import Tally
from jobsvc.model.audit import Entry, Head
from jobsvc.ports import Store
from jobsvc.runtime.threads import NamedPool
from jobsvc.store.audit_file import AuditFile
from jobsvc.store.folder import FolderRefused

GATHER_S: Final = 0.1
"""Records gather for so long before they are written together: ten writes a second at most."""
SYNC_S: Final = 1.0
"""Between two syncs of the file: the database syncs a thousand times as often."""
ANCHOR_S: Final = 60.0
"""Between two moments that the database remembers."""
AGAIN_S: Final = 5.0
"""After a write that failed (the disk is full)."""
WAITING_MAX: Final = 50_000
"""Records that wait for the thread, some 30 MB; beyond, they are counted, and the count is written down."""
TARGET_MAX_CHARS: Final = 200
"""Of what a request names in its path; ids and names of tasks are shorter."""
WINDOW_S: Final = 60.0
"""Refusals are counted for so long; what was not written one by one is then told in few records."""
REFUSED: Final = frozenset((401, 403, 421, 429))
"""Statuses that say: not you, not so, not now."""
LOST: Final = "audit.lost"
"""What the log says of itself: records for which there was no room."""

InThread = Callable[..., Deferred[Any]]


class Trail(Protocol):
    """Where the edge tells what happened."""

    def changed(self, request: Request) -> None:
        """A request that changes something has its answer, or what it asked for is stored."""

    def refused(self, request: Request) -> None:
        """A request was answered; looked at for refusals of who asked."""

    def note(self, who: str, what: str, target: str | None = None) -> None:
        """Something that no request did."""


class AuditTrail:
    """See the module.

    Args:
        in_thread: runs a function on the log's own thread, one at a time.
        store: remembers where the log stands.
        stop: ends that thread.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        now_us: Callable[[], int],
        in_thread: InThread,
        file: AuditFile,
        store: Store,
        stop: Callable[[], Deferred[None]] = lambda: succeed(None),
    ) -> None:
        self._stop = stop
        self._clock = clock
        self._now_us = now_us
        self._in_thread = in_thread
        self._file = file
        self._store = store
        self._waiting: list[Entry] = []
        self._lost = 0
        self._timer: IDelayedCall | None = None
        self._open = False
        self._busy: Deferred[None] | None = None
        self._head = Head()
        self._anchored = Head()
        self._synced_at = self._anchored_at = clock.seconds()
        self._unsynced = False
        self._failing = False
        self._tally = Tally()  # of the refusals of this window
        self._window_at: float | None = None

    # -- Trail

    def changed(self, request: Request) -> None:
        """One record for one request that changes something; refusals of who asked are told by `refused`."""
        if request.audited or request.code in REFUSED:
            return
        request.audited = True
        count, of = request.counts or (None, None)
        decision = "left" if request.gone else "allowed" if request.refusal is None else "refused"
        self._put(request, request.route_name, request.target, count, of, decision, request.refusal)

    def refused(self, request: Request) -> None:
        """One record for a refusal of who asked, as long as there are few."""
        if request.code not in REFUSED or request.audited:
            return
        request.audited = True
        if self._window_at is None:
            self._window_at = self._clock.seconds()
        code = request.refusal
        if self._tally.admits(request.client_address, code, stranger=request.principal is None):
            what = f"edge.{code}" if request.route_name == "none" else request.route_name
            self._put(request, what, request.target, None, None, "refused", code)
        else:
            self._schedule()

    def note(self, who: str, what: str, target: str | None = None) -> None:
        """Something that no request did, like a reload by signal."""
        self._take(Entry(self._now_us(), who, None, None, what, target))

    # -- life

    async def begin(self) -> None:
        """Once the store is open. Raises `FolderRefused`: the log cannot be written."""
        anchor = await self._store.audit_head()
        self._anchored = anchor or Head()
        try:
            told = await self._in_thread(self._file.open, anchor)
        except OSError as error:
            raise FolderRefused(
                f"{self._file.path}: the audit log cannot be written ({error.strerror}): see to that, or say audit off"
            ) from None
        for words in told:
            self._log.error("audit log: {words}", words=words, action="audit_broken")
        self._head, self._unsynced, self._open = self._file.head, self._file.dirty, True
        self._schedule()

    async def close(self) -> None:
        """Write what waits, and remember where the log ends. Before the store is closed, which what fails here must not
        keep from being closed: it is logged.
        """  # fmt: skip
        self._cancel_timer()
        if self._open:
            await self._finish()
        await self._stop()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _finish(self) -> None:
        while self._busy is not None:
            await self._idle()
        self._end_window()
        self._flush(last=True)
        while self._busy is not None:
            await self._idle()
        self._open = False
        self._cancel_timer()  # what could not be written has asked for another try
        try:
            await self._in_thread(self._file.close)
        except OSError as error:
            self._log.error(
                "the end of the audit log may not be on the disk: {why}",
                why=error.strerror,
                action="audit_failed",
            )

    # -- inside

    def _put(
        self,
        request: Request,
        what: str,
        target: str | None,
        count: int | None,
        of: int | None,
        decision: str,
        code: str | None,
    ) -> None:
        principal = request.principal
        who, tenant = (None, None) if principal is None else (principal.token, principal.tenant)
        request_id = request.request_id.decode()
        if target is not None:
            target = target[:TARGET_MAX_CHARS]
        self._take(
            Entry(
                self._now_us(),
                who,
                tenant,
                request.client_address,
                what,
                target,
                count,
                of,
                decision,
                code,
                request_id,
            )
        )

    def _take(self, entry: Entry) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._lost += 1
            return
        self._waiting.append(entry)
        if len(self._waiting) == 1:  # the others go with it
            self._schedule()

    def _schedule(self) -> None:
        """See to it that the next thing to do is done in time."""
        if not self._open or self._busy is not None:
            return
        now = self._clock.seconds()
        moments = []
        if self._waiting or self._lost:
            moments.append(now + GATHER_S)
        if self._unsynced:
            moments.append(self._synced_at + SYNC_S)
        if self._head != self._anchored:
            moments.append(self._anchored_at + ANCHOR_S)
        if self._window_at is not None:
            moments.append(self._window_at + WINDOW_S)
        if not moments:
            return
        # While it cannot be written, what is overdue stays overdue: all of it waits for the next try.
        when = now + AGAIN_S if self._failing else max(min(moments), now)
        if self._timer is not None:
            if self._timer.getTime() <= when:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(when - now, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._window_at is not None and self._clock.seconds() - self._window_at >= WINDOW_S:
            self._end_window()
        self._flush()

    def _end_window(self) -> None:
        """Count what was left out."""
        tally, self._tally, self._window_at = self._tally, Tally(), None
        self._waiting.extend(tally.left_out(self._now_us()))

    def _flush(self, *, last: bool = False) -> None:
        """Give the thread what waits."""
        now = self._clock.seconds()
        anchor = last or now - self._anchored_at >= ANCHOR_S
        sync = anchor or now - self._synced_at >= SYNC_S
        entries, self._waiting = self._waiting, []
        lost, self._lost = self._lost, 0
        if lost:
            entries.append(Entry(self._now_us(), "daemon", None, None, LOST, None, lost))
        self._busy = Deferred()
        writing = self._in_thread(self._file.append, entries, sync=sync)
        writing.addCallback(self._written, now, sync=sync, anchor=anchor)
        writing.addErrback(self._not_written, entries, lost, last=last)
        writing.addBoth(self._free)

    def _written(self, head: Head, now: float, *, sync: bool, anchor: bool) -> Deferred[None]:
        self._failing = False
        self._head = head
        self._unsynced = self._file.dirty
        if sync:
            self._synced_at = now
        if not anchor or head == self._anchored:
            return succeed(None)
        self._anchored_at = now
        storing = self._store.anchor(head, self._now_us())
        storing.addCallbacks(self._remembered, self._not_remembered, callbackArgs=(head,))
        return storing

    def _remembered(self, _: None, head: Head) -> None:
        self._anchored = head

    def _not_remembered(self, failure: Failure) -> None:
        self._log.error(
            "the database does not remember where the audit log stands: {why}", why=failure.getErrorMessage(),
            action="audit_anchor_failed",
        )  # fmt: skip

    def _not_written(self, failure: Failure, entries: list[Entry], lost: int, *, last: bool) -> None:
        """They wait for the next try, as far as there is room."""
        if not self._failing or last:
            self._log.error(
                "the audit log cannot be written, {count} records wait: {why}", count=len(entries),
                why=failure.getErrorMessage(), action="audit_failed",
            )  # fmt: skip
        self._failing = True
        if lost:
            entries.pop()
        kept = [*entries, *self._waiting]
        self._lost += lost + max(0, len(kept) - WAITING_MAX)
        self._waiting = kept[:WAITING_MAX]

    def _free(self, _: object) -> None:
        busy, self._busy = self._busy, None
        self._schedule()
        if busy is not None:
            busy.callback(None)

    async def _idle(self) -> None:
        assert self._busy is not None
        await self._busy


def trail_in(
    folder: Path, boot: str, reactor: Any, now_us: Callable[[], int], store: Store, keep_days: int
) -> AuditTrail:
    """The audit log of a data directory, with a thread of its own."""
    thread = NamedPool(reactor, "jobsvc-audit", 1, 1)
    file = AuditFile(folder, boot, now_us, keep_days=keep_days)
    return AuditTrail(reactor, now_us, thread.run, file, store, thread.stop)
