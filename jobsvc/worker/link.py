"""The blocking side of the control channel, for workers that compute: one thread reads, any thread sends.

F2, free of Twisted. It knows frames and sockets, nothing of tasks.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from jobsvc.model.frames import Deframer, Message, ToWorker, encode
from jobsvc.model.limits import RESULT_HOLD_S
from jobsvc.worker.outbox import Outbox

READ_BYTES = 256 * 1024
"""One read: a batch of prefetched jobs fits in, and a large body needs few calls."""
HIGH_FD = 200
"""The channel is moved to the first free descriptor from here on, out of the way of code that closes or reuses low
ones by number."""


class LinkClosed(Exception):
    """The daemon is gone."""


def take_over(fd: int) -> int:
    """Move a descriptor up and keep it from programs that tasks start; returns its new number."""
    import fcntl

    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    os.close(fd)
    return high


class Link:
    """The channel.

    Args:
        sock: connected stream socket, blocking.
        outbox: where messages wait; it is emptied by `flush`.
    """

    def __init__(self, sock: socket.socket, outbox: Outbox) -> None:
        self._sock = sock
        self._outbox = outbox
        self._deframer = Deframer(ToWorker)
        self._sending = threading.Lock()
        self._sender = 0  # thread that holds `_sending`
        self._due: float | None = None  # monotonic time at which `read` flushes
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)
        self.flushed_at = 0.0
        """Monotonic time of the last flush."""

    def flush(self) -> None:
        """Send all that may leave. Runs on any thread; waits while the socket is full.

        The parts of a large body leave in one go with their message, as one call sends them under one lock.
        """
        me = threading.get_ident()
        if self._sender == me:
            return  # a destructor that prints in the middle of a flush: the outer one goes round again
        with self._sending:
            self._sender = me
            try:
                while batch := self._outbox.collect():
                    self._sock.sendall(encode(batch))
            except OSError:
                os._exit(1)  # the daemon is gone: nobody wants what runs here, and nobody could be told
            finally:
                self._sender = 0
            self.flushed_at = monotonic()

    def arm(self, after_s: float = RESULT_HOLD_S) -> None:
        """Have `read` flush after so many seconds, whatever happens until then. Runs on any thread."""
        if self._sooner(after_s):
            with suppress(BlockingIOError):  # a task has written on it: it rings already
                os.eventfd_write(self._bell, 1)

    def expect(self, after_s: float) -> None:
        """The same, for the thread that reads: it need not be woken."""
        self._sooner(after_s)

    def _sooner(self, after_s: float) -> bool:
        due = monotonic() + after_s
        if self._due is not None and self._due <= due:
            return False
        self._due = due
        return True

    def read(self, on_due: Callable[[], None]) -> list[Message]:
        """The next messages; meanwhile, when it is due, calls `on_due` and flushes. For the one thread that reads.

        Raises:
            LinkClosed: end of file or a broken connection.
            FrameError: what came is no frame.
        """
        while True:
            due = self._due
            left_ms = None if due is None else max(0.0, (due - monotonic()) * 1000.0)
            ready = self._poll.poll(left_ms)
            if due is not None and monotonic() >= due:
                # Cleared before the flush: what is put after it finds no date and sets a new one.
                self._due = None
                on_due()
                self.flush()
            for fd, _ in ready:
                if fd == self._bell:
                    os.eventfd_read(self._bell)
                    continue
                try:
                    data = self._sock.recv(READ_BYTES)
                except OSError:
                    data = b""
                if not data:
                    raise LinkClosed
                if messages := self._deframer.feed(data):
                    return messages

    def close(self) -> None:
        """Give the descriptors back: for a forked child, which is no worker, and for tests. Once, though it may fork in
        its turn: their numbers are another's by then.
        """  # fmt: skip
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1
        self._sock.close()
