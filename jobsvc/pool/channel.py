"""F2: the daemon's end of a worker's control channel: messages in, messages out, in batches.

What is sent within one turn of the reactor leaves as one frame at the end of that turn, with one system call and
without a further round of polling: a single idle job is not delayed, a hundred share the cost. An own descriptor takes
70 to 90 µs of the daemon's CPU for a round trip where an adopted Twisted transport takes 110 to 140 (its `recvmsg`,
and a turn of the reactor before each write). This module must not know what the messages mean.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadWriteDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from jobsvc.model.frames import Deframer, FrameError, FromWorker, Message, encode
from jobsvc.pool.descriptors import Inlet

WRITE_BYTES = 256 * 1024
"""Most that one system call is offered: more than a socket buffer holds is copied for nothing."""


@implementer(IReadWriteDescriptor)
class Channel(Inlet):  # type: ignore[override]  # see Inlet.doRead
    """See the module.

    Args:
        fd: the daemon's end of the socketpair; owned from now on.
        on_messages: called with all messages of one read, split bodies joined.
        on_end: called once, when the worker's end is closed or the worker has sent what is no frame.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorFDSet,
        clock: IReactorTime,
        fd: int,
        on_messages: Callable[[list[Message]], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(reactor, fd, self._fed, on_end)
        self._clock = clock
        self._deframer = Deframer(FromWorker)
        self._on_messages = on_messages
        self._held: list[Message] = []  # sent in this turn
        self._unwritten: deque[memoryview] = deque()  # encoded, what the socket has not taken
        self.broken = False  # it was closed because of what the worker sent

    # -- in

    def _fed(self, data: bytes) -> None:
        try:
            messages = self._deframer.feed(data)
        except FrameError as error:
            self._log.error("a worker sent what is no frame: {error}", error=error, action="bad_frame")
            self.broken = True
            self.close()
            return
        if messages:
            self._on_messages(messages)

    # -- out

    def send(self, messages: Sequence[Message]) -> None:
        """Queue messages; they leave at the end of this turn of the reactor.

        On a closed channel they are dropped: the worker's death is about to be told.
        """
        if not self.open:
            return
        if not self._held:
            self._clock.callLater(0, self._flush)
        self._held += messages

    def _flush(self) -> None:
        held, self._held = self._held, []
        if not self.open:
            return
        waiting = bool(self._unwritten)
        self._unwritten.append(memoryview(encode(held)))
        if not waiting and self.doWrite() is None and self._unwritten:
            self._reactor.addWriter(self)

    def doWrite(self) -> Exception | None:  # type: ignore[override]  # see doRead
        """Write what the socket takes. A closed one is left to the reading side, which may still hold messages."""
        unwritten = self._unwritten
        try:
            while unwritten:
                sent = os.write(self._fd, unwritten[0][:WRITE_BYTES])
                unwritten[0] = unwritten[0][sent:]
                if not unwritten[0]:
                    unwritten.popleft()
        except BlockingIOError:
            return None  # the rest when the reactor says so
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                return ConnectionLost()
            unwritten.clear()
        self._reactor.removeWriter(self)
        return None

    def _detach(self) -> None:
        super()._detach()
        self._reactor.removeWriter(self)
        self._unwritten.clear()
