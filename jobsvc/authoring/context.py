"""F1: `Context`: what a running task knows of its job and can say about itself.

It talks to a `ContextPort`, of which each kind of worker has its own; so the same task runs in a worker and in a unit
test. Must not know how a message leaves the process.
"""

from __future__ import annotations

import math
import re
import time
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, get_args

import msgspec

from jobsvc.authoring.results import NotSerialisable, encode_loosely, encode_result, printable
from jobsvc.model.limits import NAME_MAX_CHARS

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
Source = Literal["task", "stdout", "stderr"]

_STREAM = re.compile(rf"[A-Za-z_][A-Za-z0-9_.-]{{0,{NAME_MAX_CHARS - 1}}}")
_RESERVED_STREAMS = frozenset({"in", "log", "events"})


class Cancelled(Exception):
    """Raise it to stop when `ctx.cancelled` is true: the job then ends `cancelled`.

    It is an ordinary exception: `finally` and `except Exception` see it. Raised when nobody asked to cancel, it is
    an error like any other.
    """


class ContextPort(Protocol):
    """How a context reaches the outside; one per attempt. Called from whatever thread the task runs on."""

    def item(self, stream: str, body: bytes) -> None:
        """One item, as JSON text without line breaks; waits while the stream has no room."""

    def log(self, level: str, message: str, fields_json: bytes, source: Source) -> None:
        """One log event; `fields_json` is a JSON object."""

    def progress(self, body: bytes) -> None:
        """The latest progress: JSON {"n","of","note"}. May be dropped when a newer one follows."""

    def is_cancelled(self) -> bool:
        """Whether the attempt was asked to stop."""

    def deadline(self) -> float | None:
        """The moment on `time.monotonic()` at which the attempt is ended from outside; None = never."""


class Context:
    """The job from the inside. A parameter annotated with it gets it; it is no argument of the task.

    Args:
        port: the way out.
        job_id: the job's id, as in the API.
        attempt: which try this is, from 1; tries that do not count (a lost worker) repeat the number.
        epoch: grows with every start of this job, counted or not: a key for writes that must not be done twice.
        request_id: the X-Request-ID of the request that made the job; None when it had none.
        traceparent: its W3C Trace Context, to go on with in requests of the task's own; None when it had none.
    """

    __slots__ = ("_port", "attempt", "epoch", "job_id", "request_id", "traceparent")

    def __init__(
        self,
        port: ContextPort,
        *,
        job_id: str,
        attempt: int,
        epoch: int,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> None:
        self._port = port
        self.job_id = job_id
        self.attempt = attempt
        self.epoch = epoch
        self.request_id = request_id
        self.traceparent = traceparent

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop, by a cancel, a timeout or the end of the daemon. Cheap: ask often."""
        return self._port.is_cancelled()

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the attempt is ended from outside, never below 0; None when it has no run timeout."""
        deadline = self._port.deadline()
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    @property
    def deadline(self) -> datetime | None:
        """The same as an aware moment in UTC; it moves with the wall clock, `remaining_s` does not."""
        remaining_s = self.remaining_s
        return None if remaining_s is None else datetime.now(UTC) + timedelta(seconds=remaining_s)

    def progress(self, n: float, of: float | None = None, note: str | None = None) -> None:
        """Say how far the job is: `n` done of `of`, with a word on it. The last one always arrives.

        Raises:
            TypeError: `n` or `of` is no number, `note` no text.
            ValueError: `n` or `of` is not finite.
        """
        if note is not None and not isinstance(note, str):
            raise TypeError(f"progress: note must be a str or None, not {note!r}")
        body = {
            "n": _number("n", n),
            "of": None if of is None else _number("of", of),
            "note": None if note is None else printable(note),
        }
        self._port.progress(encode_result(body))

    def log(self, message: str, /, level: Level = "info", **fields: Any) -> None:
        """Add an event to the job's log, with any fields; what has no JSON form is shown as its `repr`.

        Raises:
            ValueError: an unknown level.
        """
        if level not in LEVELS:
            raise ValueError(f"log: level must be one of {', '.join(LEVELS)}, not {level!r}")
        try:
            fields_json = encode_result(fields)
        except NotSerialisable:
            shown = {name: msgspec.Raw(encode_loosely(value)) for name, value in fields.items()}
            fields_json = msgspec.json.encode(shown)
        self._port.log(level, printable(str(message)), fields_json, "task")

    def emit(self, value: Any, stream: str = "out") -> None:
        """Send an item on one of the job's streams; waits while it has no room.

        Raises:
            ValueError: not a name for a stream of the task's own, or `in`, `log`, `events`.
            NotSerialisable: the value has no JSON form.
        """
        if stream != "out" and (not _STREAM.fullmatch(stream) or stream in _RESERVED_STREAMS):
            raise ValueError(
                f"emit: {stream!r} is no name for an output stream: use out, or a name of your own "
                f"({_STREAM.pattern}) that is none of {', '.join(sorted(_RESERVED_STREAMS))}"
            )
        self._port.item(stream, encode_result(value))


current_context: ContextVar[Context | None] = ContextVar("jobsvc_current_context", default=None)
"""The context of the attempt that runs here: how a line that was printed finds its job."""


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"progress: {name} must be a number, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"progress: {name} must be finite, not {value!r}")
    return value
