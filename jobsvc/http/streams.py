"""F3: events and streams of jobs as replies that go on: resumable, paced by their reader."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from jobsvc.engine.readers import Reader
from jobsvc.http.edge import Edge
from jobsvc.http.formats import BareFormat, EventFormat, Format, ItemFormat
from jobsvc.http.negotiate import MEDIA, Form, form_of, last_event
from jobsvc.http.outlet import Outlet
from jobsvc.http.problems import internal
from jobsvc.http.query import Query
from jobsvc.http.request import Request
from jobsvc.http.sources import Source
from jobsvc.http.tails import Shared
from jobsvc.model.errors import JobsvcError
from jobsvc.model.job import Job


async def events(edge: Edge, request: Request, query: Query, job_id: bytes) -> bytes:
    """`GET /v1/jobs/{id}/events`."""
    job = await edge.engine.get(job_id, request.tenant)
    resumed = last_event(request)
    after = query.get("from", 1) - 1 if resumed is None else resumed
    if resumed is not None and job.done and resumed == job.seq:
        return request.reply(204, b"", b"")
    if resumed is not None and resumed > job.seq:
        after = 0  # a number from nowhere: rather everything again than nothing
    form = form_of(request, default="sse")
    kinds, streams, follow = query.get("kinds", ()), query.get("streams", ()), query.get("follow", True)
    reader = edge.engine.reader(job, after, kinds, streams, follow=follow)
    render = EventFormat(form, after, wants_end=not kinds or "end" in kinds)
    key = event_key(job_id, form, kinds, streams) if follow else None
    return await event_reply(edge, request, job, reader, render, key=key)


def event_key(job_id: bytes, form: Form, kinds: Sequence[str] = (), streams: Sequence[str] = ()) -> Hashable:
    """What makes two replies of events the same from the same number on."""
    return job_id, form, frozenset(kinds), frozenset(streams)


async def event_reply(
    edge: Edge,
    request: Request,
    job: Job,
    reader: Reader,
    render: EventFormat,
    *,
    key: Hashable = None,
    status: int = 200,
) -> bytes:
    """Events to the end. `end` comes when the job is done; without it the client may come back for more."""

    async def last_words() -> bytes | None:
        try:
            last = await edge.engine.get(job.id, job.tenant)
        except JobsvcError:
            return None  # deleted meanwhile: how it ended can no longer be told
        if not last.done or not render.wants_end:
            return b""
        return render.end(edge.job_json(last), last.seq, last.finished_at or last.created_at)

    return await pour(edge, request, Source(reader, render, last_words), key, status=status)


async def stream(edge: Edge, request: Request, query: Query, job_id: bytes, name: str) -> bytes:
    """`GET /v1/jobs/{id}/streams/{name}`."""
    job = await edge.engine.get(job_id, request.tenant)
    await _check_stream(edge, job, name)
    resumed = last_event(request)
    after = query.get("from", 1) - 1 if resumed is None else resumed
    form = form_of(request, default="ndjson")
    epoch = job.epoch if job.done and query.get("epoch") != "all" else None
    render: Format
    start, bare = after, query.get("bare", False)
    if form == "bytes":
        render = BareFormat(form, after, as_text=_is_text(edge, job))
    elif bare:
        render = BareFormat(form, after)
    else:
        render = ItemFormat(form, after)
        # One item earlier tells of which attempt it was, so that a restart right here is not missed.
        start = max(0, after - 1)
    follow = query.get("follow", True)
    reader = edge.engine.item_reader(job, name, start, epoch, follow=follow)
    key = (job_id, name, form, bare, epoch) if follow else None
    return await pour(edge, request, Source(reader, render), key)


async def _check_stream(edge: Edge, job: Job, name: str) -> None:
    """A stream that a done job never had is told from one that stayed empty: `out` may, a misspelt name may not."""
    if name == "out" or not job.done or await edge.engine.store.items(job.no, name, 0, 1, None):
        return
    detail = f"The job has no stream {name[:128]!r}."
    if name == "log":
        detail += " Its log lines are events: GET …/events?kinds=log."
    raise JobsvcError("not_found", detail)


def _is_text(edge: Edge, job: Job) -> bool:
    """Whether items are lines of text; otherwise strings are base64, as bytes are in JSON."""
    spec = edge.engine.task(job.task)
    return spec is not None and spec.command is not None and spec.command.text


async def pour(edge: Edge, request: Request, source: Source, key: Hashable, *, status: int = 200) -> bytes:
    """Write all that `source` gives, as fast as the client takes it.

    The head goes out at once; only for raw bytes it waits for the first items, since they may turn out to be none.

    Args:
        key: see `Shared`; None: it is read for this client alone.
    """
    render = source.render
    media = MEDIA[render.form]
    if request.method == b"HEAD" or render.form != "bytes":
        request.stream(status, media)
        if request.method == b"HEAD":
            return b""
    outlet = Outlet(request, edge.clock, render.heartbeat)
    edge.outlets[outlet] = render.farewell
    shared = None if key is None else Shared(edge.tails, key, source)
    try:
        while True:
            piece = await (source if shared is None else shared).read()
            if not request.startedWriting:
                request.stream(status, media)
            await outlet.send(piece.data)
            if piece.ended:
                return b""
            if piece.cut:
                break
    except CancelledError:
        raise
    except Exception:
        if not request.startedWriting:
            raise
        internal(Failure(), "a stream")
    finally:
        if shared is not None:
            shared.close()
        del edge.outlets[outlet]
        outlet.close()
    await request.cut()
    return b""
