"""F3: types that only the contract names: bodies that are plain dictionaries in the code, lists, health.

Nothing decodes or encodes with them; tests hold real replies against the schemas made from them.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from jobsvc.http.api_daemon import WorkerView
from jobsvc.http.api_jobs import AttemptView
from jobsvc.http.api_tasks import TaskView
from jobsvc.http.executors import ExecutorView
from jobsvc.model.errors import Code, JobError
from jobsvc.model.job import JobView


class FieldError(msgspec.Struct):
    """One wrong place: `pointer` is a JSON pointer into what was sent (empty = all of it); `detail` says what is wrong.

    In the refusal of a bulk upload with atomic=1 the pointer begins with the number of the line.
    """

    pointer: str
    detail: str


class Problem(msgspec.Struct):
    """RFC 9457 problem document. Decide by `code`, which is from a closed list; show `detail` to people.

    `retry_safe`: nothing was done, and the very same request may succeed later, after `retry_after_s` if given.
    `source`: who has to change something: the client, the service, or the code of the job. `instance` is the id of the
    request, as in X-Request-ID. `errors` names the wrong places; `job` and `error` tell of the job that failed.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: Code
    source: str
    retry_safe: bool
    errors: list[FieldError] | UnsetType = UNSET
    retry_after_s: float | UnsetType = UNSET
    job: str | UnsetType = UNSET
    error: JobError | UnsetType | None = UNSET


class JobPage(msgspec.Struct):
    """Some jobs. `next` is the cursor of the page behind this one, null on the last.

    `missing` comes with id alone: what was asked for and is not there. So does `rest`, when one reply has no room for
    all: what else is there, to be asked for by further requests.
    """

    jobs: list[JobView]
    next: str | None
    missing: list[str] | UnsetType = UNSET
    rest: list[str] | UnsetType = UNSET


class Attempts(msgspec.Struct):
    """All attempts at one job, in order."""

    attempts: list[AttemptView]


class Tasks(msgspec.Struct):
    """All tasks, by name."""

    tasks: list[TaskView]


class Workers(msgspec.Struct):
    """All workers."""

    workers: list[WorkerView]


class Executors(msgspec.Struct):
    """All executors, and what each can and cannot do."""

    executors: list[ExecutorView]


class Check(msgspec.Struct):
    """One check of the health."""

    check: str
    ok: bool
    detail: str


class Readiness(msgspec.Struct):
    """Whether jobs can be taken and run, and each check. A broken module is listed and does not stop the others."""

    ready: bool
    checks: list[Check]
