"""F3: handlers that look at many jobs: a page by filter, or jobs by name, waited for if asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from jobsvc.http.cursors import cursor_behind, place_of
from jobsvc.http.edge import JSON, Edge, encode
from jobsvc.http.limits import ROWS_AT_ONCE
from jobsvc.http.narrowing import seen
from jobsvc.http.query import Query
from jobsvc.http.request import Request
from jobsvc.model.access import Principal
from jobsvc.model.errors import JobError, JobsvcError
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job, JobView, view
from jobsvc.model.limits import LIST_LIMIT, PAGE_BYTES
from jobsvc.ports import JobFilter
from jobsvc.runtime.waiting import turn

_ERROR = msgspec.json.Decoder(JobError)


async def look(edge: Edge, request: Request, query: Query) -> bytes:
    """`GET /v1/jobs`: a page by filter, or named jobs."""
    if "id" in query:
        return await _many(edge, request, query)
    for name in ("wait", "until"):
        if name in query:
            raise JobsvcError("bad_query", f"{name} goes with id.")
    include = query.get("include", ())
    wanted = _filter(query, request.asker)
    args, result = "args" in include, "result" in include

    async def make() -> bytes:
        page = await edge.engine.list(wanted)
        after = cursor_behind(page.jobs[-1].no, wanted) if page.more else None
        rows = await _rendered(edge, page.jobs, lambda job: _row(edge, job, args=args, result=result))
        return encode({"jobs": rows, "next": after})

    return request.reply(200, await _in_turn(edge, wanted.limit, make), JSON)


async def _many(edge: Edge, request: Request, query: Query) -> bytes:
    other = sorted(set(query) - {"id", "wait", "until"})
    if other:
        raise JobsvcError("bad_query", f"{other[0]} does not go with id.")
    asked = tuple(dict.fromkeys(query["id"]))
    ids = await seen(edge, request, [job_id for job_id in asked if isinstance(job_id, bytes)])
    tenant = request.tenant

    async def make() -> bytes:
        return await _in_turn(edge, len(ids), lambda: _page(edge, asked, ids, tenant))

    if "wait" not in query:
        return request.reply(200, await make(), JSON)
    until = query.get("until", "all")
    page = await edge.engine.wait_many(ids, tenant, query["wait"], until, make, asked)
    return request.reply(200, page, JSON)


async def _page(edge: Edge, asked: Sequence[bytes | str], ids: Sequence[bytes], tenant: str) -> bytes:
    """Those of `ids` that are there and have room in one reply, and what is to be said of the others in `asked`."""
    found = await edge.engine.get_many(ids, tenant, PAGE_BYTES)
    fitting = _fitting(found.values())
    durability = edge.engine.durability
    jobs = [found[job_id] for job_id in ids if job_id in fitting]
    missing = [id_text(i) if isinstance(i, bytes) else i for i in asked if i not in found]
    page: dict[str, Any] = {"jobs": await _rendered(edge, jobs, lambda job: view(job, durability))}
    page |= {"next": None, "missing": missing}
    if len(fitting) < len(found):
        page["rest"] = [id_text(job_id) for job_id in ids if job_id in found and job_id not in fitting]
    return encode(page)


async def _in_turn(edge: Edge, rows: int, make: Callable[[], Awaitable[bytes]]) -> bytes:
    """What `make` gives. Pages of many rows are made few at a time: each is large while it is made."""
    if rows <= ROWS_AT_ONCE:
        return await make()
    await edge.long_pages.acquire()
    try:
        return await make()
    finally:
        edge.long_pages.release()


async def _rendered(edge: Edge, jobs: Sequence[Job], show: Callable[[Job], JobView]) -> list[Raw]:
    """Each of them as JSON, a slice in each turn of the reactor."""
    rows: list[Raw] = []
    for start in range(0, len(jobs), ROWS_AT_ONCE):
        if start:
            await turn(edge.clock)
        rows += [Raw(encode(show(job))) for job in jobs[start : start + ROWS_AT_ONCE]]
    return rows


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
