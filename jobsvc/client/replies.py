"""F2: replies judged: a value of the expected shape, or the exception that fits. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from jobsvc.client.core import Reply
from jobsvc.client.errors import ClientError, Refused, job_failure
from jobsvc.client.shapes import Job, Page, Problem

T = TypeVar("T")

REFUSALS = 400
"""Statuses from here on are refusals."""
_DETAIL_CHARS = 300
"""How much of a stranger's error page is worth showing."""

_problems = msgspec.json.Decoder(Problem)
_jobs = msgspec.json.Decoder(Job)
_pages = msgspec.json.Decoder(Page)
_values = msgspec.json.Decoder()


def problem_of(reply: Reply) -> Problem:
    """Why the request was refused, for a status of `REFUSALS` or above.

    Replies that are no problem document come from somebody else (a proxy): their status and text are kept.
    """
    if "problem+json" in reply.headers.get("content-type", ""):
        try:
            problem = _problems.decode(reply.body)
        except msgspec.DecodeError:
            problem = Problem()
        else:
            problem.status = reply.status
            return problem
    text = reply.body[:_DETAIL_CHARS].decode("utf-8", "replace").strip()
    return Problem(status=reply.status, detail=text or f"HTTP status {reply.status} without explanation")


def _decoded(decoder: msgspec.json.Decoder[T], reply: Reply) -> T:
    try:
        return decoder.decode(reply.body)
    except msgspec.DecodeError as error:
        raise ClientError(f"not the answer of a jobsvc daemon (status {reply.status}): {error}") from error


def job_of(reply: Reply) -> Job:
    """The job in a reply."""
    return _decoded(_jobs, reply)


def page_of(reply: Reply) -> Page:
    """The page of jobs in a reply."""
    return _decoded(_pages, reply)


def value_of(reply: Reply) -> Any:
    """Any JSON in a reply; None for an empty one."""
    return _decoded(_values, reply) if reply.body.strip() else None


def result_of(job: Job) -> Any:
    """The result of a job that is done. Raises `JobFailed` or one of its kinds when there is none."""
    if job.succeeded:
        return job.result
    raise job_failure(job.id, job.state, job.error, job)


def ends_of(page: Page) -> Iterator[tuple[str, Job | Refused]]:
    """Those jobs of a page that are done, by id; for one that is gone, what says so."""
    for job in page.jobs:
        if job.done:
            yield job.id, job
    for job_id in page.missing:
        detail = f"job {job_id} is gone: deleted, or kept long enough"
        yield job_id, Refused(Problem(status=410, code="purged", detail=detail))


def outcome_of(end: Job | Exception) -> Any:
    """What a job that is done has given: its result, or the exception that fits."""
    if not isinstance(end, Job):
        return end
    return end.result if end.succeeded else job_failure(end.id, end.state, end.error, end)


def stranger(what: object) -> ClientError:
    """A bulk reply that makes no sense."""
    return ClientError(f"not the bulk reply of a jobsvc daemon: {what}")


def refusal_of(reply: Reply) -> Refused:
    """`problem_of` as an exception."""
    return Refused(problem_of(reply))
