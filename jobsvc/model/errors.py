"""F0: errors as values. `JobsvcError` is a refusal with a code; `JobError` is what ended a job. Knows no HTTP."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

Code = Literal[
    "bad_json", "bad_query", "bad_host", "unauthenticated", "forbidden", "cross_site", "not_found", "no_such_task",
    "method_not_allowed", "invalid_args", "invalid_field", "key_reused", "conflict", "cannot_kill", "stale",
    "precondition_required", "too_large", "media_type", "job_failed", "rate_limited", "queue_full", "draining",
    "overloaded", "wait_over", "purged", "disk_full", "internal",
]  # fmt: skip
CODES: tuple[str, ...] = get_args(Code)

Kind = Literal[
    "task_error", "timeout", "cancelled", "crashed", "rejected", "unavailable", "conflict", "not_serialisable",
    "too_large", "would_deadlock", "lost", "stalled", "expired",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)


class JobsvcError(Exception):
    """A refusal with a stable code: the caller asked for something that is not to be had.

    Args:
        code: one of `CODES`; the HTTP edge maps it to a status.
        detail: one sentence for people: what is wrong and, where it helps, what to do.
        context: members of the problem document beside the standard ones (`errors`, `retry_after_s`, `job`, `error`).
    """

    def __init__(self, code: Code, detail: str, **context: Any) -> None:
        super().__init__(detail)
        self.code: Code = code
        self.detail = detail
        self.context = context


class CannotWrite(JobsvcError):
    """The store cannot write for now: the disk is full or read-only, or another process keeps the database locked.

    Nothing of what was asked for is stored, nothing else is lost, and the same write may succeed later.
    """


def invalid_field(pointer: str, detail: str) -> JobsvcError:
    """A field of the envelope is wrong; `pointer` is its JSON pointer."""
    return JobsvcError(
        "invalid_field", f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}]
    )


def invalid_args(pointer: str, detail: str) -> JobsvcError:
    """An argument of the task is wrong; `pointer` starts with /args."""
    return JobsvcError(
        "invalid_args", f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}]
    )


class Exit(msgspec.Struct):
    """How a process ended: by `code`, or by `signal` with its `name`. What did not happen is not there.

    `oom`: whether the kernel killed it for want of memory; null where that is not known.
    """

    code: int | UnsetType = UNSET
    signal: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    oom: bool | UnsetType | None = UNSET


class Where(msgspec.Struct):
    """Where the attempt ran that gave this error; nulls when no attempt did."""

    executor: str | None = None
    worker: str | None = None
    attempt: int | None = None
    epoch: int | None = None


class JobError(msgspec.Struct):
    """What ended a job, in the shape of design section 8; set for every final state but `succeeded`.

    `type` is the qualified name of the Python exception without `builtins.`, null when there was none. `retryable`:
    whether another try could end otherwise, by the kind and by what the task's code says of its error.
    """

    kind: Kind
    type: str | None = None
    message: str = ""
    retryable: bool = False
    traceback: str | None = None
    exit: Exit | None = None
    where: Where = msgspec.field(default_factory=Where)
