"""F2: what a worker prints past our line writers: native code, programs it starts, the interpreter's last words.

In a cpu worker it belongs to the attempt that runs; what belongs to none goes to the daemon's own log with the name
of the worker. An attempt that ends while its output still lies in the pipe is followed there by a seal, so that the
next one's output is told apart; so is every further attempt of a task that has once been found to print so. Printed
text counts against the window of the attempt's log: who prints faster than the store writes is not read until credit
comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.logger import Logger

from jobsvc.model.frames import Credit, Log
from jobsvc.model.limits import STDERR_TAIL_BYTES, STREAM_WINDOW_BYTES
from jobsvc.model.marks import SEAL_MAX_BYTES, SEAL_START
from jobsvc.pool.descriptors import Inlet
from jobsvc.pool.lines import Lines, log_body

LOG_STREAM = "log"
Attempt = tuple[int, int]
"""(no, epoch)"""

SEAL = re.compile(re.escape(SEAL_START) + rb"(\d{1,19}) (\d{1,19})\n")
"""What a worker writes at the end of an attempt into a pipe that holds something: all before it was that attempt's."""


class Printed:
    """One pipe of one worker.

    Args:
        worker: its id.
        source: `stdout` or `stderr`.
        running: the attempt that runs at this moment.
        began: the attempt that began last, and how many have begun.
        on_log: takes what belongs to an attempt.
    """

    _log = Logger()

    def __init__(
        self,
        worker: str,
        source: str,
        running: Callable[[], Attempt | None],
        began: Callable[[], tuple[Attempt, int]],
        on_log: Callable[[Log], None],
    ) -> None:
        self._worker = worker
        self._source = source
        self._running = running
        self._began = began
        self._on_log = on_log
        self._lines = Lines()
        self._tail = b""
        self._torn = b""  # the beginning of a seal
        self._line_of: Attempt | None = None  # who has begun the unfinished line
        self._ran: Attempt | None = None  # when the last read began
        self._begun = 0  # how many attempts had begun then
        self._ended: Attempt | None = None  # the one for which `finish` reads
        self._held = b""  # text of which a seal, or the next look, will tell whose it is…
        self._held_by: Attempt | None = None  # …else it is this one's
        self._owes: Attempt | None = None  # whose credit is awaited
        self._owed_bytes = 0
        self.inlet: Inlet | None = None

    def look(self) -> None:
        """A read is about to begin: what it finds was printed by now."""
        self._ran = self._running()
        self._begun = self._began()[1]

    def feed(self, data: bytes) -> None:
        """More was printed."""
        self._tail = (self._tail + data[-STDERR_TAIL_BYTES:])[-STDERR_TAIL_BYTES:]
        data = self._held + self._torn + data
        self._held = self._torn = b""
        at = 0
        for seal in SEAL.finditer(data):
            attempt = (int(seal[1]), int(seal[2]))
            self._take(data[at : seal.start()], attempt)
            self._emit(self._lines.rest(), attempt)
            at = seal.end()
        left = data[at:]
        torn = left.rfind(SEAL_START[:1], -SEAL_MAX_BYTES)
        if torn >= 0 and (SEAL_START.startswith(left[torn:]) or left.startswith(SEAL_START, torn)):
            left, self._torn = left[:torn], left[torn:]
        latest, begun = self._began()
        if begun == self._begun:
            self._take(left, self._ran or self._ended)
        elif len(left) > STREAM_WINDOW_BYTES:
            self._take(left, latest)
        else:
            # Others have begun since the look. Whose text it is, the seal behind it will tell, or the next look.
            self._held, self._held_by = left, latest

    def _take(self, data: bytes, attempt: Attempt | None) -> None:
        """This text is that attempt's; a line that another one has begun is not continued by it."""
        if not data:
            return
        if attempt != self._line_of:
            self._emit(self._lines.rest(), self._line_of)
            self._line_of = attempt
        self._emit(self._lines.feed(data), attempt)

    def finish(self, attempt: Attempt | None) -> None:
        """`attempt` has ended: take all that was printed up to now. What no running attempt claims belongs to it."""
        self._ended = attempt
        try:
            if self.inlet is not None:
                self.inlet.drain()
        finally:
            self._ended = None
        if self._held and attempt in (None, self._held_by):
            held, self._held = self._held, b""
            self._take(held, self._held_by)
        if self._line_of == attempt or (self._line_of is None and self._running() in (None, attempt)):
            self._emit(self._lines.rest(), attempt)
        if self._owes == attempt:
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
        return (
            None
            if taken == credit.bytes
            else Credit(credit.no, credit.epoch, LOG_STREAM, credit.bytes - taken)
        )

    @property
    def holding(self) -> bool:
        """Whether `finish` has something to do even when the pipe is empty."""
        return self._owes is not None or bool(self._lines or self._held)

    @property
    def owing(self) -> bool:
        """Whether credit must be shown to `settle`."""
        return self._owed_bytes > 0

    def _emit(self, lines: list[bytes], attempt: Attempt | None) -> None:
        if not lines:
            return
        if attempt is None:
            for line in lines:
                self._log.info(
                    "{worker} {source}: {line}",
                    worker=self._worker,
                    source=self._source,
                    line=line.decode(errors="replace"),
                    action="worker_output",
                )
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
