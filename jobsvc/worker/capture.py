"""Printed text finds its job: `sys.stdout` and `sys.stderr` of a worker are writers that ask the context who prints.

F2, free of Twisted. What no job prints goes to the process's own descriptor, which the daemon reads. What reaches
descriptors 1 and 2 by other ways (C code, `os.write`, programs started by a task) does not come through here.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from jobsvc.model.marks import seal_of
from jobsvc.worker.attempt import Port, current_port
from jobsvc.worker.lines import Printed
from jobsvc.worker.redaction import recent, veiled

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class LineWriter(io.TextIOBase):
    """A text stream that hands what is written to the job that writes.

    Args:
        own: the process's own stream, for text of no job; its descriptor is also ours.
        otherwise: the attempt to which text belongs that is written outside any attempt's context, as threads do
            that a task has started; None where several attempts share the process.
    """

    def __init__(
        self,
        source: Printed,
        own: TextIO,
        otherwise: Callable[[], Port | None] | None = None,
    ) -> None:
        self._source: Printed = source
        self._own = own
        self._otherwise = otherwise
        self.buffer = ByteWriter(self)
        """As real text streams have it."""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        """What bytes written to `buffer` are taken for."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # the same
        """No text is refused."""
        return "backslashreplace"

    @property
    def name(self) -> str:
        """As real streams show it."""
        return f"<{self._source}>"

    def write(self, text: str, /) -> int:
        """Hand on; lines leave as they are complete."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        port = self._port()
        if port is None:
            self._own.write(veiled(text) if recent else text)
        else:
            port.write(self._source, text)
        return len(text)

    def flush(self) -> None:
        """What was flushed outlives a crash of the process; an incomplete line waits for its end."""
        port = self._port()
        if port is None:
            self._own.flush()
        else:
            port.flush()

    def _port(self) -> Port | None:
        """The attempt that writes here; None for text of no job."""
        port = current_port.get()
        if port is None and self._otherwise is not None:
            port = self._otherwise()
        return None if port is None or port.closed else port

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The descriptor, for programs that a task starts with `stdout=sys.stdout`."""
        return self._own.fileno()

    def isatty(self) -> bool:
        """Never a terminal."""
        return False


class ByteWriter(io.RawIOBase):
    """`sys.stdout.buffer`: bytes are taken for UTF-8."""

    def __init__(self, text: LineWriter) -> None:
        self._text = text

    def write(self, data: ReadableBuffer, /) -> int:
        """Hand on as text; what is no UTF-8 becomes U+FFFD."""
        taken = bytes(data)
        self._text.write(taken.decode("utf-8", "replace"))
        return len(taken)

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The descriptor below."""
        return self._text.fileno()


def capture(otherwise: Callable[[], Port | None] | None = None) -> None:
    """From here on, what is printed in this process finds its job. Called once, before task modules are imported."""
    assert isinstance(sys.stdout, io.TextIOWrapper)
    assert isinstance(sys.stderr, io.TextIOWrapper)
    for own in (sys.stdout, sys.stderr):
        # A pipe would be block buffered, and what was printed before a crash would be lost.
        own.reconfigure(errors="backslashreplace", line_buffering=True)
    sys.stdout = LineWriter("stdout", sys.stdout, otherwise)
    sys.stderr = LineWriter("stderr", sys.stderr, otherwise)


def uncapture() -> None:
    """Back to the process's own streams: for a forked child, which has no way to the daemon but its descriptors."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


FIONREAD = 0x541B
"""From asm-generic/ioctls.h: how many bytes wait in a pipe; `termios` would cost an import."""


def seal(no: int, epoch: int, *, always: bool) -> bool:
    """An attempt ends: where its output still lies in a pipe, tell there that it ends here. Whether any did.

    `always`: also where none does. Its task is known to print so, and the daemon may have read all of it just now.

    The daemon reads the pipes later than the end may come, and could not tell this attempt's text from the next one's.
    Must come before the mark is cleared.
    """
    import fcntl

    found = False
    for fd in (1, 2):
        try:
            if always or fcntl.ioctl(fd, FIONREAD, bytes(4)) != bytes(4):
                os.write(fd, seal_of(no, epoch))
                found = True
        except OSError:  # the task's code has closed it, or put something else in its place
            continue
    return found
