"""F2: looking at jobs and waiting for them. An active job is read from memory, every other one from the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.interfaces import IReactorTime

from jobsvc.engine.board import Board
from jobsvc.engine.bus import Bus, Follow, Sink
from jobsvc.model.errors import JobsvcError
from jobsvc.model.events import Attempt
from jobsvc.model.ids import id_text, id_time_us
from jobsvc.model.job import Job
from jobsvc.model.limits import PAGE_BYTES
from jobsvc.ports import JobPage, Store
from jobsvc.runtime.waiting import leave, within

Match = frozenset[int] | None
"""The revisions that a change may find the job in (If-Match); None = any."""


def check_match(job: Job, match: Match) -> None:
    """Raise `stale` unless the job is in one of these revisions."""
    if match is not None and job.revision not in match:
        raise JobsvcError(
            "stale",
            f"job {id_text(job.id)} is in revision {job.revision} by now ({job.state}); get it again, then decide",
            job=id_text(job.id),
            revision=job.revision,
        )


class Waits:
    """See the module."""

    def __init__(
        self,
        board: Board,
        store: Store,
        bus: Bus,
        clock: IReactorTime,
        now_us: Callable[[], int],
        keep_s: float,
    ) -> None:
        self._board = board
        self._store = store
        self._bus = bus
        self._clock = clock
        self._now_us = now_us
        self._keep_s = keep_s

    # -- reading

    async def get(self, job_id: bytes, tenant: str) -> Job:
        """One job of that tenant. Raises `JobsvcError` not_found or purged."""
        active = self._board.active.get(job_id)
        if active is not None and active.job.tenant == tenant:
            mark = active.seat.worker.running() if active.began_us is None else None
            if mark is not None and mark[:2] == active.key:
                active.job.started_at = mark[2]
            return active.job
        job = await self._store.get(job_id)
        if job is None or job.tenant != tenant:
            raise self.missing(job_id)
        return self._explain(job)

    def missing(self, job_id: bytes) -> JobsvcError:
        """Why there is no such job: purged when its id is older than the retention, else never here."""
        made = id_time_us(job_id)
        if made is not None and made < self._now_us() - self._keep_s * 1e6:
            return JobsvcError(
                "purged", f"job {id_text(job_id)} is older than what is kept ({self._keep_s:g} s)"
            )
        return JobsvcError("not_found", f"there is no job {id_text(job_id)}")

    async def get_many(
        self, ids: Sequence[bytes], tenant: str, max_bytes: int | None = None
    ) -> dict[bytes, Job]:
        """Those that are there; see `Store.get_many`."""
        found: dict[bytes, Job] = {}
        others: list[bytes] = []
        for job_id in ids:
            active = self._board.active.get(job_id)
            if active is not None:
                found[job_id] = active.job
            else:
                others.append(job_id)
        if others:
            found |= await self._store.get_many(others, max_bytes)
        return {
            i: self._explain(job) for i in ids if (job := found.get(i)) is not None and job.tenant == tenant
        }

    def explained(self, page: JobPage) -> JobPage:
        """The same page with reasons that only the engine knows."""
        return JobPage([self._explain(job) for job in page.jobs], page.more)

    def _explain(self, job: Job) -> Job:
        if job.state == "queued":
            if job.task not in self._board.tasks:
                job.reason = "no_such_task"
            elif self._board.broken(job.task):
                job.reason = "module_broken"
        return job

    async def attempts(self, job_id: bytes, tenant: str) -> list[Attempt]:
        """Ended attempts, then the current or last one, which lives in the job's row."""
        job = await self.get(job_id, tenant)
        ended = await self._store.attempts(job.no)
        if job.epoch and job.state in ("running", "stopping", "succeeded", "failed", "cancelled"):
            known = {attempt.epoch for attempt in ended}
            if job.epoch not in known:
                ended.append(
                    Attempt(
                        epoch=job.epoch, attempt=job.attempt, state=job.state, began_at=job.started_at,
                        finished_at=job.finished_at, worker=job.owner, error=job.error,
                    )
                )  # fmt: skip
        return ended

    # -- waiting

    async def wait(
        self, job_id: bytes, tenant: str, wait_s: float, revision: int | None, fresh: Job | None
    ) -> Job:
        """See `Engine.wait`."""
        deadline = self._clock.seconds() + wait_s
        while True:
            # Listen first, then look: what is committed in between is not missed.
            waiter = self._bus.end_of(job_id) if revision is None else self._bus.move_of(job_id)
            try:
                job = fresh if fresh is not None else await self.get(job_id, tenant)
            except BaseException:
                leave(waiter)
                raise
            fresh = None
            left_s = deadline - self._clock.seconds()
            if job.done or left_s <= 0 or (revision is not None and job.revision > revision):
                leave(waiter)
                return job
            ended = await within(self._clock, left_s, waiter)
            if ended is not None and ended.done:
                return ended

    def follow(self, jobs: Iterable[Job], sink: Sink, *, replayed: bool) -> Follow:
        """See `Engine.follow`."""
        follower = self._bus.follow(sink)
        ids = [job.id for job in jobs]
        follower.add(ids)
        if replayed:
            self._store.get_many(ids, PAGE_BYTES).addCallback(_catch_up, follower)
        return follower


def _catch_up(rows: dict[bytes, Job], follower: Follow) -> None:
    """Jobs of a replayed submit that had ended before they were followed."""
    done = [job for job in rows.values() if job.done and job.id in follower.left]
    for job in done:
        follower.drop(job.id)
    if done:
        follower.sink(done)
