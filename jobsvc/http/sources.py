"""F3: what one streamed reply is made of: pages of a reader, rendered piece by piece. Knows no connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import NamedTuple

from jobsvc.engine.readers import Reader
from jobsvc.http.formats import Format, Restarted
from jobsvc.http.limits import STREAM_READ_BYTES
from jobsvc.model.events import Chunk

LastWords = Callable[[], Awaitable[bytes | None]]
"""What is said when there is no more to read; None: nothing can be, and the reply must not look whole."""


class Place(NamedTuple):
    """Where a source stands: two of one kind at one place go on with the same bytes."""

    read: int
    sent: int
    epoch: int | None


class Piece(NamedTuple):
    """The bytes between two places.

    `ended`: nothing follows. `cut`: neither, but the reply is not whole and must not look so.
    """

    start: Place
    data: bytes
    stop: Place
    ended: bool = False
    cut: bool = False


class Source:
    """See the module.

    Args:
        last_words: see there; None: there are none.
    """

    def __init__(self, reader: Reader, render: Format, last_words: LastWords | None = None) -> None:
        self.render = render
        self._reader = reader
        self._last_words = last_words

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self._reader.after, self.render.after, self.render.epoch)

    def go_to(self, place: Place) -> None:
        """Stand where another one of its kind stands."""
        self._reader.after, self.render.after, self.render.epoch = place

    def twin(self) -> Source:
        """Another one of its kind, at the same place."""
        return Source(copy(self._reader), copy(self.render), self._last_words)

    async def look(self) -> Piece | None:
        """The next piece; None while there is none. Empty ones come too."""
        start = self.place
        chunks = await self._reader.look(STREAM_READ_BYTES)
        if chunks is None:
            self._pass_unwanted()
            return None
        return await self._piece(start, chunks)

    async def read(self) -> Piece:
        """The next piece; waits for it."""
        start = self.place
        return await self._piece(start, await self._reader.read(STREAM_READ_BYTES))

    async def _piece(self, start: Place, chunks: Sequence[Chunk]) -> Piece:
        if not chunks:
            words = b"" if self._last_words is None else await self._last_words()
            return Piece(start, words or b"", self.place, ended=words is not None, cut=words is None)
        data, cut = self._rendered(chunks)
        self._pass_unwanted()
        return Piece(start, data, self.place, cut=cut)

    def _pass_unwanted(self) -> None:
        """What was read and gave no bytes is as good as sent."""
        self.render.after = max(self.render.after, self._reader.after)

    def _rendered(self, chunks: Sequence[Chunk]) -> tuple[bytes, bool]:
        """What of `chunks` is to be sent, and whether the reply must be cut off behind that."""
        out: list[bytes] = []
        try:
            for chunk in chunks:
                out.append(self.render(chunk))  # noqa: PERF401 - what came before a restart counts
        except Restarted:
            return b"".join(out), True
        return b"".join(out), False
