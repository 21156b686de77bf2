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
from jobsvc.engine.waits import Waits
from jobsvc.model.errors import JobError, JobsvcError
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job
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
    ) -> None:
        self._board = board
        self._store = store
        self._bus = bus
        self._dispatcher = dispatcher
        self._stops = stops
        self._waits = waits
        self._admission = admission
        self._now_us = now_us

    async def cancel(self, job_id: bytes, tenant: str, mode: str, grace_s: float) -> tuple[Job, bool]:
        """See `Engine.cancel`. Modes: `polite` asks, `deadline` asks and kills after `grace_s`, `now` kills at once."""
        while (active := self._board.active.get(job_id)) is None or active.settling:
            if active is not None:
                # Its end is on the way to the disk: wait for it, so that the answer is true.
                await self._bus.move_of(job_id)
            job = await self._waits.get(job_id, tenant)
            cancelled = None if job.done else await self._cancel_waiting(job)
            if cancelled is not None:
                return cancelled, True
            if job_id not in self._board.active:  # else it was claimed meanwhile
                job = await self._waits.get(job_id, tenant)
                raise JobsvcError(
                    "conflict", f"job {id_text(job_id)} is {job.state} already", job=id_text(job_id)
                )
        if active.job.tenant != tenant:
            raise self._waits.missing(job_id)
        if mode != "polite" and active.job.executor in CANNOT_KILL:
            raise JobsvcError(
                "cannot_kill",
                f"a {active.job.executor} cannot be killed; mode polite asks the task, which may look at ctx.cancelled",
                job=id_text(job_id),
            )
        kill_after_s = {"polite": None, "deadline": grace_s, "now": 0.0}[mode]
        await self._stops.ask(active, "cancel_asked", kill_after_s)
        return active.job, False

    async def _cancel_waiting(self, job: Job) -> Job | None:
        error = msgspec.json.encode(JobError("cancelled", message="cancelled before it ran"))
        move = Move(job.id, WAITING, "cancelled", "cancel_asked", self._now_us(), error)
        [moved] = await self._store.move([move])
        if moved is not None:
            self._bus.ended([moved])
        return moved

    async def retry(
        self, job_id: bytes, tenant: str, submit: Callable[[Sequence[Job]], Deferred[list[Submitted]]]
    ) -> Job:
        """See `Engine.retry`: the same spec, `rerun_of` set; the old job stays as it ended."""
        old = await self._waits.get(job_id, tenant)
        if not old.done:
            raise JobsvcError(
                "conflict",
                f"job {id_text(job_id)} is {old.state}: only a final job is retried",
                job=id_text(job_id),
            )
        job = self._admission.again(old)
        [answer] = await submit([job])
        return answer.job if answer.job is not None else job

    async def run_now(self, job_id: bytes, tenant: str) -> Job:
        """See `Engine.run_now`."""
        job = await self._waits.get(job_id, tenant)
        if job.reason == "orphan_running":
            # Two attempts of one job never overlap.
            raise JobsvcError(
                "conflict", f"job {id_text(job_id)} waits for its last attempt, a thread, to return"
            )
        move = Move(job_id, ("scheduled", "retrying"), "queued", "operator", self._now_us())
        [moved] = await self._store.move([move])
        if moved is None:
            raise JobsvcError(
                "conflict",
                f"job {id_text(job_id)} is {job.state}: only a scheduled or retrying one can be run now",
            )
        self._bus.moved(moved)
        self._dispatcher.queued((moved.task,))
        return moved

    async def delete(self, job_id: bytes, tenant: str) -> None:
        """See `Engine.delete`."""
        job = await self._waits.get(job_id, tenant)
        if not await self._store.delete(job_id):
            raise JobsvcError(
                "conflict", f"job {id_text(job_id)} is {job.state}: only a final job can be deleted"
            )
