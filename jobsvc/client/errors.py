"""F2: what goes wrong, as exceptions: a job's bad end, a wait that ran out, a refusal, no daemon."""

from __future__ import annotations

from jobsvc.client.shapes import Job, JobError, Problem

_UNKNOWN = JobError(kind="lost", message="the daemon gave no reason")


class ClientError(Exception):
    """Base of everything this client raises on its own account."""


class JobFailed(ClientError):
    """The job ended without a result: failed, cancelled or expired.

    Attributes:
        job_id: the job.
        state: its final state.
        kind: one of the closed list of error kinds (`task_error`, `timeout`, `crashed`, …).
        type: qualified name of the remote exception; None when there was none.
        remote_traceback: its text, as the worker saw it; also shown below our own traceback.
        error: all that is known.
        job: the whole job, where it was fetched; None from `map`.
    """

    def __init__(self, job_id: str, state: str, error: JobError | None, job: Job | None = None) -> None:
        self.job_id = job_id
        self.state = state
        self.error = error or _UNKNOWN
        self.kind = self.error.kind
        self.type = self.error.type
        self.remote_traceback = self.error.traceback
        self.job = job
        cause = ": ".join(part for part in (self.kind, self.type, self.error.message) if part)
        super().__init__(f"job {job_id} {state}: {cause}")
        if self.remote_traceback:
            self.add_note(f"In the worker:\n{self.remote_traceback.rstrip()}")


class JobCancelled(JobFailed):
    """Somebody cancelled the job."""


class JobLost(JobFailed):
    """The job's worker vanished, and the job may not run again (`on_lost="fail"`, or the third loss)."""


def job_failure(job_id: str, state: str, error: JobError | None, job: Job | None = None) -> JobFailed:
    """The exception that fits a final state other than `succeeded`."""
    if state == "cancelled":
        return JobCancelled(job_id, state, error, job)
    if error is not None and error.kind == "lost":
        return JobLost(job_id, state, error, job)
    return JobFailed(job_id, state, error, job)


class WaitTimeout(ClientError, TimeoutError):
    """The time given for waiting is over; the job goes on. `job` is its last known shape."""

    def __init__(self, job: Job, waited_s: float) -> None:
        self.job = job
        self.waited_s = waited_s
        super().__init__(f"job {job.id} is still {job.state} after {waited_s:g} s")


class Refused(ClientError):
    """The daemon said no. `problem` is its answer; `code`, `status`, `detail`, `errors` come from there.

    `line` is the line (from 1) of a bulk submit that was refused, else None.
    """

    def __init__(self, problem: Problem, line: int | None = None) -> None:
        self.problem = problem
        self.line = line
        self.code = problem.code
        self.status = problem.status
        self.detail = problem.detail or problem.title
        self.errors = problem.errors
        where = "" if line is None else f"line {line}: "
        super().__init__(f"{where}{self.code} ({self.status}): {self.detail}")


class BulkRefused(Refused):
    """Some lines of `submit_many` were refused, the others are accepted.

    Attributes:
        ids: one entry a line: the job's id, or the `Refused` in its place. The first of them gives this
            exception its problem.
    """

    def __init__(self, first: Refused, ids: list[str | Refused]) -> None:
        super().__init__(first.problem, first.line)
        self.ids = ids


def bulk_ids(values: list[str | Refused]) -> list[str]:
    """The ids of a bulk submit, when every line has one. Raises `BulkRefused`."""
    refused = next((value for value in values if isinstance(value, Refused)), None)
    if refused is not None:
        raise BulkRefused(refused, values)
    return [value for value in values if isinstance(value, str)]


class Unreachable(ClientError, ConnectionError):
    """No daemon found, no connection, or a connection that broke.

    `maybe_sent` is true when the request may have been carried out although no answer came.
    """

    def __init__(self, message: str, *, maybe_sent: bool = False) -> None:
        super().__init__(message)
        self.maybe_sent = maybe_sent


class StreamBroken(ClientError):
    """The values of a stream do not follow on those already read.

    `why` is `restart` (another attempt began anew: what was read is void) or `gap` (the quota has pushed items out).
    `items()` shows both as they come instead of raising.
    """

    def __init__(self, job_id: str, why: str, seq: int) -> None:
        self.job_id = job_id
        self.why = why
        self.seq = seq
        super().__init__(f"stream of job {job_id}: {why} at item {seq}")
