"""The begin mark: a page shared with the daemon that names the attempt whose code runs now.

F2, free of Twisted. After the worker's death the daemon reads from it who ran; nothing is guessed.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

from jobsvc.model.marks import MARK

F_SEAL_FUTURE_WRITE = 0x10
"""From linux/fcntl.h (Linux 5.1): `write` fails from now on, the page that is mapped already stays writable."""


class Mark:
    """The page.

    Args:
        fd: a file of at least 32 bytes, shared with the daemon; closed here. None makes a private page: a worker
            started by hand.
    """

    __slots__ = ("_no", "_pack", "_page", "generation")

    def __init__(self, fd: int | None) -> None:
        self._page = mmap.mmap(-1 if fd is None else fd, MARK.size)
        if fd is not None:
            import fcntl
            import os

            # The page keeps a descriptor of its own, and tasks may write on any that they find: the mark would lie.
            with suppress(OSError):  # an older kernel
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
            os.close(fd)
        self._pack = MARK.pack_into
        self._no = memoryview(self._page).cast("q")  # faster than `pack_into` where there is nothing to pack
        self.generation = 0

    def begin(self, no: int, epoch: int, at_us: int) -> None:
        """The code of this attempt runs from now on."""
        self.generation += 1
        self._pack(self._page, 0, no, epoch, at_us, self.generation)

    def clear(self) -> None:
        """No attempt's code runs."""
        self._no[0] = 0
