"""F3: what handlers share: the engine, the daemon around it, the clock; and the shapes of their replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from jobsvc.engine.engine import Engine
from jobsvc.http.auditing import Trail
from jobsvc.http.conditions import etag
from jobsvc.http.limits import LONG_PAGES_AT_ONCE
from jobsvc.http.metrics import Metrics
from jobsvc.http.outlet import Outlet
from jobsvc.http.registry import Registry
from jobsvc.http.request import Request
from jobsvc.http.tails import Tails
from jobsvc.http.tickets import Tickets
from jobsvc.model.errors import JobsvcError
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job, view
from jobsvc.runtime.waiting import Background

JSON = b"application/json"

encode = msgspec.json.Encoder().encode


class Daemon(Protocol):
    """What the edge asks of the daemon around the engine; the composition root implements it."""

    @property
    def boot(self) -> str:
        """Changes with every start."""

    @property
    def started_at(self) -> int:
        """Microseconds."""

    def workers(self) -> Sequence[dict[str, Any]]:
        """The workers in the shape of the wire: id, kind, pid, state, slots, running, started_at, rss, restarts."""

    def reload(self) -> Deferred[Any]:
        """Replace the workers; fires when the new code is in force, fails with `JobsvcError` when it does not load."""

    def ready(self) -> Sequence[tuple[str, bool, str]]:
        """Each check: its name, whether it is well, one line for people."""

    def remarks(self) -> Sequence[tuple[str, bool, str]]:
        """Checks without which jobs are taken and run all the same: as in `ready`."""

    def gauges(self) -> Mapping[tuple[str, ...], float]:
        """Figures for the metrics beside the engine's: (name, label…) → figure."""


InThread = Callable[[Callable[[], bytes]], Deferred[bytes]]
"""Runs a function in a thread of a bounded pool."""


class Edge:
    """See the module."""

    __slots__ = (
        "background",
        "body_max_bytes",
        "clock",
        "daemon",
        "engine",
        "in_thread",
        "long_pages",
        "metrics",
        "outlets",
        "registry",
        "tails",
        "tickets",
        "trail",
    )

    def __init__(
        self,
        engine: Engine,
        daemon: Daemon,
        clock: IReactorTime,
        body_max_bytes: int,
        in_thread: InThread,
        registry: Registry,
        tickets: Tickets,
    ) -> None:
        self.registry = registry
        self.tickets = tickets
        self.in_thread = in_thread
        self.metrics = Metrics(engine.counters, engine.store.refusals)
        self.engine = engine
        self.daemon = daemon
        self.clock = clock
        self.body_max_bytes = body_max_bytes
        self.background = Background()
        self.tails = Tails(clock)
        self.long_pages = DeferredSemaphore(LONG_PAGES_AT_ONCE)
        self.trail: Trail | None = None
        self.outlets: dict[Outlet, bytes] = {}  # streams that are being written → their last words at a stop

    def say_farewell(self) -> None:
        """The daemon stops: every stream ends, and its client may come back to the next one."""
        for outlet, last_words in list(self.outlets.items()):
            outlet.end_with(last_words)

    def job_json(self, job: Job) -> bytes:
        """The whole job."""
        return encode(view(job, self.engine.durability))

    def job_reply(self, request: Request, status: int, job: Job) -> bytes:
        """The job as the reply, with its ETag."""
        request.header(b"ETag", etag(job.revision))
        return request.reply(status, self.job_json(job), JSON)

    def created(self, request: Request, job: Job) -> None:
        """Say where the job is."""
        text = id_text(job.id)
        request.header(b"Location", b"/v1/jobs/" + text.encode())
        if self.trail is not None:  # here, not with the reply: that may come minutes later
            request.target = text
            self.trail.changed(request)


def draining() -> JobsvcError:
    """No new jobs are taken: the daemon stops."""
    return JobsvcError("draining", "The daemon is stopping; send it again in a moment.", retry_after_s=5)


def json_reply(request: Request, status: int, value: object) -> bytes:
    """Any value as the reply."""
    return request.reply(status, encode(value), JSON)
