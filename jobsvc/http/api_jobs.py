"""F3: handlers of jobs: submit, look, wait, list, change. Each turns one request into one or two engine calls."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import formatdate
from typing import Any, Literal, get_args

import msgspec
from msgspec import UNSET, Raw, UnsetType
from twisted.internet.defer import Deferred

from jobsvc.http.bodies import decode, decode_submit, json_body
from jobsvc.http.bulk import not_taken
from jobsvc.http.conditions import Known, etag, if_match, if_none_match, required_match
from jobsvc.http.cursors import cursor_behind, place_of
from jobsvc.http.edge import JSON, Edge, encode, json_reply
from jobsvc.http.formats import EventFormat
from jobsvc.http.narrowing import seen
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
from jobsvc.http.request import Request
from jobsvc.http.streams import event_reply
from jobsvc.model.access import Principal
from jobsvc.model.clock import time_text
from jobsvc.model.crashpoints import die, due
from jobsvc.model.errors import JobError, JobsvcError, invalid_field
from jobsvc.model.events import Attempt
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job, JobView, Patch, Seconds, Submit, view
from jobsvc.model.limits import GRACE_S, LIST_LIMIT, PAGE_BYTES
from jobsvc.ports import JobFilter, Submitted

NOT_YET_RETRY_S = 1
"""Retry-After of a result that is not there yet: clients that poll should long-poll instead."""
HALF_SENT_S = 0.05
"""Until half a reply has surely left the process that is to die with it (a crash point of tests)."""
_NOT_ADMITTED = frozenset(("queue_full", "rate_limited", "overloaded"))
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
        return await event_reply(edge, request, job, reader, EventFormat(form, 0), status=status)
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
        known = await _known_by_key(edge, job) if error.code in _NOT_ADMITTED else None
        if known is None:
            raise
        return known
    finally:
        request.release_body()
        tell(request, edge.engine.quotas.limits(request.tenant))
    return done


async def _known_by_key(edge: Edge, job: Job) -> Submitted | None:
    """What became of this key earlier; None for a new one.

    A replay adds no job, so no limit on new ones may keep the client from learning what became of its first try.
    """
    earlier = None if job.key is None else await edge.engine.store.by_key(job.tenant, job.key)
    if earlier is None:
        return None
    return Submitted(earlier, replayed=True) if earlier.key_hash == job.key_hash else Submitted(None)


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


async def look(edge: Edge, request: Request, query: Query) -> bytes:
    """`GET /v1/jobs`: a page by filter, or named jobs."""
    if "id" in query:
        return await _many(edge, request, query)
    for name in ("wait", "until"):
        if name in query:
            raise JobsvcError("bad_query", f"{name} goes with id.")
    include = query.get("include", ())
    wanted = _filter(query, request.asker)
    page = await edge.engine.list(wanted)
    after = cursor_behind(page.jobs[-1].no, wanted) if page.more else None
    jobs = [_row(edge, job, args="args" in include, result="result" in include) for job in page.jobs]
    return json_reply(request, 200, {"jobs": jobs, "next": after})


async def _many(edge: Edge, request: Request, query: Query) -> bytes:
    other = sorted(set(query) - {"id", "wait", "until"})
    if other:
        raise JobsvcError("bad_query", f"{other[0]} does not go with id.")
    asked = dict.fromkeys(query["id"])
    ids = await seen(edge, request, [job_id for job_id in asked if isinstance(job_id, bytes)])
    if "wait" in query:
        until = query.get("until", "all")
        found = await edge.engine.wait_many(ids, request.tenant, query["wait"], until, PAGE_BYTES)
    else:
        found = await edge.engine.get_many(ids, request.tenant, PAGE_BYTES)
    fitting = _fitting(found.values())
    jobs = [view(found[job_id], edge.engine.durability) for job_id in ids if job_id in fitting]
    missing = [id_text(i) if isinstance(i, bytes) else i for i in asked if i not in found]
    page: dict[str, Any] = {"jobs": jobs, "next": None, "missing": missing}
    if len(fitting) < len(found):
        page["rest"] = [id_text(job_id) for job_id in ids if job_id in found and job_id not in fitting]
    return json_reply(request, 200, page)


def _fitting(jobs: Iterable[Job]) -> set[bytes]:
    """Those of them, at least one, that go into one reply; first those that are done: the client waits for them."""
    left, fitting = PAGE_BYTES, set[bytes]()
    for job in sorted(jobs, key=lambda job: not job.done):
        left -= len(job.args or b"") + len(job.result or b"")
        if job.lacks_texts or (left < 0 and fitting):
            break
        fitting.add(job.id)
    return fitting


def _filter(query: Query, who: Principal) -> JobFilter:
    """What the store is asked for."""
    include = query.get("include", ())
    wanted = JobFilter(
        tenant=who.tenant,
        among_tasks=who.tasks,
        among_queues=who.queues,
        states=query.get("state", ()),
        task=query.get("task"),
        queue=query.get("queue"),
        labels=query.get("label.", {}),
        since=query.get("since"),
        ascending=query.get("order") == "asc",
        limit=query.get("limit", LIST_LIMIT),
        max_bytes=PAGE_BYTES,
        args="args" in include,
        result="result" in include,
    )
    if "cursor" in query:
        wanted.cursor = place_of(query["cursor"], wanted)
    return wanted


def _row(edge: Edge, job: Job, *, args: bool, result: bool) -> JobView:
    """A row of a list: without what is long, unless asked."""
    row = view(job, edge.engine.durability, args=args, result=result)
    if not result and job.error is not None:
        error = _ERROR.decode(job.error)
        if error.traceback is not None:
            error.traceback = None
            row.error = Raw(encode(error))
    return row


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
