"""One running attempt as its own code reaches the daemon: items, output, progress, and whether it should stop.

F2, free of Twisted. `Port` is the `ContextPort` of workers; what differs between a cpu worker, a thread and the loop
is only how a producer waits, in `Port.press`. Knows nothing of tasks, sockets and reactors.
"""

from __future__ import annotations

from contextvars import ContextVar
from threading import Condition
from time import monotonic
from typing import Literal

import msgspec

from jobsvc.authoring.context import Cancelled, Context, current_context
from jobsvc.model.errors import JobError
from jobsvc.model.frames import Again, Message, Progress, Result, Start
from jobsvc.model.ids import id_text
from jobsvc.model.limits import ITEM_MAX_BYTES, LOG_LINE_MAX_BYTES, PROGRESS_EVERY_S
from jobsvc.worker.blame import TooLarge
from jobsvc.worker.lines import NO_FIELDS, LogEvent, Printed, log_text, pieces
from jobsvc.worker.outbox import BATCH_BYTES, LOG_STREAM, Outbox, Outlet

CANCELLED_LOG_WAIT_S = 1.0
"""How long output waits for room once the attempt was asked to stop. The daemon gives no more credit to an attempt it
has already written off, and one that only prints must still be able to end."""


class Port:
    """The way out of one attempt, until it has ended.

    Args:
        start: what the daemon asked for.
        outbox: where messages go.
        room: guards what is shared here with the thread that sends; notified when there is room again, and on cancel.
            Reentrant, because destructors may print at any moment.
    """

    __slots__ = (
        "_deadline",
        "_lines",
        "_outlets",
        "_progress",
        "_progress_at",
        "began_us",
        "cancel_reason",
        "closed",
        "epoch",
        "no",
        "outbox",
        "room",
        "start",
        "stirred",
    )

    def __init__(self, start: Start, outbox: Outbox, room: Condition) -> None:
        self.start = start
        self.no = start.no
        self.epoch = start.epoch
        self.outbox = outbox
        self.room = room
        self.began_us = 0
        self.stirred = False
        self.closed = False
        self.cancel_reason: str | None = None
        self._deadline: float | None = None
        self._outlets: dict[str, Outlet] | None = None
        self._lines: dict[str, str] | None = None  # by source, what no newline has ended yet
        self._progress: bytes | None = None
        self._progress_at = 0.0  # monotonic time from which on the next progress may leave

    def begin(self, at_us: int) -> None:
        """Its code starts now."""
        self.began_us = at_us
        if self.start.run_s is not None:
            self._deadline = monotonic() + self.start.run_s

    def context(self) -> Context:
        """What the task's code gets of it."""
        start = self.start
        request_id, traceparent = start.origin or (None, None)
        return Context(
            self, job_id=id_text(start.id), attempt=start.attempt, epoch=start.epoch,
            request_id=request_id, traceparent=traceparent,
        )  # fmt: skip

    # -- called by the task's code, on any thread

    def item(self, stream: str, body: bytes) -> None:
        """One item, as JSON text without line breaks; waits while the stream has no room.

        Raises:
            TooLarge: more than `ITEM_MAX_BYTES`.
            Cancelled: asked to stop while there was no room.
        """
        if len(body) > ITEM_MAX_BYTES:
            raise TooLarge("an item", len(body), ITEM_MAX_BYTES)
        self._put(stream, body)

    def log(
        self, level: str, message: str, fields_json: bytes, source: Literal["task", "stdout", "stderr"]
    ) -> None:
        """One log event; a message over the limit becomes several, the fields with the first."""
        fields = msgspec.Raw(fields_json)
        for piece in pieces(message):
            self._put(LOG_STREAM, log_text(LogEvent(level, piece, fields, source)))
            fields = NO_FIELDS

    def progress(self, body: bytes) -> None:
        """The latest progress; sent at most once per `PROGRESS_EVERY_S`, and the last one before the result."""
        with self.room:
            if self.closed:
                return
            self._progress = body
        self.outbox.stir(self)
        self.nudge()

    def is_cancelled(self) -> bool:
        """Whether the attempt was asked to stop."""
        return self.cancel_reason is not None

    def deadline(self) -> float | None:
        """The moment on `time.monotonic()` at which the attempt is ended from outside; None = never."""
        return self._deadline

    def write(self, source: Printed, text: str) -> None:
        """Printed text: every line that it ends becomes a log event."""
        with self.room:
            if self._lines is None:
                self._lines = {}
            lines = (self._lines.get(source, "") + text).split("\n")
            # As on a terminal, what follows a carriage return overwrites: of a progress bar the last state stays.
            last = lines.pop()
            if "\r" in last[:-1]:
                last = last.rpartition("\r")[2]
            if len(last) > LOG_LINE_MAX_BYTES:
                *whole, last = pieces(last)  # nothing waits for a newline that never comes
                lines += whole
            self._lines[source] = last
        for line in lines:
            self._put_line(source, line)

    def _put_line(self, source: Printed, line: str) -> None:
        line = line.rstrip("\r")
        if "\r" in line:
            line = line.rpartition("\r")[2]
        level = "info" if source == "stdout" else "warning"
        for piece in pieces(line):
            self._put(LOG_STREAM, log_text(LogEvent(level, piece, NO_FIELDS, source)))

    def _put(self, stream: str, text: bytes) -> None:
        with self.room:
            if self.closed:
                return  # a thread or task that the attempt left behind: its job has ended
            outlets = self._outlets
            if outlets is None:
                outlets = self._outlets = {}
            outlet = outlets.get(stream)
            if outlet is None:
                outlet = outlets[stream] = Outlet(stream)
            outlet.put(text)
        if not self.stirred:
            self.outbox.stir(self)
        self.press(outlet)

    # -- how a producer waits: differs between the executors

    def press(self, outlet: Outlet) -> None:
        """Something was put: see to it that it leaves, and wait while too much is there. This one waits as a thread.

        Raises:
            Cancelled: asked to stop while an item had no room.
        """
        if outlet.size >= BATCH_BYTES:
            with self.room:
                while outlet.size >= BATCH_BYTES and not self.closed:
                    if self.cancel_reason is None:
                        self.room.wait()
                    elif outlet.stream != LOG_STREAM:
                        raise Cancelled("asked to stop while waiting for room on the stream")
                    elif not self.room.wait(CANCELLED_LOG_WAIT_S):
                        outlet.credit = max(outlet.credit, 1)
                        self.outbox.stir(self)

    def flush(self) -> None:
        """Its code wants to be sure of what it printed. Here another thread is about to send it, and soon enough."""

    def nudge(self) -> None:
        """There is progress to send, or output that nobody pressed: see to it soon."""

    def later(self, after_s: float) -> None:
        """Progress was held back: see to it that the port is stirred after so many seconds."""

    # -- called by the side that sends

    def take(self) -> list[Message]:
        """What may leave now: streams that have credit, progress when it is time."""
        with self.room:
            out = self._taken(overdraw=False)
            if self._progress is not None:
                now = monotonic()
                if now >= self._progress_at:
                    self._progress_at = now + PROGRESS_EVERY_S
                    out.append(Progress(self.no, self.epoch, self._progress))
                    self._progress = None
                else:
                    self.later(self._progress_at - now)
            if out:
                self.room.notify_all()
            return out

    def _taken(self, *, overdraw: bool) -> list[Message]:
        return [
            outlet.take(self.no, self.epoch)
            for outlet in (self._outlets or {}).values()
            if outlet.texts and (overdraw or outlet.credit > 0)
        ]

    def add_credit(self, stream: str, more_bytes: int) -> None:
        """The daemon has stored so much of it."""
        with self.room:
            outlet = (self._outlets or {}).get(stream)
            if outlet is None:
                return
            outlet.credit += more_bytes
            waiting = bool(outlet.texts)
        if waiting:
            self.outbox.stir(self)

    def cancel(self, reason: str) -> None:
        """Ask the attempt to stop."""
        with self.room:
            self.cancel_reason = reason
            self.room.notify_all()

    # -- the end

    def finish(self, run_s: float, error: JobError | None, body: bytes, again: Again | None = None) -> None:
        """The attempt has ended: its last output, then its result. Afterwards it has no way out any more."""
        result = Result(self.no, self.epoch, self.began_us, run_s, error, 0, body, again)
        if self._outlets is None and self._lines is None and self._progress is None:
            self.closed = (
                True  # the way of most attempts; what a left-behind thread prints at this moment is lost
            )
            self.outbox.post(result)
            return
        with self.room:
            self.leave()
            self.outbox.post(result)

    def leave(self) -> None:
        """The last output, without a result: the process is about to end.

        What is left of a stream goes even without credit: it is at most one batch, and the end may not wait.
        """
        with self.room:
            source: Printed
            for source in ("stdout", "stderr"):
                line = self._lines.pop(source, "") if self._lines else ""
                if line:
                    self._put_line(source, line)
            self.closed = True
            last = self._taken(overdraw=True)
            if self._progress is not None:
                last.append(Progress(self.no, self.epoch, self._progress))
                self._progress = None
            self.outbox.post(*last)
            self.room.notify_all()


current_port: ContextVar[Port | None] = ContextVar("jobsvc_current_port", default=None)
"""The attempt whose code runs here: how printed text finds its job, in child tasks and threads too."""


def enter(port: Port | None, context: Context | None) -> None:
    """From here on, code in this context belongs to that attempt."""
    current_port.set(port)
    current_context.set(context)
