"""F3: the reply to a bulk upload: one line per line, in order; then, if asked, one per outcome as jobs end."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from jobsvc.engine.admission import late
from jobsvc.engine.bus import Follow
from jobsvc.http.bodies import check_ndjson
from jobsvc.http.bulk import BulkIntake, Group, OnCommitted, key_reused
from jobsvc.http.bulk_jobs import job_lines
from jobsvc.http.edge import Edge, draining, encode
from jobsvc.http.formats import HEARTBEATS
from jobsvc.http.limits import ATOMIC_ERRORS_MAX, FOLLOW_HELD_BYTES, FOLLOW_ROWS
from jobsvc.http.negotiate import MEDIA, no_key
from jobsvc.http.outlet import Outlet
from jobsvc.http.preparing import preparing
from jobsvc.http.problems import document
from jobsvc.http.query import Query
from jobsvc.http.ratelimit import tell
from jobsvc.http.replays import NOT_ADMITTED, known_ones
from jobsvc.http.request import Request
from jobsvc.model.errors import JobsvcError
from jobsvc.model.ids import id_texts
from jobsvc.model.job import Job
from jobsvc.model.limits import PAGE_BYTES
from jobsvc.ports import Submitted
from jobsvc.runtime.waiting import Waiters

_OUTCOME_BYTES = 200
"""What an outcome takes beside its result and error."""


class OutcomeLine(msgspec.Struct, gc=False):
    """One finished job of a followed upload."""

    line: int
    id: str
    state: str
    result: Raw
    error: Raw


_NULL = Raw(b"null")
encode_lines = msgspec.json.Encoder().encode_lines


class Outcomes:
    """Outcomes of the upload's jobs, held until the client takes them.

    Above `FOLLOW_HELD_BYTES` only ids are held; those rows are final, and are read again when it is their turn.
    """

    def __init__(self, edge: Edge, tenant: str) -> None:
        self._edge = edge
        self._tenant = tenant
        self._follows: list[Follow] = []
        self._lines: dict[bytes, int | list[int]] = {}  # a list where one key stands on several lines
        self._ready: deque[Job | bytes] = deque()
        self._held_bytes = 0
        self._more: Waiters[None] = Waiters()
        self._closed = False

    def committed(self, lines: Sequence[int], answers: Sequence[Submitted]) -> None:
        """Follow these jobs from now on, unless nobody listens any more."""
        if self._closed:
            return
        fresh: list[Job] = []
        replayed: list[Job] = []
        for line, answer in zip(lines, answers, strict=True):
            job = answer.job
            if job is None:
                continue
            known = self._lines.get(job.id)
            if known is not None:
                self._lines[job.id] = [*known, line] if isinstance(known, list) else [known, line]
                continue
            self._lines[job.id] = line
            (replayed if answer.replayed else fresh).append(job)
        if fresh:
            self._follows.append(self._edge.engine.follow(fresh, self._ended))
        if replayed:
            self._follows.append(self._edge.engine.follow(replayed, self._ended, replayed=True))

    def _ended(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if self._held_bytes < FOLLOW_HELD_BYTES and not job.lacks_texts:
                self._held_bytes += _size(job)
                self._ready.append(job)
            else:
                self._ready.append(job.id)
        self._more.fire(None)

    async def next_lines(self) -> bytes:
        """Lines of outcomes, as many as are there; empty after the last."""
        while self._ready or self._lines:
            if not self._ready:
                await self._more.wait()
            # Of rows that were deleted meanwhile there are no lines, and yet there may be others.
            elif lines := await self._next():
                return lines
        return b""

    async def _next(self) -> bytes:
        if isinstance(self._ready[0], bytes):
            return await self._read_again()
        jobs: list[Job] = []
        while self._ready and isinstance(job := self._ready[0], Job):
            self._ready.popleft()
            self._held_bytes -= _size(job)
            jobs.append(job)
        return self._render(jobs)

    async def _read_again(self) -> bytes:
        ids: list[bytes] = []
        while self._ready and len(ids) < FOLLOW_ROWS and isinstance(job_id := self._ready[0], bytes):
            ids.append(job_id)
            self._ready.popleft()
        rows = await self._edge.engine.get_many(ids, self._tenant, PAGE_BYTES)
        for job_id in ids:
            if job_id not in rows:  # deleted meanwhile
                self._lines.pop(job_id, None)
        found = [job for job_id in ids if (job := rows.get(job_id)) is not None]
        # What had no room beside the others is read when it is the first.
        self._ready.extendleft([job.id for job in reversed(found) if job.lacks_texts])
        return self._render([job for job in found if not job.lacks_texts])

    def _render(self, jobs: Sequence[Job]) -> bytes:
        out: list[OutcomeLine] = []
        for job, text in zip(jobs, id_texts(b"".join([job.id for job in jobs])), strict=True):
            result = _NULL if job.result is None else Raw(job.result)
            error = _NULL if job.error is None else Raw(job.error)
            lines = self._lines.pop(job.id, [])
            numbers = lines if isinstance(lines, list) else (lines,)
            out += [OutcomeLine(line, text, job.state, result, error) for line in numbers]
        return encode_lines(out)

    def close(self) -> None:
        """Nobody listens any more. Nothing is kept, not even empty tables: those of a million lines take 80 MB, and
        what refers to them may lie about until the next collection.
        """  # fmt: skip
        self._closed = True
        for follow in self._follows:
            follow.close()
        self._follows, self._lines, self._ready = [], {}, deque()


def _size(job: Job) -> int:
    return _OUTCOME_BYTES + len(job.result or b"") + len(job.error or b"")


def id_lines(group: Group, instance: str) -> bytes:
    """The reply lines of one group."""
    texts = id_texts(group.ids)
    out = {
        line: f'{{"line":{line},"id":"{text}"}}\n'
        for line, text in zip(group.accepted_lines(), texts, strict=True)
    }
    if not group.refused:
        return "".join(out.values()).encode()
    for line, error in group.refused.items():
        out[line] = encode({"line": line, "problem": document(error, instance)}).decode() + "\n"
    return "".join([out[line] for line in sorted(out)]).encode()


async def bulk(edge: Edge, request: Request, query: Query) -> bytes:
    """`POST /v1/jobs/bulk`."""
    check_ndjson(request)
    if edge.engine.draining:
        raise draining()
    outcomes = Outcomes(edge, request.tenant) if query.get("follow") else None
    on_committed = None if outcomes is None else outcomes.committed
    atomic = query.get("atomic", False)
    no_key(request)
    tenant, quotas, budget = request.tenant, edge.engine.quotas, request.site.budget
    intake = BulkIntake(
        request.streamed(),
        edge.clock,
        budget,
        preparing(edge, request),
        room=lambda wanted: quotas.room(tenant, wanted),
        crowded=lambda: quotas.crowded or budget.crowded,
        store=None if atomic else edge.engine.submit,
        known=lambda jobs: known_ones(edge, jobs),
        on_committed=None if atomic else on_committed,
        line_max_bytes=edge.body_max_bytes,
    )
    request.streamed().attach(intake)
    try:
        if atomic:
            await intake.received()
            await _all_or_nothing(edge, request, intake, on_committed)
        elif not query.get("live", False):
            await intake.received()
        await _answer(edge, request, intake, outcomes, full=query.get("full", False))
    finally:
        intake.close()
        request.counts = (intake.accepted, intake.line)
        if outcomes is not None:
            outcomes.close()
    return b""


async def _answer(
    edge: Edge, request: Request, intake: BulkIntake, outcomes: Outcomes | None, *, full: bool
) -> None:
    """Write the lines as groups are committed, and outcomes as jobs end."""
    tell(request, edge.engine.quotas.limits(request.tenant))
    request.stream(200, MEDIA["ndjson"])
    outlet = Outlet(request, edge.clock, HEARTBEATS["ndjson"])
    edge.outlets[outlet] = b""
    instance = request.request_id.decode()
    try:
        while (group := await intake.next_group()) is not None:
            if group.refused:
                edge.engine.counters.update(("bulk_refusals", error.code) for error in group.refused.values())
            if full:
                async for lines in job_lines(edge, request, group):
                    await outlet.send(lines)
            else:
                await outlet.send(id_lines(group, instance))
        while outcomes is not None and (lines := await outcomes.next_lines()):
            await outlet.send(lines)
    finally:
        del edge.outlets[outlet]
        outlet.close()


async def _all_or_nothing(
    edge: Edge, request: Request, intake: BulkIntake, on_committed: OnCommitted | None
) -> None:
    """Store all jobs in one transaction, or raise for the first line that is wrong."""
    refused = {line: error for group in intake.groups for line, error in group.refused.items()}
    lines = [line for group in intake.groups for line in group.accepted_lines()]
    if not refused:
        refused = await _reused_keys(edge, lines, intake.held)
    if refused:
        raise _none_taken(refused)
    if not intake.held:
        return
    try:
        answers = await edge.background.detached(lambda: edge.engine.submit(intake.held))
    except JobsvcError as error:
        tell(request, edge.engine.quotas.limits(request.tenant))
        earlier = await known_ones(edge, intake.held) if error.code in NOT_ADMITTED else []
        answers = [answer for answer in earlier if answer is not None]
        if len(answers) < len(intake.held):
            raise
    _number(intake, answers)
    if on_committed is not None:
        on_committed(lines, answers)


async def _reused_keys(edge: Edge, lines: Sequence[int], jobs: Sequence[Job]) -> dict[int, JobsvcError]:
    """Lines whose idempotency key belongs to another body, of an earlier job or of an earlier line, and those that
    come after their end, whose key no earlier job has.
    """  # fmt: skip
    hashes: dict[str, bytes | None] = {}
    refused: dict[int, JobsvcError] = {}
    for line, job, earlier in zip(lines, jobs, await known_ones(edge, jobs), strict=True):
        if job.key is None:
            continue
        if earlier is None and job.state == "expired":
            refused[line] = late(job)
        elif (earlier is not None and earlier.job is None) or (
            hashes.setdefault(job.key, job.key_hash) != job.key_hash
        ):
            refused[line] = key_reused()
    return refused


def _number(intake: BulkIntake, answers: Sequence[Submitted]) -> None:
    """Give each group the ids of its jobs. A key that somebody else took in this very moment costs its line alone."""
    at = 0
    for group in intake.groups:
        lines = group.accepted_lines()
        group.take(lines, answers[at : at + len(lines)])
        intake.accepted += group.accepted
        at += len(lines)


def _none_taken(refused: dict[int, JobsvcError]) -> JobsvcError:
    """The refusal of a whole upload; its pointers begin with the line."""
    first = min(refused)
    errors = [
        {"pointer": f"/{line}{at['pointer']}", "detail": at["detail"]}
        for line in sorted(refused)[:ATOMIC_ERRORS_MAX]
        for at in refused[line].context.get("errors", [{"pointer": "", "detail": refused[line].detail}])
    ]
    detail = f"Line {first}: {refused[first].detail.rstrip('.')}. Nothing was stored (atomic=1)."
    return JobsvcError(refused[first].code, detail, errors=errors)
