"""F2: descriptors the reactor reads for us: what arrives is handed on as bytes, the end is told exactly once.

Own descriptors in place of Twisted's transports, because supervision needs what those do not give: to read a pipe to
its end when its process is gone, to pause one pipe of several, and reads of 64 KiB where `ProcessReader` takes 8.
This module must not know what the bytes mean.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorFDSet, IReactorFromThreads, IReactorTime, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

READ_BYTES = 64 * 1024
"""One read: what a pipe holds by default."""
DRAIN_BYTES = 1024 * 1024
"""Most that `drain` takes: the largest pipe an unprivileged process can make; more would be written meanwhile."""


class IPoolReactor(IReactorTime, IReactorFDSet, IReactorFromThreads):
    """What the pool asks of a reactor; the real ones provide all of it."""


@implementer(IReadDescriptor)
class Inlet:
    """Reads one descriptor, which it owns from now on.

    Args:
        on_bytes: called with each piece, in order.
        on_end: called once, after the last piece: end of file, an error, or `close`.
    """

    def __init__(
        self, reactor: IReactorFDSet, fd: int, on_bytes: Callable[[bytes], None], on_end: Callable[[], None]
    ) -> None:
        os.set_blocking(fd, False)
        self._reactor = reactor
        self._fd = fd
        self._on_bytes = on_bytes
        self._on_end = on_end
        self._paused = False
        self.before_read: Callable[[], None] | None = None
        """Called before each read: for who must know the world as it was when the bytes were taken."""
        reactor.addReader(self)

    @property
    def open(self) -> bool:
        """Whether more may come."""
        return self._fd >= 0

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self._fd

    def logPrefix(self) -> str:
        """Names it in the reactor's log."""
        return type(self).__name__

    def doRead(self) -> Exception | None:  # type: ignore[override]  # the reactor takes exceptions, as of its own
        """The reactor says that there is something."""
        try:
            data = self._read()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                return None
            return ConnectionLost()
        if not data:
            return ConnectionDone()
        self._on_bytes(data)
        return None

    def _read(self) -> bytes:
        if self.before_read is not None:
            self.before_read()
        return os.read(self._fd, READ_BYTES)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has taken it out."""
        self.close()

    def pause(self) -> None:
        """Leave what comes in the descriptor until `resume`."""
        if self._fd >= 0 and not self._paused:
            self._paused = True
            self._reactor.removeReader(self)

    def resume(self) -> None:
        """Read again."""
        if self._fd >= 0 and self._paused:
            self._paused = False
            self._reactor.addReader(self)

    def drain(self) -> None:
        """Take what is there at this moment, at most `DRAIN_BYTES`, without waiting for the reactor."""
        left = DRAIN_BYTES
        while left > 0 and self._fd >= 0:
            try:
                data = self._read()
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EINTR):
                    self.close()
                return
            if not data:
                self.close()
                return
            left -= len(data)
            self._on_bytes(data)

    def close(self) -> None:
        """Give the descriptor back. What was not read is lost: `drain` first."""
        if self._fd < 0:
            return
        self._detach()
        fd, self._fd = self._fd, -1
        os.close(fd)
        self._on_end()

    def _detach(self) -> None:
        self._reactor.removeReader(self)
