"""F2: readers of one job's events or of one of its streams, from any point, on to the tail, to the end.

A reader only ever sees what is committed. It pulls: one page of the store at a time, so a slow client costs one page.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
from twisted.internet.defer import Deferred

from jobsvc.engine.board import Board
from jobsvc.engine.bus import Bus
from jobsvc.model.events import Chunk, merged
from jobsvc.model.job import Job, submitted_data
from jobsvc.ports import Store
from jobsvc.runtime.waiting import leave


class Reader(Protocol):
    """What the edge reads from.

    Attributes:
        after: what has been read: numbers up to this one. Set it to where another reader of the same kind stands, and
            this one goes on from there.
    """

    after: int

    async def look(self, max_bytes: int) -> list[Chunk] | None:
        """The next chunks, about `max_bytes` of them. Empty = the end; None = more will come, and is not there yet."""

    async def read(self, max_bytes: int) -> list[Chunk]:
        """The same; at the tail it waits."""


class _Stand(NamedTuple):
    """How a job stood when it was asked. `job` is the engine's own and may change while pages are read: `done`, and
    `upto`, the number of the last committed event, do not.
    """  # fmt: skip

    job: Job
    upto: int
    done: bool


class _Tail:
    """Where one job stands, and how to wait for more of it."""

    def __init__(self, store: Store, board: Board, bus: Bus, job_id: bytes) -> None:
        self._store = store
        self._board = board
        self._bus = bus
        self._job_id = job_id

    async def stand(self) -> _Stand | None:
        """How it stands now; None when it has been deleted."""
        active = self._board.active.get(self._job_id)
        if active is not None:
            return _Stand(active.job, active.committed, done=False)
        row = await self._store.get(self._job_id, args=False, result=False)
        return None if row is None else _Stand(row, row.seq, done=row.done)

    def growth(self) -> Deferred[None]:
        """Ask before reading, so that what is committed meanwhile is not missed."""
        return self._bus.growth_of(self._job_id)


class _Following(ABC):
    """A reader that waits for more by looking again whenever the job has moved."""

    _tail: _Tail

    @abstractmethod
    async def look(self, max_bytes: int) -> list[Chunk] | None:
        """See `Reader`."""

    async def read(self, max_bytes: int) -> list[Chunk]:
        """See `Reader`."""
        while True:
            growth = self._tail.growth()
            try:
                page = await self.look(max_bytes)
            except BaseException:
                leave(growth)
                raise
            if page is not None:
                leave(growth)
                return page
            await growth


class EventReader(_Following):
    """The numbered events of a job with numbers above `after`.

    Args:
        kinds: only these kinds; empty = all.
        streams: of the items only those of these streams; empty = all.
        follow: False = stop at what there is now.
    """

    def __init__(
        self,
        store: Store,
        board: Board,
        bus: Bus,
        job: Job,
        after: int,
        kinds: Sequence[str],
        streams: Sequence[str],
        *,
        follow: bool,
    ) -> None:
        self._store = store
        self._tail = _Tail(store, board, bus, job.id)
        self._job = job
        self.after = after
        self._kinds = frozenset(kinds)
        self._streams = frozenset(streams)
        self._follow = follow
        self._durability = store.durability

    async def look(self, max_bytes: int) -> list[Chunk] | None:
        """See `Reader`. Chunks may hold events with numbers at or below `after`: the caller skips those."""
        if self.after < 1 and self._wanted("job"):
            self.after = 1
            return [await self._first()]
        self.after = max(self.after, 1)
        while True:
            stand = await self._tail.stand()
            page = [] if stand is None else await self._page(stand.job, stand.upto, max_bytes)
            if page or stand is None:
                return page
            if self.after >= stand.upto:
                return None if self._follow and not stand.done else []
            # A whole page was filtered away: there is more to read at once.

    async def _first(self) -> Chunk:
        """The event `job`: as the first change has kept it, else as the row tells it."""
        job = self._job
        if job.revision > 1:
            kept = await self._store.chunks(job.no, 0, 1, ("job",))
            if kept:
                return kept[0]
        body = submitted_data(job, self._durability)
        return Chunk(no=job.no, seq=1, count=1, kind="job", epoch=0, at=job.created_at, body=body)

    def _wanted(self, kind: str) -> bool:
        return not self._kinds or kind in self._kinds

    async def _page(self, job: Job, upto: int, max_bytes: int) -> list[Chunk]:
        """What is to be read above `after`, moving it on."""
        if self.after >= upto:
            return []
        stored = await self._store.chunks(job.no, self.after, max_bytes)
        stored = [chunk for chunk in stored if chunk.seq <= upto]
        # A page may end before `upto`, and only an empty one is known to be the last: what was derived beyond its end
        # belongs to a later page.
        end = stored[-1].last if stored else upto
        chunks = merged(job, stored, self.after, end)
        out: list[Chunk] = []
        expected = self.after + 1
        for chunk in chunks:
            if chunk.seq > expected:
                out.append(_gap(job.no, expected, chunk.seq - 1, chunk.at))
            expected = chunk.last + 1
            if self._wanted(chunk.kind) and (
                not self._streams or chunk.stream is None or chunk.stream in self._streams
            ):
                out.append(chunk)
        self.after = max(end, expected - 1)
        return out


def _gap(no: int, first: int, last: int, at: int) -> Chunk:
    """Says that these numbers were dropped by a quota; carries the last of them."""
    body = msgspec.json.encode({"from": first, "to": last, "why": "quota"})
    return Chunk(no=no, seq=last, count=1, kind="gap", epoch=0, at=at, body=body)


class ItemReader(_Following):
    """The items of one stream with item numbers above `after`.

    Args:
        epoch: only those of this attempt; None = of all.
    """

    def __init__(
        self,
        store: Store,
        board: Board,
        bus: Bus,
        job: Job,
        stream: str,
        after: int,
        epoch: int | None,
        *,
        follow: bool,
    ) -> None:
        self._store = store
        self._tail = _Tail(store, board, bus, job.id)
        self._job = job
        self._stream = stream
        self.after = after
        self._epoch = epoch
        self._follow = follow
        self._first = True

    async def look(self, max_bytes: int) -> list[Chunk] | None:
        """See `Reader`."""
        stand = await self._tail.stand()
        page = [] if stand is None else await self._page(max_bytes)
        if page or stand is None or stand.done or not self._follow:
            return page
        return None

    async def _page(self, max_bytes: int) -> list[Chunk]:
        chunks = await self._store.items(self._job.no, self._stream, self.after, max_bytes, self._epoch)
        out: list[Chunk] = []
        for chunk in chunks:
            n = chunk.n or 1
            if n > self.after + 1 and not await self._of_others(n - 1):
                out.append(_gap(chunk.no, self.after + 1, n - 1, chunk.at))
            self._first = False
            out.append(chunk)
            self.after = n + chunk.count - 1
        return out

    async def _of_others(self, n: int) -> bool:
        """Whether item `n` is missing by right: with one attempt wanted, those of the earlier ones are."""
        if self._epoch is None or not self._first:
            return False
        found = await self._store.items(self._job.no, self._stream, n - 1, 1, None)
        return bool(found) and (found[0].n or 1) <= n
