"""F3: a reply that goes on: written in pieces as its client takes them, with heartbeats into silence.

Bounded: a writer that awaits `send()` of each piece holds one piece, and its connection two slices of it, however slow
the client is.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from jobsvc.http.limits import WRITE_SLICE_BYTES
from jobsvc.http.request import Request
from jobsvc.model.limits import HEARTBEAT_S
from jobsvc.runtime.waiting import Waiters


@implementer(IPushProducer)
class Outlet:
    """The writing end of one streamed reply.

    Args:
        heartbeat: sent after `HEARTBEAT_S` of silence; empty = none.
    """

    def __init__(self, request: Request, clock: IReactorTime, heartbeat: bytes = b"") -> None:
        self._request = request
        self._clock = clock
        self._heartbeat = heartbeat
        self._paused = False
        self._resumed: Waiters[None] = Waiters()
        self._beating: IDelayedCall | None = None
        self._wrote_s = clock.seconds()
        request.registerProducer(self, True)
        if heartbeat:
            self._beating = clock.callLater(HEARTBEAT_S, self._beat)

    async def send(self, data: bytes) -> None:
        """Write one piece, slice by slice; returns when the client takes more."""
        if len(data) <= WRITE_SLICE_BYTES:
            self.write(data)
            await self.room()
            return
        for at in range(0, len(data), WRITE_SLICE_BYTES):
            self.write(data[at : at + WRITE_SLICE_BYTES])
            await self.room()

    async def room(self) -> None:
        """Returns when the client takes more."""
        while self._paused:
            await self._resumed.wait()

    def write(self, data: bytes) -> None:
        """Write a short piece now."""
        if data:
            self._wrote_s = self._clock.seconds()
            self._request.write(data)

    def end_with(self, last_words: bytes) -> None:
        """Say this and close the connection: the reply is not complete, and must not look so."""
        self.write(last_words)
        self._request.channel.cut()

    def close(self) -> None:
        """No more will be written here."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        if not self._request.gone and self._request.producer is self:
            self._request.unregisterProducer()

    def _beat(self) -> None:
        silent_s = self._clock.seconds() - self._wrote_s
        if silent_s >= HEARTBEAT_S and not self._paused:
            self.write(self._heartbeat)
            silent_s = 0.0
        self._beating = self._clock.callLater(max(1.0, HEARTBEAT_S - silent_s), self._beat)

    # -- IPushProducer

    def pauseProducing(self) -> None:
        """The client is slow."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It has caught up."""
        self._paused = False
        self._resumed.fire(None)

    def stopProducing(self) -> None:
        """The connection is going; the handler is cancelled by that."""
