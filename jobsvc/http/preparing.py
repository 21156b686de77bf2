"""F3: how the envelopes of one request become jobs: whose they are, what its token is for, what the client calls it."""

from __future__ import annotations

from typing import Protocol

from jobsvc.http.edge import Edge
from jobsvc.http.narrowing import check_task
from jobsvc.http.origin import origin_of
from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError
from jobsvc.model.job import NO_ORIGIN, Job, Submit


class Preparing(Protocol):
    """One envelope, with the request's Idempotency-Key if it had one."""

    def __call__(self, submit: Submit, key_header: str | None = None) -> Job:
        """The job, not stored yet."""


def preparing(edge: Edge, request: Request) -> Preparing:
    """Found once for all lines of a request. Raises as `Engine.prepare`, and forbidden, naming task or queue."""
    prepare, principal, origin = edge.engine.prepare, request.asker, origin_of(request)
    tenant, narrowed = principal.tenant, principal.narrowed
    if not narrowed and origin == NO_ORIGIN:
        return lambda submit, key_header=None: prepare(submit, tenant, key_header)

    def prepared(submit: Submit, key_header: str | None = None) -> Job:
        if narrowed:
            check_task(request, submit.task)
        job = prepare(submit, tenant, key_header)
        if narrowed and not principal.covers(job.task, job.queue):
            raise JobsvcError("forbidden", f"The token is not for the queue {job.queue!r}.")
        job.request_id, job.traceparent = origin
        return job

    return prepared
