"""F2: the begin mark: 32 bytes that a worker shares with the daemon and that say which attempt runs at this moment.

For tasks of microseconds a `Begin` message would cost more than the task. The mark survives its worker, so who ran at
the moment of death is read, never guessed. The worker writes, the daemon only reads.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from jobsvc.model.marks import MARK

READS_MAX = 8
"""How often a torn mark is read again: the writer needs some hundred nanoseconds, so the second read is good."""


class Mark:
    """See the module. `fd` is what the worker inherits; close it there once the worker has been started."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("jobsvc-mark", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, MARK.size)
            # A worker that could cut it short would end the daemon: reading behind the end of a file is SIGBUS.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._map = mmap.mmap(self.fd, MARK.size)
        except BaseException:
            self.close_fd()
            raise

    def read(self) -> tuple[int, int, int] | None:
        """(no, epoch, began_us) of what runs, or None."""
        no, epoch, began_us, _ = self._steady()
        return (no, epoch, began_us) if no > 0 else None

    def last(self) -> tuple[int, int, int] | None:
        """(no, epoch, began_us) of what began last, whether it still runs or not; None when nothing has."""
        no, epoch, began_us, _ = self._steady()
        return (abs(no), epoch, began_us) if no else None

    def latest(self) -> tuple[tuple[int, int], int]:
        """(no, epoch) of what began last, whether it still runs or not, and how many have begun."""
        no, epoch, _, begun = self._steady()
        return (abs(no), epoch), begun

    def _steady(self) -> tuple[int, int, int, int]:
        seen = MARK.unpack(self._map)
        for _ in range(READS_MAX):
            again = MARK.unpack(self._map)
            if seen == again:
                break
            seen = again
        no, epoch, began_us, begun = seen
        return no, epoch, began_us, begun

    def close(self) -> None:
        """The worker is dead: page and descriptor must not wait for the collector."""
        self.close_fd()
        self._map.close()

    def close_fd(self) -> None:
        """The worker has its own descriptor now."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
