"""F2: what a client sees of the wire, as typed structs. Shapes only; unknown fields of a newer daemon are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypedDict

import msgspec

Args: TypeAlias = Mapping[str, Any] | list[Any] | tuple[Any, ...] | msgspec.Struct | msgspec.Raw | None
"""Arguments of a task: by name (a mapping or a struct), by position (a list or tuple), or none."""

CancelMode = Literal["polite", "deadline", "now"]
"""`polite`: ask, never kill. `deadline`: ask, kill after the grace. `now`: kill at once."""


class JobError(msgspec.Struct, kw_only=True):
    """Why a job did not succeed. `type` is the remote exception's qualified name, `traceback` its text."""

    kind: str
    type: str | None = None
    message: str = ""
    retryable: bool = False
    traceback: str | None = None
    exit: dict[str, Any] | None = None
    where: dict[str, Any] | None = None


class Progress(msgspec.Struct):
    """How far a job says it is: `n` of `of` (either may be null), with a note."""

    n: int | float | None = None
    of: int | float | None = None
    note: str | None = None


class Job(msgspec.Struct, kw_only=True):
    """A job as the daemon served it; a snapshot, it does not change by itself.

    `args` and `result` are None where the daemon left them out (lists do). `revision` grows with every change.
    Durations are seconds, times are aware datetimes in UTC.
    """

    id: str
    task: str
    state: str
    done: bool
    args: Any = None
    result: Any = None
    error: JobError | None = None
    reason: str | None = None
    executor: str = ""
    queue: str = "default"
    priority: int = 0
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    tenant: str = "default"
    revision: int = 0
    epoch: int = 0
    attempt: int = 0
    max_attempts: int = 1
    backoff: dict[str, float] = msgspec.field(default_factory=dict)
    on_lost: str = "retry"
    created_at: datetime | None = None
    run_at: datetime | None = None
    expires_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    timeouts: dict[str, float | None] = msgspec.field(default_factory=dict)
    progress: Progress | None = None
    durability: str = ""
    parent: str | None = None
    rerun_of: str | None = None
    links: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether the outcome is a result."""
        return self.state == "succeeded"


class Page(msgspec.Struct):
    """One page of `GET /v1/jobs`; `missing` only when ids were asked for."""

    jobs: list[Job]
    next: str | None = None
    missing: list[str] = msgspec.field(default_factory=list)


class Event(msgspec.Struct):
    """One event of a job. `kind`: job, state, progress, log, item, gap or end; `n` is an item's number in `stream`."""

    seq: int
    kind: str
    at: datetime | None = None
    data: Any = None
    stream: str | None = None
    n: int | None = None


class Item(msgspec.Struct, gc=False):
    """One item of one stream. `restart` marks where a further attempt began anew (it has no data).

    `kind` is empty but for lines that are no item, such as a `gap` (items that the quota has pushed out).
    """

    seq: int = 0
    epoch: int = 0
    data: Any = None
    restart: bool = False
    kind: str = ""


class Problem(msgspec.Struct):
    """An RFC 9457 problem document: why the daemon refused. `code` is from a closed list, `unknown` from strangers."""

    status: int = 0
    code: str = "unknown"
    title: str = ""
    detail: str = ""
    type: str = "about:blank"
    instance: str | None = None
    source: str = "service"
    retry_safe: bool = False
    errors: list[dict[str, Any]] = msgspec.field(default_factory=list)
    retry_after_s: float | None = None
    job: Any = None
    error: Any = None


class BulkLine(msgspec.Struct, gc=False):
    """One line of a bulk reply: an id (and the job, where asked for) or a problem; with `state` the outcome of a
    finished job.
    """

    line: int
    id: str | None = None
    problem: Problem | None = None
    state: str | None = None
    result: Any = None
    error: JobError | None = None
    job: Job | None = None


class Options(TypedDict, total=False):
    """What a submit may say beside task and arguments; what is left out comes from the task.

    `key` makes a submit repeatable: the same key and body give the same job. Times are aware datetimes or RFC 3339
    texts, `delay_s` and `timeouts` are seconds.
    """

    key: str
    queue: str
    priority: int
    run_at: datetime | str
    delay_s: float
    expires_at: datetime | str
    timeouts: Mapping[str, float | None]
    retries: int
    backoff: Mapping[str, float]
    on_lost: Literal["retry", "fail"]
    labels: Mapping[str, str]


class Changes(TypedDict, total=False):
    """What can be changed of a job that waits. `timeouts` and `labels` replace what was there."""

    priority: int
    run_at: datetime | str | None
    timeouts: Mapping[str, float | None]
    labels: Mapping[str, str]


class JobFilters(TypedDict, total=False):
    """What `list` may be narrowed by; several states are given as a list."""

    state: str | list[str]
    task: str
    queue: str
    labels: Mapping[str, str]
    since: datetime | str
    order: Literal["asc", "desc"]
    include: str | list[str]


def id_of(job: Job | str) -> str:
    """The id of a job given as such or by its id."""
    return job if isinstance(job, str) else job.id
