"""F2: conversations with one answer: submit, wait, call, cancel and the like. No I/O (see `core`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobsvc.client import calls
from jobsvc.client.core import (
    Broken,
    Emit,
    Exchange,
    Flow,
    Open,
    Opened,
    Pause,
    Reply,
    Request,
    Session,
    read_all,
)
from jobsvc.client.errors import Unreachable, WaitTimeout
from jobsvc.client.replies import REFUSALS, job_of, page_of, refusal_of, result_of
from jobsvc.client.shapes import Args, Changes, Job, Options, id_of

POLL_S = 30.0
"""One long poll; then it is asked again. Below the minute after which proxies give up."""
PAGE_JOBS = 200
"""Rows asked for at a time when a whole list is read."""


def ask(session: Session, request: Request, until: float | None = None) -> Flow[Reply]:
    """The reply below 400, after as many tries as are safe and worth it; no new one after `until` (session's clock).

    Raises `Refused` for other statuses, `Unreachable` when no reply came.
    """
    attempts = _Attempts(session, request, until)
    while True:
        try:
            reply: Reply = yield Exchange(request)
        except Broken as broken:
            delay_s = attempts.after_break(broken)
        else:
            if reply.status < REFUSALS:
                return reply
            delay_s = attempts.after_refusal(reply)
        yield Pause(delay_s)


def ask_open(session: Session, request: Request, quiet_s: float) -> Flow[Opened]:
    """The same for a reply whose body is read piece by piece."""
    attempts = _Attempts(session, request, None)
    while True:
        try:
            opened: Opened = yield Open(request, quiet_s)
            if opened.status < REFUSALS:
                return opened
            reply = yield from read_all(opened)
        except Broken as broken:
            delay_s = attempts.after_break(broken)
        else:
            delay_s = attempts.after_refusal(reply)
        yield Pause(delay_s)


class _Attempts:
    """The tries of one request; gives the delay before the next, or raises what ended them."""

    def __init__(self, session: Session, request: Request, until: float | None) -> None:
        self._request = request
        self._session = session
        self._until = until
        self._retry = session.retry
        self._tried = 0

    def after_break(self, broken: Broken) -> float:
        """Seconds to wait after a broken connection."""
        self._tried += 1
        if broken.sent and self._request.wait_s:
            self._retry = self._session.patient.retry
        delay_s = self._retry.after_break(self._tried, sent=broken.sent, repeatable=self._request.repeatable)
        if delay_s is None or self._too_late(delay_s):
            maybe_sent = broken.sent and self._request.method != "GET"
            raise Unreachable(str(broken), maybe_sent=maybe_sent) from broken
        return delay_s

    def after_refusal(self, reply: Reply) -> float:
        """Seconds to wait after a refusal."""
        self._tried += 1
        refused = refusal_of(reply)
        delay_s = self._retry.after_problem(
            self._tried,
            refused.problem,
            reply.headers.get("retry-after"),
            repeatable=self._request.repeatable,
        )
        if delay_s is None or self._too_late(delay_s):
            raise refused
        return delay_s

    def _too_late(self, delay_s: float) -> bool:
        return self._until is not None and self._session.clock() + delay_s > self._until


def ask_job(session: Session, request: Request, until: float | None = None) -> Flow[Job]:
    """The job that the reply holds."""
    return job_of((yield from ask(session, request, until)))


def submit(
    session: Session, task: str, args: Args, options: Options, wait_s: float | None = None
) -> Flow[Job]:
    """A new job. Without a key one is made up, so that a submit whose reply was lost can be sent again."""
    body = calls.submission(task, args, options)
    body.setdefault("key", session.new_key())
    return (yield from ask_job(session, calls.submit(body, wait_s)))


def update(session: Session, job: Job | str, changes: Changes, revision: int | None) -> Flow[Job]:
    """The job with these changes. One given as such is changed only as it was seen. Raises `Refused` (`stale`)."""
    if revision is None and isinstance(job, Job):
        revision = job.revision
    return (yield from ask_job(session, calls.update(id_of(job), changes, revision)))


def wait(session: Session, job_id: str, timeout_s: float | None) -> Flow[Job]:
    """The job once it is done, whatever its outcome. Raises `WaitTimeout`."""
    return (yield from _wait(session, job_id, timeout_s, session.clock()))


def _wait(session: Session, job_id: str, timeout_s: float | None, began: float) -> Flow[Job]:
    until = None if timeout_s is None else began + timeout_s
    while True:
        left_s = POLL_S if until is None else max(0.0, until - session.clock())
        job = yield from ask_job(session, calls.get(job_id, min(POLL_S, left_s)), until)
        if job.done:
            return job
        if until is not None and session.clock() >= until:
            raise WaitTimeout(job, timeout_s or 0.0)
        session = session.patient


def call(session: Session, task: str, args: Args, options: Options, timeout_s: float | None) -> Flow[Any]:
    """The result of a new job: one request, when it is done within one long poll."""
    began = session.clock()
    first_s = POLL_S if timeout_s is None else min(POLL_S, timeout_s)
    job = yield from submit(session, task, args, options, first_s)
    if not job.done:
        job = yield from _wait(session.patient, job.id, timeout_s, began)
    return result_of(job)


def result(session: Session, job_id: str, timeout_s: float | None) -> Flow[Any]:
    """The result of a job, waited for. Raises `JobFailed`, `WaitTimeout`."""
    return result_of((yield from wait(session, job_id, timeout_s)))


def list_jobs(session: Session, filters: Mapping[str, Any], limit: int | None) -> Flow[None]:
    """Emits jobs page by page, `limit` of them at most."""
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        size = PAGE_JOBS if left is None else min(PAGE_JOBS, left)
        page = page_of((yield from ask(session, calls.list_jobs({**filters, "limit": size}, cursor))))
        if page.jobs:
            yield Emit(page.jobs)
        cursor = page.next
        if cursor is None:
            return
        if left is not None:
            left -= len(page.jobs)
