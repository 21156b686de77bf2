"""F3: handlers of jobs: submit, look, wait, list, change. Each turns one request into one or two engine calls."""

from __future__ import annotations

from email.utils import formatdate
from typing import Literal, get_args

import msgspec
from msgspec import UNSET, Raw, UnsetType
from twisted.internet.defer import Deferred

from jobsvc.http.bodies import decode, decode_submit, json_body
from jobsvc.http.bulk import not_taken
from jobsvc.http.conditions import Known, etag, if_match, if_none_match, required_match
from jobsvc.http.edge import JSON, Edge, json_reply
from jobsvc.http.formats import EventFormat
from jobsvc.http.negotiate import (
    applied_wait,
    form_of,
    idempotency_key,
    preferred_wait_s,
)
from jobsvc.http.origin import origin_of
from jobsvc.http.preparing import preparing
from jobsvc.http.query import Query
from jobsvc.http.ratelimit import tell
from jobsvc.http.replays import NOT_ADMITTED, known
from jobsvc.http.request import Request
from jobsvc.http.streams import event_key, event_reply
from jobsvc.model.clock import time_text
from jobsvc.model.crashpoints import die, due
from jobsvc.model.errors import JobError, JobsvcError, invalid_field
from jobsvc.model.events import Attempt
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job, Patch, Seconds, Submit
from jobsvc.model.limits import GRACE_S
from jobsvc.ports import Submitted

NOT_YET_RETRY_S = 1
"""Retry-After of a result that is not there yet: clients that poll should long-poll instead."""
HALF_SENT_S = 0.05
"""Until half a reply has surely left the process that is to die with it (a crash point of tests)."""
_ERROR = msgspec.json.Decoder(JobError)


CancelMode = Literal["polite", "deadline", "now"]


class Cancel(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a cancel. `grace_s`: seconds between asking and killing, in mode `deadline` only."""

    mode: CancelMode = "polite"
    grace_s: Seconds | UnsetType = UNSET


_cancel_decoder = msgspec.json.Decoder(Cancel)
_patch_decoder = msgspec.json.Decoder(Patch)


def _asked(body: bytes) -> Cancel:
    """What a cancel asks for; an empty body asks politely. Raises invalid_field, bad_json."""
    try:
        asked = decode(_cancel_decoder, body) if body else Cancel()
    except JobsvcError as error:
        if any(at["pointer"] == "/mode" for at in error.context.get("errors", ())):
            raise invalid_field("/mode", f"one of {', '.join(get_args(CancelMode))} is expected") from None
        raise
    if asked.grace_s is not UNSET and asked.mode != "deadline":
        raise invalid_field("/grace_s", f"goes with mode deadline; mode {asked.mode} has no grace")
    return asked


async def submit(edge: Edge, request: Request, _query: Query) -> bytes:
    """`POST /v1/jobs`."""
    done = await accept(edge, request, decode_submit(json_body(request)))
    job = accepted(done)
    form = form_of(request, default="json")
    status = told(edge, request, done, job)
    if form in ("sse", "ndjson"):
        reader = edge.engine.reader(job, 0)
        render, key = EventFormat(form, 0), event_key(job.id, form)
        return await event_reply(edge, request, job, reader, render, key=key, status=status)
    wait_s = preferred_wait_s(request)
    if wait_s is not None:
        applied_wait(request, wait_s)
        job = await edge.engine.wait(job.id, request.tenant, wait_s, fresh=None if done.replayed else job)
    tell_expiry(edge, request, job)
    reply = edge.job_reply(request, status, job)
    if due("CP4"):
        request.write(reply[: len(reply) // 2])
        edge.clock.callLater(HALF_SENT_S, die)
        await Deferred()
    return reply


async def accept(edge: Edge, request: Request, envelope: Submit) -> Submitted:
    """Store one job; goes on when the client leaves meanwhile."""
    job = preparing(edge, request)(envelope, idempotency_key(request))
    try:
        [done] = await edge.background.detached(lambda: edge.engine.submit([job]))
    except JobsvcError as error:
        earlier = await known(edge, job) if error.code in NOT_ADMITTED else None
        if earlier is None:
            raise
        return earlier
    finally:
        request.release_body()
        tell(request, edge.engine.quotas.limits(request.tenant))
    return done


def accepted(done: Submitted) -> Job:
    """The job as stored. Raises key_reused, and invalid_field for one that came too late."""
    if done.job is None:
        raise not_taken(done)
    return done.job


def told(edge: Edge, request: Request, done: Submitted, job: Job) -> int:
    """Location and the mark of a replay; the status."""
    edge.created(request, job)
    if not done.replayed:
        return 201
    request.header(b"Idempotency-Replayed", b"true")
    return 200


def tell_expiry(edge: Edge, request: Request, job: Job) -> None:
    """When the job's key may be used anew: it lives as long as the job is kept, which is known once it has ended."""
    if job.key is not None and job.finished_at is not None:
        expires_s = job.finished_at / 1e6 + edge.engine.config.keep_s
        request.header(b"Idempotency-Key-Expires", formatdate(expires_s, usegmt=True).encode())


async def get(edge: Edge, request: Request, query: Query, job_id: bytes) -> bytes:
    """`GET /v1/jobs/{id}`."""
    known = if_none_match(request)
    job = await _awaited(edge, request, query, job_id, known)
    if known is not None and known.includes(job.revision):
        request.header(b"ETag", etag(job.revision))
        return request.reply(304, b"", b"")
    return edge.job_reply(request, 200, job)


async def _awaited(edge: Edge, request: Request, query: Query, job_id: bytes, known: Known | None) -> Job:
    """The job, when it is done or, for a client that knows it already, in a revision that is new to it."""
    if "wait" not in query:
        return await edge.engine.get(job_id, request.tenant)
    revision = None if known is None else known.single
    if known is not None and revision is None:
        job = await edge.engine.get(job_id, request.tenant)
        if not known.includes(job.revision):
            return job
        revision = job.revision
    return await edge.engine.wait(job_id, request.tenant, query["wait"], revision)


async def result(edge: Edge, request: Request, query: Query, job_id: bytes) -> bytes:
    """`GET /v1/jobs/{id}/result`."""
    job = await edge.engine.wait(job_id, request.tenant, query.get("wait", 0.0))
    if not job.done:
        request.header(b"Retry-After", b"%d" % NOT_YET_RETRY_S)
        return edge.job_reply(request, 202, job)
    return bare_result(request, job)


def bare_result(request: Request, job: Job) -> bytes:
    """The result alone. Raises job_failed: 200 never means failure."""
    if job.state != "succeeded":
        raise job_failed(job)
    return request.reply(200, job.result if job.result is not None else b"null", JSON)


def job_failed(job: Job) -> JobsvcError:
    """Why a done job has no result."""
    error = _ERROR.decode(job.error) if job.error is not None else JobError("cancelled")
    words = f"The job {job.state}: {error.kind}" + (f": {error.message}" if error.message else "") + "."
    return JobsvcError("job_failed", words, job=id_text(job.id), error=Raw(job.error or b"null"))


async def change(edge: Edge, request: Request, _query: Query, job_id: bytes) -> bytes:
    """`PATCH /v1/jobs/{id}`."""
    match = required_match(request)
    patch = decode(_patch_decoder, json_body(request))
    job = await edge.background.detached(lambda: edge.engine.change(job_id, request.tenant, patch, match))
    return edge.job_reply(request, 200, job)


async def cancel(edge: Edge, request: Request, _query: Query, job_id: bytes) -> bytes:
    """`POST /v1/jobs/{id}/cancel`."""
    match = if_match(request)
    asked = _asked(json_body(request))
    grace_s = GRACE_S if asked.grace_s is UNSET else asked.grace_s
    job, ended = await edge.background.detached(
        lambda: edge.engine.cancel(job_id, request.tenant, asked.mode, grace_s, match)
    )
    return edge.job_reply(request, 200 if ended else 202, job)


async def retry(edge: Edge, request: Request, _query: Query, job_id: bytes) -> bytes:
    """`POST /v1/jobs/{id}/retry`."""
    _no_body(request)
    match, origin = if_match(request), origin_of(request)
    job = await edge.background.detached(lambda: edge.engine.retry(job_id, request.tenant, match, origin))
    edge.created(request, job)
    return edge.job_reply(request, 201, job)


async def run_now(edge: Edge, request: Request, _query: Query, job_id: bytes) -> bytes:
    """`POST /v1/jobs/{id}/run`."""
    _no_body(request)
    match = if_match(request)
    job = await edge.background.detached(lambda: edge.engine.run_now(job_id, request.tenant, match))
    return edge.job_reply(request, 200, job)


async def delete(edge: Edge, request: Request, _query: Query, job_id: bytes) -> bytes:
    """`DELETE /v1/jobs/{id}`."""
    match = if_match(request)
    await edge.background.detached(lambda: edge.engine.delete(job_id, request.tenant, match))
    return request.reply(204, b"", b"")


def _no_body(request: Request) -> None:
    """These take nothing; an empty object is as good."""
    body = json_body(request)
    if body:
        decode(_nothing_decoder, body)


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A body without fields."""


_nothing_decoder = msgspec.json.Decoder(Nothing)


async def attempts(edge: Edge, request: Request, _query: Query, job_id: bytes) -> bytes:
    """`GET /v1/jobs/{id}/attempts`."""
    rows = await edge.engine.attempts(job_id, request.tenant)
    return json_reply(request, 200, {"attempts": [attempt_view(row) for row in rows]})


class AttemptView(msgspec.Struct):
    """An attempt as it is served."""

    epoch: int
    attempt: int
    state: str
    began_at: str | None
    finished_at: str | None
    worker: str | None
    error: Raw


def attempt_view(row: Attempt) -> AttemptView:
    """The shape of `row` for the wire."""
    return AttemptView(
        epoch=row.epoch,
        attempt=row.attempt,
        state=row.state,
        began_at=None if row.began_at is None else time_text(row.began_at),
        finished_at=None if row.finished_at is None else time_text(row.finished_at),
        worker=row.worker,
        error=Raw(row.error if row.error is not None else b"null"),
    )
