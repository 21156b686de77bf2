"""F2: the ends of attempts on their way to the store: verdicts become fenced writes, commits become news.

The slot of an ended attempt is free at once; what others may see (state, result) changes only after the commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.engine.board import Active, Board
from jobsvc.engine.bus import Bus
from jobsvc.engine.dispatch import Dispatcher
from jobsvc.engine.verdict import Verdict, attempt_record, located, unkept
from jobsvc.engine.writes import AttemptWrites
from jobsvc.model.crashpoints import crash
from jobsvc.model.job import Job
from jobsvc.model.limits import DURATION_MAX_S
from jobsvc.model.states import FINAL
from jobsvc.ports import Settled, Step


class Endings:
    """See the module."""

    _log = Logger()

    def __init__(
        self,
        board: Board,
        writes: AttemptWrites,
        bus: Bus,
        dispatcher: Dispatcher,
        now_us: Callable[[], int],
        counters: Counter[tuple[str, ...]],
        retry_us: Callable[[], int],
        on_due: Callable[[int], None],
        on_back: Callable[[str], None],
    ) -> None:
        self._board = board
        self._writes = writes
        self._bus = bus
        self._dispatcher = dispatcher
        self._now_us = now_us
        self._counters = counters
        self._retry_us = retry_us  # from when a backoff counts
        self._on_due = on_due
        self._on_back = on_back  # told, by tenant, of a job that waits again

    def finish(self, ended: Sequence[tuple[Active, Verdict]], *, vacate: bool = True) -> None:
        """These attempts are over. `vacate` False keeps their slots taken (threads that cannot be stopped)."""
        ends: list[tuple[Active, Settled]] = []
        steps: list[tuple[Active, Step]] = []
        freed: list[Active] = []
        now = self._now_us()
        for active, verdict in ended:
            if active.settling:
                continue
            active.settling = True
            active.seat.outstanding.pop(active.job.no, None)
            if active.timers is not None or active.stop is not None:
                active.cancel_timers()
            if vacate:
                self._dispatcher.vacate(active)
                freed.append(active)
            if verdict.to in FINAL:
                ends.append((active, _settled(active, verdict, now)))
            else:
                steps.append((active, _step(active, verdict, now, self._retry_us())))
        if ends:
            self._settle(ends)
        if steps:
            self._step(steps)
        self._dispatcher.freed(freed)

    # -- outcomes

    def _settle(self, ends: list[tuple[Active, Settled]]) -> None:
        crash("CP8")
        answer = self._writes.settle([write for _, write in ends])
        answer.addCallbacks(self._settled, self._failed, callbackArgs=(ends,), errbackArgs=(len(ends),))

    def _settled(self, accepted: Sequence[bool] | None, ends: list[tuple[Active, Settled]]) -> None:
        if accepted is None:
            self._unkept(ends)
            return
        crash("CP10")
        jobs: list[Job] = []
        for ok, (active, write) in zip(accepted, ends, strict=True):
            job = active.job
            self._leave(active)
            if not ok:  # a fence: the store counts and logs it
                continue
            job.state, job.reason, job.seq, job.revision = (
                write.state,
                write.reason,
                write.seq,
                write.revision,
            )
            job.started_at, job.finished_at, job.losses = write.started_at, write.finished_at, write.losses
            job.result, job.error, job.owner = write.result, write.error, write.owner
            jobs.append(job)
        self._bus.ended(jobs)
        self._board.gone.fire(None)

    def _unkept(self, ends: list[tuple[Active, Settled]]) -> None:
        """There is room for these results neither on the disk nor in memory: as if their worker had been lost."""
        again: list[tuple[Active, Verdict]] = []
        for active, write in ends:
            active.job.seq, active.revision = write.seq - 1, write.revision - 1
            active.settling = False
            again.append((active, unkept(active)))
        self._counters["unkept",] += len(ends)
        self._log.error(
            "{n} results are given up: the disk is full and too many wait in memory",
            n=len(ends),
            action="unkept",
        )
        self.finish(again, vacate=False)

    # -- back to waiting

    def _step(self, steps: list[tuple[Active, Step]]) -> None:
        answer = self._writes.step([write for _, write in steps])
        answer.addCallbacks(self._stepped, self._failed, callbackArgs=(steps,), errbackArgs=(len(steps),))

    def _stepped(self, accepted: Sequence[bool], steps: list[tuple[Active, Step]]) -> None:
        queued: set[str] = set()
        for ok, (active, write) in zip(accepted, steps, strict=True):
            job = active.job
            self._leave(active)
            if not ok:
                continue
            job.state, job.reason, job.owner, job.due_at = write.to, write.reason, None, write.due_at
            job.attempt, job.losses, job.started_at = write.attempt, write.losses, None
            job.seq, job.revision = write.seq, write.revision
            self._on_back(job.tenant)
            self._counters["back", job.task, write.reason or write.to] += 1
            if write.to == "queued":
                queued.add(job.task)
            for moment in (write.due_at, job.expires_at):
                if moment is not None:  # while it ran nobody was to look at them
                    self._on_due(moment)
            self._bus.moved(job)
        if queued:
            self._dispatcher.queued(queued)
        self._board.gone.fire(None)

    def _leave(self, active: Active) -> None:
        # A claim in the same group as the step back may have brought the job's next attempt in already.
        if self._board.active.get(active.job.id) is active:
            del self._board.active[active.job.id]

    # -- when the store says no

    def _failed(self, failure: Failure, ends: int) -> None:
        """Not for want of space: that they outlive. The daemon is about to end, and the store has said why."""
        self._log.failure("the store failed a write of {n} ends", failure, n=ends, action="settle_failed")


def _settled(active: Active, verdict: Verdict, now: int) -> Settled:
    """The write of an outcome; numbers its event."""
    job = active.job
    job.seq += 1
    active.revision += 1
    error = None if verdict.error is None else located(verdict.error, job)
    return Settled(
        no=job.no, epoch=job.epoch, owner=job.owner or "", state=verdict.to, reason=verdict.reason, attempt=job.attempt,
        started_at=active.began_us, finished_at=now, seq=job.seq, revision=active.revision, result=verdict.result,
        error=error, losses=job.losses + verdict.lost,
    )  # fmt: skip


def _step(active: Active, verdict: Verdict, now: int, since: int) -> Step:
    """The write that sends a job back to waiting, a delay counted from `since`; numbers its event."""
    job = active.job
    job.seq += 1
    active.revision += 1
    error = None if verdict.error is None else located(verdict.error, job)
    record = attempt_record(active, verdict, now, error)
    due_at = verdict.due_us
    if due_at is not None:
        due_at = min(due_at, now + int(DURATION_MAX_S * 1e6))
    elif verdict.delay_s is not None:
        due_at = since + int(verdict.delay_s * 1e6)
    return Step(
        no=job.no, epoch=job.epoch, owner=job.owner or "", to=verdict.to, reason=verdict.reason, at=now, due_at=due_at,
        attempt=job.attempt if verdict.counted else job.attempt - 1, losses=job.losses + verdict.lost,
        seq=job.seq, revision=active.revision, record=record,
    )  # fmt: skip
