"""F3: a large reply, written in slices as its client takes them: what waits in the connection stays small."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from jobsvc.http.limits import WRITE_SLICE_BYTES

_NOTHING = memoryview(b"")  # an empty slice of the reply would keep all of it


@implementer(IPushProducer)
class Slices:
    """Writes `data` piece by piece.

    Args:
        write: takes one slice; may call `pauseProducing` before it returns.
        ended: called once, after the last slice.
    """

    def __init__(self, data: bytes, write: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._data = memoryview(data)
        self._write = write
        self._ended = ended
        self._at = 0
        self._paused = False
        self._writing = False

    def start(self) -> None:
        """Write the first slices."""
        self._go_on()

    def pauseProducing(self) -> None:
        """The client is slow."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It has taken what was written."""
        self._paused = False
        if not self._writing:
            self._go_on()

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._paused = True
        self._data = _NOTHING

    def _go_on(self) -> None:
        self._writing = True
        while not self._paused and self._at < len(self._data):
            piece = bytes(self._data[self._at : self._at + WRITE_SLICE_BYTES])
            self._at += len(piece)
            self._write(piece)
        self._writing = False
        if self._data and self._at == len(self._data):
            self._data = _NOTHING
            self._ended()
