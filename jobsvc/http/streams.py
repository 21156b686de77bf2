"""F3: events and streams of jobs as replies that go on: resumable, paced by their reader."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from jobsvc.engine.readers import Reader
from jobsvc.http.edge import Edge
from jobsvc.http.formats import BareFormat, EventFormat, Format, ItemFormat, Restarted
from jobsvc.http.limits import STREAM_READ_BYTES
from jobsvc.http.negotiate import MEDIA, form_of, last_event
from jobsvc.http.outlet import Outlet
from jobsvc.http.problems import internal
from jobsvc.http.query import Query
from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError
from jobsvc.model.events import Chunk
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
    kinds, streams = query.get("kinds", ()), query.get("streams", ())
    reader = edge.engine.reader(job, after, kinds, streams, follow=query.get("follow", True))
    render = EventFormat(form, after, wants_end=not kinds or "end" in kinds)
    return await event_reply(edge, request, job, reader, render)


async def event_reply(
    edge: Edge, request: Request, job: Job, reader: Reader, render: EventFormat, *, status: int = 200
) -> bytes:
    """Events to the end. `end` comes when the job is done; without it the client may come back for more."""
    if not await pour(edge, request, reader, render, status=status):
        return b""
    last = await edge.engine.get(job.id, request.tenant)
    if last.done and render.wants_end:
        request.write(render.end(edge.job_json(last), last.seq, last.finished_at or last.created_at))
    return b""


async def stream(edge: Edge, request: Request, query: Query, job_id: bytes, name: str) -> bytes:
    """`GET /v1/jobs/{id}/streams/{name}`."""
    job = await edge.engine.get(job_id, request.tenant)
    await _check_stream(edge, job, name)
    resumed = last_event(request)
    after = query.get("from", 1) - 1 if resumed is None else resumed
    form = form_of(request, default="ndjson")
    epoch = job.epoch if job.done and query.get("epoch") != "all" else None
    render: Format
    start = after
    if form == "bytes":
        render = BareFormat(form, after, as_text=_is_text(edge, job))
    elif query.get("bare", False):
        render = BareFormat(form, after)
    else:
        render = ItemFormat(form, after)
        # One item earlier tells of which attempt it was, so that a restart right here is not missed.
        start = max(0, after - 1)
    reader = edge.engine.item_reader(job, name, start, epoch, follow=query.get("follow", True))
    await pour(edge, request, reader, render)
    return b""


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


def _rendered(render: Format, chunks: Sequence[Chunk]) -> tuple[bytes, bool]:
    """What of `chunks` the reader gets, and whether it must be cut off behind that."""
    out: list[bytes] = []
    try:
        for chunk in chunks:
            out.append(render(chunk))  # noqa: PERF401 - what came before a restart counts
    except Restarted:
        return b"".join(out), True
    return b"".join(out), False


async def pour(edge: Edge, request: Request, reader: Reader, render: Format, *, status: int = 200) -> bool:
    """Write all that `reader` gives, as fast as the client takes it. False when there was nothing to tell it all to.

    The head goes out at once; only for raw bytes it waits for the first items, since they may turn out to be none.
    """
    media = MEDIA[render.form]
    if request.method == b"HEAD" or render.form != "bytes":
        request.stream(status, media)
        if request.method == b"HEAD":
            return False
    outlet = Outlet(request, edge.clock, render.heartbeat)
    edge.outlets[outlet] = render.farewell
    try:
        while chunks := await reader.read(STREAM_READ_BYTES):
            data, cut = _rendered(render, chunks)
            if not request.startedWriting:
                request.stream(status, media)
            await outlet.send(data)
            if cut:
                break
        else:
            if not request.startedWriting:
                request.stream(status, media)
            return True
    except CancelledError:
        raise
    except Exception:
        if not request.startedWriting:
            raise
        internal(Failure(), "a stream")
    finally:
        del edge.outlets[outlet]
        outlet.close()
    await request.cut()
    return False
