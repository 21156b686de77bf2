"""F2: what an operator or client does to a job: cancel, retry, run now, delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import Deferred

from jobsvc.engine.admission import Admission
from jobsvc.engine.board import Board
from jobsvc.engine.bus import Bus
from jobsvc.engine.dispatch import Dispatcher
from jobsvc.engine.stops import Stops
from jobsvc.engine.waits import Match, Waits, check_match
from jobsvc.model.errors import JobError, JobsvcError
from jobsvc.model.ids import id_text
from jobsvc.model.job import NO_ORIGIN, Job, Origin
from jobsvc.model.states import WAITING
from jobsvc.model.task import CANNOT_KILL
from jobsvc.ports import Move, Store, Submitted


class Operations:
    """See the module."""

    def __init__(
        self,
        board: Board,
        store: Store,
        bus: Bus,
        dispatcher: Dispatcher,
        stops: Stops,
        waits: Waits,
        admission: Admission,
        now_us: Callable[[], int],
        on_gone: Callable[[Sequence[Job]], None],
    ) -> None:
        self._board = board
        self._store = store
        self._bus = bus
        self._dispatcher = dispatcher
        self._stops = stops
        self._waits = waits
        self._admission = admission
        self._now_us = now_us
        self._on_gone = on_gone  # told of jobs that wait no longer

    async def cancel(
        self, job_id: bytes, tenant: str, mode: str, grace_s: float, match: Match = None
    ) -> tuple[Job, bool]:
        """See `Engine.cancel`. Modes: `polite` asks, `deadline` asks and kills after `grace_s`, `now` kills at once."""
        while (active := self._board.active.get(job_id)) is None or active.settling:
            if active is not None:
                if active.job.tenant != tenant:
                    break  # and said to be missing at once: how long it takes must not tell that it is there
                # Its end is on the way to the disk: wait for it, so that the answer is true; not for want of space.
                self._stops.check_space()
                await self._bus.move_of(job_id)
            job = await self._waits.get(job_id, tenant)
            check_match(job, match)
            if job.state == "retrying" and job.due_at is None:
                orphan = await self._cancel_orphan(job, mode)
                if orphan is not None:
                    return orphan, False
                continue  # the thread has returned meanwhile
            seen = None if match is None else job.revision
            cancelled = None if job.done else await self._cancel_waiting(job, seen)
            if cancelled is not None:
                return cancelled, True
            if seen is not None and not job.done:
                continue  # it has moved: the next look finds it in another revision
            if job_id not in self._board.active:  # else it was claimed meanwhile
                job = await self._waits.get(job_id, tenant)
                raise JobsvcError(
                    "conflict", f"job {id_text(job_id)} is {job.state} already", job=id_text(job_id)
                )
        if active.job.tenant != tenant:
            raise self._waits.missing(job_id)
        check_match(active.job, match)
        self._check_mode(active.job, mode)
        kill_after_s = {"polite": None, "deadline": grace_s, "now": 0.0}[mode]
        await self._stops.ask(active, "cancel_asked", kill_after_s)
        return active.job, False

    def _check_mode(self, job: Job, mode: str) -> None:
        if mode != "polite" and job.executor in CANNOT_KILL:
            raise JobsvcError(
                "cannot_kill",
                f"a {job.executor} cannot be killed; mode polite asks the task, which may look at ctx.cancelled",
                job=id_text(job.id),
            )

    async def _cancel_orphan(self, job: Job, mode: str) -> Job | None:
        """Its last attempt, a thread, was given up and still runs; it was asked to stop then. The job is cancelled when
        the thread has returned. None = it has.
        """  # fmt: skip
        self._check_mode(job, mode)
        if job.reason == "cancel_asked":
            return job
        move = Move(
            job.id, ("retrying",), "retrying", "cancel_asked", self._now_us(), if_reason="orphan_running"
        )
        [moved] = await self._store.move([move])
        if moved is not None:
            self._bus.moved(moved)
        return moved

    async def _cancel_waiting(self, job: Job, revision: int | None) -> Job | None:
        error = msgspec.json.encode(JobError("cancelled", message="cancelled before it ran"))
        move = Move(job.id, WAITING, "cancelled", "cancel_asked", self._now_us(), error, if_revision=revision)
        [moved] = await self._store.move([move])
        if moved is not None:
            self._on_gone([moved])
            self._bus.ended([moved])
        return moved

    async def retry(
        self,
        job_id: bytes,
        tenant: str,
        submit: Callable[[Sequence[Job]], Deferred[list[Submitted]]],
        match: Match = None,
        origin: Origin = NO_ORIGIN,
    ) -> Job:
        """See `Engine.retry`: the same spec, `rerun_of` set; the old job stays as it ended."""
        old = await self._waits.get(job_id, tenant)
        check_match(old, match)
        if not old.done:
            raise JobsvcError(
                "conflict",
                f"job {id_text(job_id)} is {old.state}: only a final job is retried",
                job=id_text(job_id),
            )
        job = self._admission.again(old)
        job.request_id, job.traceparent = origin
        [answer] = await submit([job])
        return answer.job if answer.job is not None else job

    async def run_now(self, job_id: bytes, tenant: str, match: Match = None) -> Job:
        """See `Engine.run_now`."""
        job = await self._waits.get(job_id, tenant)  # it is there, and the tenant's
        check_match(job, match)
        seen = None if match is None else job.revision
        move = Move(job_id, ("scheduled", "retrying"), "queued", "operator", self._now_us(), if_revision=seen)
        [moved] = await self._store.move([move])
        if moved is None:
            job = await self._waits.get(job_id, tenant)
            check_match(job, match)
            # Two attempts of one job never overlap.
            orphan = "; it waits for its last attempt, a thread, to return" if job.state == "retrying" else ""
            raise JobsvcError(
                "conflict",
                f"job {id_text(job_id)} is {job.state}: only a scheduled or retrying one can be run now{orphan}",
            )
        self._bus.moved(moved)
        self._dispatcher.queued((moved.task,))
        return moved

    async def delete(self, job_id: bytes, tenant: str, match: Match = None) -> None:
        """See `Engine.delete`. A final job has no further revision, so that what was seen is what is removed."""
        job = await self._waits.get(job_id, tenant)
        check_match(job, match)
        if not await self._store.delete(job_id):
            raise JobsvcError(
                "conflict", f"job {id_text(job_id)} is {job.state}: only a final job can be deleted"
            )
