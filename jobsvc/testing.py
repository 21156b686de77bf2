"""F2: the authors' harness: run a task with its context in a unit test, without a daemon.

Arguments, items and the result go through JSON as they would over HTTP, so what passes here passes there. Free of
Twisted: a coroutine that awaits a Deferred which has not fired yet needs a reactor, so it needs a daemon.
"""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from jobsvc.authoring.command import Command
from jobsvc.authoring.context import Cancelled, Context, Source, current_context
from jobsvc.authoring.discover import AnyTask
from jobsvc.authoring.results import encode_result
from jobsvc.authoring.task import Task

JOB_ID = "00000000-0000-7000-8000-000000000000"
"""What `ctx.job_id` is in a unit test."""


class LogRecord(NamedTuple):
    """One log event. `source` is `task`, or for a command `stderr`."""

    level: str
    message: str
    fields: dict[str, Any]
    source: Source = "task"


class Recorded:
    """What a task did: the way out of its context, kept in lists.

    Attributes:
        result: what a client would read as the result.
        streams: the items of each stream, by its name.
        logs: its log events.
        progress: each progress it reported, `{"n", "of", "note"}`.
    """

    def __init__(self, *, cancel_after_items: int | None = None, deadline_s: float | None = None) -> None:
        self.result: Any = None
        self.streams: dict[str, list[Any]] = {}
        self.logs: list[LogRecord] = []
        self.progress: list[dict[str, Any]] = []
        self._cancel_after_items = cancel_after_items
        self._deadline = None if deadline_s is None else time.monotonic() + deadline_s

    @property
    def items(self) -> list[Any]:
        """The items of `out`."""
        return self.streams.get("out", [])

    def port(self) -> _Port:
        """The way for a context to write here."""
        return _Port(self)

    def is_cancelled(self) -> bool:
        """Whether the job counts as cancelled by now."""
        return self._cancel_after_items is not None and len(self.items) >= self._cancel_after_items
