"""F3: many readers of one job: at its tail each piece is read and rendered once, and all are handed the same bytes.

A reader that has to catch up reads for itself; so does one that was slower than the window of pieces is long, until it
has come to the tail again. Nobody waits for the slow: a piece is handed to those who wait for it, a slice of them at a
time, and the others find it in the window.
"""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from jobsvc.http.limits import TAIL_SLICE_READERS, TAIL_WINDOW_BYTES
from jobsvc.http.sources import Piece, Place, Source
from jobsvc.runtime.waiting import Waiters, hand_out


class Tail:
    """The tail of one job in one form, for all who read it.

    Attributes:
        readers: how many have come to it and not left, waiting or not.
        busy: whether it reads on: as long as somebody waits.
    """

    def __init__(self, clock: IReactorTime, source: Source) -> None:
        self.readers = 0
        self.busy = False
        self._clock = clock
        self._source = source
        self._waiting: Waiters[Piece] = Waiters()
        self._handed: Waiters[Piece] = Waiters()  # those to whom the newest piece is still to be handed
        self._window: dict[Place, Piece] = {}
        self._window_bytes = 0
        self._reading: Deferred[None] | None = None

    @property
    def place(self) -> Place:
        """Where the next piece begins."""
        return self._source.place

    def behind(self, place: Place) -> Piece | None:
        """The piece that begins there, if it is in the window."""
        return self._window.get(place)

    def wait(self, place: Place) -> Deferred[Piece]:
        """The next piece. It begins at `place`, or earlier when the tail has not come so far yet."""
        if not self.busy and place != self.place:
            self._source.go_to(place)
        waiter = self._waiting.wait()
        if len(self._waiting) + len(self._handed) == self.readers:
            self._window.clear()  # all are here: nobody will ask for what was
            self._window_bytes = 0
        if not self.busy:
            self._start()
        return waiter

    def close(self) -> None:
        """The last reader has left."""
        if self._reading is not None:
            self._reading.cancel()

    def _start(self) -> None:
        self.busy = True
        self._reading = Deferred.fromCoroutine(self._read())
        self._reading.addBoth(self._stopped)

    async def _read(self) -> None:
        """Read on for those who wait."""
        while self._waiting:
            piece = await self._source.read()
            self._keep(piece)
            self._handed, self._waiting = self._waiting, Waiters()
            await hand_out(self._clock, self._handed, piece, TAIL_SLICE_READERS)

    def _keep(self, piece: Piece) -> None:
        """For those who are still busy with an earlier one."""
        self._window[piece.start] = piece
        self._window_bytes += len(piece.data)
        while self._window_bytes > TAIL_WINDOW_BYTES:
            oldest = self._window.pop(next(iter(self._window)))
            self._window_bytes -= len(oldest.data)

    def _stopped(self, result: Failure | None) -> None:
        self.busy, self._reading = False, None
        if result is None or result.check(CancelledError):
            return
        for waiting in (self._handed, self._waiting):
            waiting.fire_some(result, len(waiting))


class Tails:
    """All tails that somebody reads, by what is read there and in which form."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._tails: dict[Hashable, Tail] = {}

    def __len__(self) -> int:
        return len(self._tails)

    def enter(self, key: Hashable, source: Source) -> Tail:
        """The tail for sources of this kind; a new one stands where `source` does."""
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = Tail(self._clock, source.twin())
        tail.readers += 1
        return tail

    def leave(self, key: Hashable, tail: Tail) -> None:
        """One reader is gone."""
        tail.readers -= 1
        if not tail.readers:
            del self._tails[key]
            tail.close()


class Shared:
    """One reader: of its own source as long as that has something, then with the others at the tail.

    Args:
        key: what is read and in which form: sources of one key give the same bytes from the same place on.
    """

    def __init__(self, tails: Tails, key: Hashable, source: Source) -> None:
        self._tails = tails
        self._key = key
        self._source = source
        self._tail: Tail | None = None
        self._has_read = False

    async def read(self) -> Piece:
        """The next piece; waits for it."""
        while True:
            place, tail = self._source.place, self._tail
            piece = None if tail is None else tail.behind(place)
            if piece is None and (tail is None or tail.place != place):
                piece = await self._alone()
                if piece is not None:
                    return piece
                place, tail = self._source.place, self._enter()
            if piece is None and tail is not None:
                piece = await tail.wait(place)
            if piece is not None and piece.start == place:
                self._source.go_to(piece.stop)
                return piece

    async def _alone(self) -> Piece | None:
        """The next piece, read for this reader only; None when it is better waited for at the tail.

        A tail that is read on for others wakes this one only if it stands behind it. Hence a reader that has read
        nothing yet waits alone: it may have been told to begin at a number that is long to come.
        """
        piece = await self._source.look()
        if piece is None:
            tail, place = self._enter() if self._has_read else None, self._source.place
            if tail is None or (tail.busy and tail.place != place and tail.place.read >= place.read):
                piece = await self._source.read()
        self._has_read = True
        return piece

    def _enter(self) -> Tail:
        if self._tail is None:
            self._tail = self._tails.enter(self._key, self._source)
        return self._tail

    def close(self) -> None:
        """It reads no more."""
        if self._tail is not None:
            self._tails.leave(self._key, self._tail)
            self._tail = None
