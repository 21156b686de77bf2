"""F3: where lines go: a descriptor or a file, written by a thread, so that a full pipe or a slow disk holds nothing up.

Before the thread begins and after it has ended, lines are written at once: a launcher forks in between.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

WAITING_MAX_BYTES: Final = 8 << 20
"""Of lines that wait for a reader that has stopped reading; more are dropped and counted."""
WRITE_BYTES: Final = 64 << 10
"""Joined into one write: what a pipe takes at once."""
FLUSH_S: Final = 2.0
"""How long an end waits for the last lines to be taken."""
FILE_MODE: Final = 0o640
"""Of a new log file: the owner, and a group that may ship it."""

JOURNAL_VARIABLE: Final = "JOURNAL_STREAM"
"""Device and inode of the stream that systemd has connected to its journal (systemd.exec(5))."""
PRIORITIES: Final = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
"""Levels as syslog(3) numbers them."""


class Sink:
    """Lines to a descriptor, or to a file that can be opened again.

    Args:
        descriptor: written to, never closed; None with `path`.
        path: of a file that is appended to; made if it is not there.
        environ: says whether the descriptor is systemd's journal.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(
        self,
        descriptor: int | None = None,
        path: Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.path = path
        self.written = 0
        """Lines handed to the system."""
        self.dropped = 0
        """Lines that nobody took, or that could not be written."""
        self._lock = (
            threading.Lock()
        )  # of the figures and of direct writes; never held while the thread writes
        self._waiting_bytes = 0
        self._lines: SimpleQueue[bytes | threading.Event | Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        if path is not None:
            descriptor = _opened(path)
        assert descriptor is not None
        self._file = _identity(os.fstat(descriptor))
        self.descriptor = descriptor
        self._journal = path is None and goes_to_journal(descriptor, environ.get(JOURNAL_VARIABLE, ""))

    def write(self, line: str, level: str) -> None:
        """One line, without its end. Never raises, never waits once the thread has begun."""
        if self._journal:
            # The journal takes the priority off each line, and keeps it: `journalctl -p warning` finds what to look at.
            mark = f"<{PRIORITIES[level]}>"
            line = mark + line.replace("\n", "\n" + mark)
        data = line.encode(errors="backslashreplace") + b"\n"
        with self._lock:
            if self._thread is None:
                self._put(data, 1)
            elif self._waiting_bytes + len(data) > WAITING_MAX_BYTES:
                self.dropped += 1
            else:
                self._waiting_bytes += len(data)
                self._lines.put(data)

    def begin(self) -> None:
        """Write in a thread from now on; not before the process has forked for the last time."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="jobsvc-log", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """Wait for the last lines, at most `FLUSH_S`; what comes later is written at once."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._lines.put(None)
            thread.join(FLUSH_S)

    def flush(self) -> bool:
        """Wait until what was written so far has been taken; False: it was not within `FLUSH_S`."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._lines.put(done)
        return done.wait(FLUSH_S)

    def reopen(self) -> None:
        """Open the file anew: a rotation has moved the old one away. A descriptor stays as it is.

        Raises:
            OSError: it cannot be opened; the old one goes on.
        """
        if self.path is None:
            return
        fresh = _opened(self.path)

        def change() -> None:
            self._change(fresh)

        with self._lock:
            if self._thread is None:
                change()
            else:
                self._lines.put(change)  # in its turn: the thread alone uses the descriptor

    # -- the thread

    def _work(self) -> None:
        while True:
            batch: list[bytes] = []
            size = 0
            item = self._lines.get()
            while isinstance(item, bytes):
                batch.append(item)
                size += len(item)
                if size >= WRITE_BYTES:
                    item = b""
                    break
                try:
                    item = self._lines.get_nowait()
                except Empty:
                    item = b""
                    break
            if batch:
                self._follow()
                self._put(b"".join(batch), len(batch))
                with self._lock:
                    self._waiting_bytes -= size
            if item is None:
                return
            if isinstance(item, threading.Event):
                item.set()
            elif not isinstance(item, bytes):
                item()

    def _follow(self) -> None:
        """Where a rotation has moved or removed the file, go on in a new one: nobody need send a signal for it."""
        if self.path is None:
            return
        try:
            if _identity(self.path.stat()) == self._file:
                return
        except OSError:  # removed: it is made anew
            pass
        try:
            self._change(_opened(self.path))
        except OSError:
            return  # the folder is gone, the disk is full: the old file still takes lines

    def _change(self, fresh: int) -> None:
        old, self.descriptor = self.descriptor, fresh
        self._file = _identity(os.fstat(fresh))
        os.close(old)

    def _put(self, data: bytes, lines: int) -> None:
        view = memoryview(data)
        try:
            while view:
                try:
                    view = view[os.write(self.descriptor, view) :]
                except BlockingIOError:  # somebody has made it so: wait as it were not
                    select.select([], [self.descriptor], [])
        except OSError:  # the terminal is gone, the disk is full: there is no place left to say so
            self.dropped += lines
        else:
            self.written += lines


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def goes_to_journal(descriptor: int, stream: str) -> bool:
    """Whether this descriptor is the very stream that the variable names; both are inherited by others too."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
