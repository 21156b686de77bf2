"""F2: making attempts stop: cancels, timeouts, drain. Asks first, kills where the executor can, never pretends.

Timers are on the daemon's steady clock: that somebody sets the wall clock moves none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.engine import verdict
from jobsvc.engine.board import Active, Board, Seat, Stop, StopReason, TimeoutName
from jobsvc.engine.bus import Bus
from jobsvc.engine.dispatch import Dispatcher
from jobsvc.engine.endings import Endings
from jobsvc.engine.writes import AttemptWrites, is_full
from jobsvc.model.errors import JobError
from jobsvc.model.frames import Cancel, Recall
from jobsvc.model.ids import id_text
from jobsvc.model.job import Job
from jobsvc.ports import Move, Step, Store, Worker

TIMEOUT_GRACE_S = 1.0
"""Between the polite ask and the kill when a timeout has passed: enough for a handler that flushes a file."""
KILL_AGAIN_S = 0.25
"""How often a kill is tried again while the attempt still waits behind another one in its worker."""
ASK_AGAIN_S = 1.0
"""Pause after a timeout or a release that could not be recorded (the disk is full)."""
ORPHANS_SHARE = 4
"""When one in so many threads of an io worker is an orphan, the worker is replaced."""

CANCELLED = msgspec.json.encode(
    JobError("cancelled", message="cancelled on request; its thread has returned since")
)


class Stops:
    """See the module.

    Args:
        on_worn: told of an io worker to be replaced: too many given-up threads, a coroutine that does not stop.
        on_gone: told of jobs that wait no longer.
    """

    _log = Logger()

    def __init__(
        self,
        board: Board,
        store: Store,
        writes: AttemptWrites,
        bus: Bus,
        dispatcher: Dispatcher,
        endings: Endings,
        clock: IReactorTime,
        now_us: Callable[[], int],
        uniform: Callable[[float, float], float],
        on_worn: Callable[[Worker], None],
        on_gone: Callable[[Sequence[Job]], None],
    ) -> None:
        self._board = board
        self._store = store
        self._writes = writes
        self._bus = bus
        self._dispatcher = dispatcher
        self._endings = endings
        self._clock = clock
        self._now_us = now_us
        self._uniform = uniform
        self._on_worn = on_worn
        self._on_gone = on_gone
        self._releases: dict[tuple[int, int], IDelayedCall] = {}  # retries to be released once there is space

    # -- timers of an attempt

    def handed(self, active: Active) -> None:
        """The attempt was handed over: what counts from now or from the submission is armed."""
        timeouts = active.policy.timeouts
        active.timers = []
        if timeouts.total is not None:
            left_s = timeouts.total - (self._now_us() - active.job.created_at) / 1e6
            active.timers.append(self._clock.callLater(max(0.0, left_s), self.time_is_up, active, "total"))

    def begun(self, active: Active) -> None:
        """The attempt's code runs: `run` and `idle` count from here."""
        if active.timers is None:
            return
        timeouts = active.policy.timeouts
        if timeouts.run is not None:
            active.timers.append(self._clock.callLater(timeouts.run, self.time_is_up, active, "run"))
        if timeouts.idle is not None:
            self.touched(active)
            active.timers.append(self._clock.callLater(timeouts.idle, self._idle, active, timeouts.idle))

    def touched(self, active: Active) -> None:
        """A sign of life."""
        if active.timers is not None:
            active.touched = self._clock.seconds()

    def _idle(self, active: Active, idle_s: float) -> None:
        if active.unstored:
            self.touched(
                active
            )  # it may have to wait until what it has said is on the disk: that is not its silence
        left_s = active.touched + idle_s - self._clock.seconds()
        if left_s <= 0:
            self.time_is_up(active, "idle")
        else:
            self._wake(active, left_s, self._idle, active, idle_s)

    def _wake(self, active: Active, delay_s: float, call: Callable[..., None], *args: object) -> None:
        """One more timer of the attempt; those that have fired are forgotten."""
        if active.timers is not None:
            active.timers = [timer for timer in active.timers if timer.active()]
            active.timers.append(self._clock.callLater(delay_s, call, *args))

    def time_is_up(self, active: Active, passed: TimeoutName) -> None:
        """A timeout has passed. A thread is given up at once, the others are asked and then killed.

        Also one that was asked to stop for another reason before: a polite cancel takes no timeout away.
        """
        stop = active.stop
        if active.settling or (stop is not None and stop.passed is not None):
            return
        if active.job.executor == "thread" and active.began_us is not None:
            if active.stepping:
                # First what it was asked before must be on the disk.
                self._wake(active, KILL_AGAIN_S, self.time_is_up, active, passed)
            else:
                self._give_up(active, passed)
        elif stop is not None:
            stop.passed = passed
            self._arm(active, TIMEOUT_GRACE_S)
        else:
            asked = self.ask(active, "timeout", TIMEOUT_GRACE_S, passed)
            asked.addErrback(self._timeout_failed, active, passed)

    def _timeout_failed(self, failure: Failure, active: Active, passed: TimeoutName) -> None:
        self._failed(failure, "a timeout")
        self._wake(active, ASK_AGAIN_S, self.time_is_up, active, passed)

    def _give_up(self, active: Active, passed: TimeoutName) -> None:
        """A thread cannot be killed: its attempt is over, its slot stays taken until it returns."""
        seat = active.seat
        seat.orphans[active.key] = active
        if active.stop is None:
            active.stop = Stop("timeout")
        active.stop.passed = passed
        how = verdict.failed(active, verdict.timed_out(active), self._uniform)
        if how.to == "retrying":
            # Two attempts of one job never overlap here: the next one waits for this thread to return.
            how.reason, how.delay_s = "orphan_running", None
        seat.worker.send([Cancel(active.job.no, active.job.epoch, "timeout")])
        self._endings.finish([(active, how)], vacate=False)
        self._dispatcher.dismiss_if_spent(seat)
        if len(seat.orphans) * ORPHANS_SHARE >= seat.worker.slots["thread"] and not seat.retiring:
            self._on_worn(seat.worker)

    def orphan_gone(self, active: Active) -> None:
        """A given-up thread has returned, or its worker is dead: a retry that waited for it may go on."""
        self._dispatcher.vacate(active)
        self._dispatcher.freed([active])
        self._release(active)

    def _release(self, active: Active) -> None:
        self._releases.pop(active.key, None)
        at, job_id = self._now_us(), active.job.id
        answer = self._store.move([
            Move(job_id, ("retrying",), "queued", "retry", at, if_reason="orphan_running"),
            Move(job_id, ("retrying",), "cancelled", "cancel_asked", at, CANCELLED, if_reason="cancel_asked"),
        ])  # fmt: skip
        answer.addCallback(self._released, active)
        answer.addErrback(self._not_released, active)

    def _released(self, jobs: Sequence[Job | None], active: Active) -> None:
        queued, cancelled = jobs
        if queued is not None:
            self._bus.moved(queued)
            self._dispatcher.queued((queued.task,))
        elif cancelled is not None:
            self._on_gone([cancelled])
            self._bus.ended([cancelled])
        elif self._board.active.get(active.job.id) is active:
            self._release_later(active)  # that it waits is not on the disk yet: there is no space

    def _not_released(self, failure: Failure, active: Active) -> None:
        self._failed(failure, "the release of a retry")
        if is_full(failure):
            self._release_later(active)

    def _release_later(self, active: Active) -> None:
        self._releases[active.key] = self._clock.callLater(ASK_AGAIN_S, self._release, active)

    def close(self) -> None:
        """No timer of its own fires any more."""
        for timer in self._releases.values():
            timer.cancel()
        self._releases.clear()

    # -- asking

    def check_space(self) -> None:
        """Raise `CannotWrite` while ends of attempts wait for space: nobody knows when they are on the disk."""
        if (refusal := self._writes.held_back) is not None:
            raise refusal

    def ask(
        self,
        active: Active,
        reason: StopReason,
        kill_after_s: float | None,
        passed: TimeoutName | None = None,
    ) -> Deferred[None]:
        """Ask an active attempt to stop, and kill it after so many seconds (None = never). Fires once `stopping` is
        committed. A later ask may only bring the kill forward, and turn what would run again into a cancel.

        Args:
            passed: the timeout that has passed, if that is the reason.

        Raises:
            JobsvcError: `disk_full`: it was not asked.
        """
        if active.settling:
            return succeed(None)
        stop = active.stop
        if stop is None:
            active.stop = Stop(reason, passed)
            return self._record(active, active.stop, reason, kill_after_s, None)
        if reason == "cancel_asked" and active.job.reason != reason:
            return Deferred.fromCoroutine(self._cancel_too(active, stop, kill_after_s))
        self._arm(active, kill_after_s)
        return stop.asked.wait() if active.stepping else succeed(None)

    async def _cancel_too(self, active: Active, stop: Stop, kill_after_s: float | None) -> None:
        """It was asked to stop for another reason. That it is to be cancelled outlives the daemon, too."""
        before, stop.reason = stop.reason, "cancel_asked"  # however it ends from now on
        while active.stop is stop and active.stepping:
            await stop.asked.wait()
        if active.stop is not stop:
            await self.ask(active, "cancel_asked", kill_after_s)
        elif active.job.reason == "cancel_asked":
            self._arm(active, kill_after_s)  # another cancel was faster
        elif not active.settling:
            await self._record(active, stop, "cancel_asked", kill_after_s, before)

    def _record(
        self,
        active: Active,
        stop: Stop,
        reason: StopReason,
        kill_after_s: float | None,
        before: StopReason | None,
    ) -> Deferred[None]:
        """Write that it is stopping and why; then tell its worker. An end that comes meanwhile is held."""
        active.stepping = True
        job = active.job
        job.seq += 1
        active.revision += 1
        step = Step(
            no=job.no, epoch=job.epoch, owner=job.owner or "", to="stopping", reason=reason, at=self._now_us(),
            due_at=None, attempt=job.attempt, losses=job.losses, seq=job.seq, revision=active.revision,
        )  # fmt: skip
        answer = self._writes.ask([step])
        return answer.addCallbacks(
            self._asked,
            self._not_asked,
            callbackArgs=(active, stop, step, kill_after_s),
            errbackArgs=(active, stop, step, before),
        )

    def _asked(
        self, accepted: Sequence[bool], active: Active, stop: Stop, step: Step, kill_after_s: float | None
    ) -> None:
        active.stepping = False
        held, active.held = active.held, None
        job = active.job
        if accepted[0]:
            job.state, job.reason = "stopping", step.reason
            job.revision = max(job.revision, step.revision)
            active.committed = max(active.committed, step.seq)
            self._bus.moved(job)
        if held is not None:
            held()  # it ended while the ask was on its way
        elif accepted[0]:
            active.seat.worker.send([Cancel(job.no, job.epoch, stop.reason)])
            self._arm(active, kill_after_s)
        stop.asked.fire(None)

    def _not_asked(
        self, failure: Failure, active: Active, stop: Stop, step: Step, before: StopReason | None
    ) -> Failure:
        """Nothing was stored, so nothing was asked: it stops for the reason it had `before`, if it had one."""
        active.stepping = False
        if before is not None:
            stop.reason = before
        else:
            active.stop = None
            if stop.kill_timer is not None and stop.kill_timer.active():
                stop.kill_timer.cancel()
        if active.job.seq == step.seq:
            active.job.seq -= 1  # nothing has been numbered behind it
        held, active.held = active.held, None
        if held is not None:
            held()
        stop.asked.fire(None)
        return failure

    def _arm(self, active: Active, kill_after_s: float | None) -> None:
        stop = active.stop
        if kill_after_s is None or stop is None or active.settling:
            return
        if active.job.executor == "loop":
            # It stops at its next await. All that force can do is to replace the worker: not before it had its chance.
            kill_after_s = max(kill_after_s, TIMEOUT_GRACE_S)
        if stop.kill_timer is not None and stop.kill_timer.active():
            if stop.kill_timer.getTime() <= self._clock.seconds() + kill_after_s:
                return
            stop.kill_timer.cancel()
        stop.kill_timer = self._clock.callLater(kill_after_s, self._kill, active)

    def _kill(self, active: Active) -> None:
        if active.settling or active.stop is None:
            return
        worker = active.seat.worker
        mark = worker.running()
        if worker.kind == "cpu" and (mark is None or mark[:2] != active.key):
            # Not begun: the worker gives it back; killing would hit whoever runs before it.
            active.stop.kill_timer = self._clock.callLater(KILL_AGAIN_S, self._kill, active)
        elif not worker.kill(*active.key):
            active.stop.unkillable = True
            self._log.warn(
                "job {job} does not stop on {worker}: the worker is replaced",
                job=id_text(active.job.id), worker=worker.id, action="will_not_stop",
            )  # fmt: skip
            self._dispatcher.dismiss_if_spent(active.seat)
            if not active.seat.retiring:
                self._on_worn(worker)

    def recall(self, seat: Seat) -> None:
        """Ask for everything that has not begun."""
        if seat.outstanding:
            seat.worker.send([Recall()])

    def _failed(self, failure: Failure, what: str) -> None:
        self._log.failure("the store failed {what}", failure, what=what, action="store_failed")
