"""F2: what a worker prints past our line writers: native code, programs it starts, the interpreter's last words.

In a cpu worker it belongs to the attempt that runs; what belongs to none goes to the daemon's own log with the name
of the worker. Printed text counts against the window of the attempt's log: who prints faster than the store writes is
not read until credit comes back.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from jobsvc.model.frames import Credit, Log
from jobsvc.model.limits import STDERR_TAIL_BYTES, STREAM_WINDOW_BYTES
from jobsvc.pool.descriptors import Inlet
from jobsvc.pool.lines import Lines, log_body

LOG_STREAM = "log"
Attempt = tuple[int, int]
"""(no, epoch)"""


class Printed:
    """One pipe of one worker.

    Args:
        worker: its id.
        source: `stdout` or `stderr`.
        running: the attempt to which lines belong at this moment.
        on_log: takes what belongs to an attempt.
    """

    _log = Logger()

    def __init__(
        self, worker: str, source: str, running: Callable[[], Attempt | None], on_log: Callable[[Log], None]
    ) -> None:
        self._worker = worker
        self._source = source
        self._running = running
        self._on_log = on_log
        self._lines = Lines()
        self._tail = b""
        self._owes: Attempt | None = None  # whose credit is awaited
        self._owed_bytes = 0
        self.inlet: Inlet | None = None

    def feed(self, data: bytes) -> None:
        """More was printed."""
        self._tail = (self._tail + data[-STDERR_TAIL_BYTES:])[-STDERR_TAIL_BYTES:]
        if lines := self._lines.feed(data):
            self._emit(lines, self._running())

    def finish(self, attempt: Attempt | None) -> None:
        """Take all that was printed up to now, the unfinished line too: it belongs to `attempt`, which has ended."""
        before, self._running = self._running, lambda: attempt
        try:
            if self.inlet is not None:
                self.inlet.drain()
            if rest := self._lines.rest():
                self._emit(rest, attempt)
        finally:
            self._running = before
        self._owe(None)  # an ended attempt gets no more credit

    def tail(self) -> str:
        """The last `STDERR_TAIL_BYTES` printed."""
        return self._tail.decode(errors="replace").strip()

    def settle(self, credit: Credit) -> Credit | None:
        """Credit on its way to the worker: what is owed for this pipe is taken off; None = nothing is left."""
        if credit.stream != LOG_STREAM or (credit.no, credit.epoch) != self._owes:
            return credit
        taken = min(self._owed_bytes, credit.bytes)
        self._owed_bytes -= taken
        if self._owed_bytes <= STREAM_WINDOW_BYTES and self.inlet is not None:
            self.inlet.resume()
        return None if taken == credit.bytes else Credit(credit.no, credit.epoch, LOG_STREAM, credit.bytes - taken)

    @property
    def owing(self) -> bool:
        """Whether credit must be shown to `settle`."""
        return self._owed_bytes > 0

    def _emit(self, lines: list[bytes], attempt: Attempt | None) -> None:
        if attempt is None:
            for line in lines:
                self._log.info(
                    "{worker} {source}: {line}",
                    worker=self._worker, source=self._source, line=line.decode(errors="replace"), action="worker_output",
                )  # fmt: skip
            return
        if attempt != self._owes:
            self._owe(attempt)
        body = log_body(lines, self._source)
        self._owed_bytes += len(body)
        if self._owed_bytes > STREAM_WINDOW_BYTES and self.inlet is not None:
            self.inlet.pause()
        self._on_log(Log(*attempt, len(lines), 0, body))

    def _owe(self, attempt: Attempt | None) -> None:
        self._owes, self._owed_bytes = attempt, 0
        if self.inlet is not None:
            self.inlet.resume()
