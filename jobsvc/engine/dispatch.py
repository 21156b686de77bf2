"""F2: the dispatcher: which queued job goes to which worker, and when.

A job finds a slot in one of two ways: at submit, when a slot is free and nothing is queued for its executor (the claim
is part of the INSERT); or by a claim, when a slot has become free or jobs have been queued. Claims take the largest
priority first. `Board.ready` says of which tasks the store may have queued jobs: a hint that may be wrong towards yes,
which costs one empty claim, and never towards no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.engine.board import Active, Board, Seat, TaskState
from jobsvc.engine.bus import Bus
from jobsvc.model.crashpoints import crash
from jobsvc.model.errors import CannotWrite
from jobsvc.model.frames import Message, Recall, Start
from jobsvc.model.job import Job, policy_of
from jobsvc.model.task import Timeouts
from jobsvc.ports import Claim, Store

CLAIM_MAX = 512
"""Jobs in one claim: fills a cpu worker, and never holds the writer for more than some milliseconds."""

CLAIM_AGAIN_S = 1.0
"""Pause after a claim that the store has failed (the disk is full)."""
STUCK_S = 0.1
"""What waits in a worker behind an attempt that has run this long goes to others: five times what it was to wait."""

_NO_TIMEOUTS = Timeouts()


def _most_at_once(tasks: Iterable[TaskState], wants: Mapping[str, int]) -> int:
    """How many jobs one claim may bring: where one of them may have to be alone, only that one."""
    return 1 if any(task.alone for task in tasks) else max(wants.values())


class Dispatcher:
    """See the module.

    Args:
        now_us: the wall clock.
        on_timed: told of each attempt with timeouts that is handed to a worker.
        on_homeless: told of claimed attempts whose worker takes none any more.
        on_failed: told of a claim that the store has failed.
        on_claimed: told of jobs that wait no longer.
    """

    _log = Logger()

    def __init__(
        self,
        board: Board,
        store: Store,
        bus: Bus,
        clock: IReactorTime,
        now_us: Callable[[], int],
        on_timed: Callable[[Active], None],
        on_homeless: Callable[[Sequence[Active]], None],
        on_failed: Callable[[Failure], object],
        on_claimed: Callable[[Sequence[Job]], None],
    ) -> None:
        self._board = board
        self._store = store
        self._bus = bus
        self._clock = clock
        self._now_us = now_us
        self._on_timed = on_timed
        self._on_homeless = on_homeless
        self._on_failed = on_failed
        self._on_claimed = on_claimed
        self._placed: dict[bytes, Active] = {}  # claimed by an INSERT that is not committed yet
        self._claims = 0  # in flight
        self._claim_again: IDelayedCall | None = None
        self.open = True  # False while draining

    @property
    def in_flight(self) -> int:
        """Claims whose answer is not there yet: attempts may come of them."""
        return self._claims + len(self._placed)

    def close(self) -> None:
        """No timer of its own fires any more."""
        for timer in (self._claim_again, *(seat.watch for seat in self._board.seats.values())):
            if timer is not None and timer.active():
                timer.cancel()

    # -- at submit

    def place(self, jobs: Iterable[Job]) -> None:
        """Claim slots for as many of these new jobs as can start at once: sets state, owner and epoch."""
        if not self.open:
            return
        board = self._board
        full: set[str] = set()
        for job in jobs:
            if job.executor in full or job.state != "queued" or board.waits(job.executor):
                continue
            task = board.tasks.get(job.task)
            if task is None or task.spec.executor != job.executor or board.free(task) <= 0:
                continue  # the first two: a reload has come since the job was prepared
            seat = self._best(job.executor, task)
            if seat is None:
                if not board.broken(job.task):
                    full.add(job.executor)
                continue
            job.owner, job.state = seat.worker.id, "running"
            job.epoch = job.attempt = 1
            job.claimed_at, job.claim_seq = job.created_at, 2
            job.seq = job.revision = 2
            self._placed[job.id] = self._taken(job, task, seat)

    def _best(self, executor: str, task: TaskState) -> Seat | None:
        """The seat with room that has the least to do."""
        best: Seat | None = None
        for seat in self._board.of(executor):
            # What a claim in flight will bring is not in `used` yet.
            if executor in seat.claiming or (best is not None and seat.used[executor] >= best.used[executor]):
                continue
            if seat.room(executor, task) > 0:
                best = seat
        return best

    def _taken(self, job: Job, task: TaskState, seat: Seat) -> Active:
        """An attempt with its slot."""
        active = Active(job, policy_of(job.policy), task, seat)
        seat.take(job.executor, task)
        self._board.running[job.task] += 1
        return active

    def unplace(self, job_id: bytes) -> None:
        """This job was not stored as new (replayed, refused): if it was placed, its slot is free again."""
        active = self._placed.pop(job_id, None)
        if active is not None:
            self.vacate(active)
            self.freed([active])
            if not self.open:
                self._board.gone.fire(None)

    def vacate(self, active: Active) -> None:
        """The attempt no longer takes its slot. `freed` is to be called once all that ended together have left."""
        seat = active.seat
        seat.give_back(active.job.executor, active.est_s)
        self._board.running[active.job.task] -= 1
        if seat.stuck == active.key:
            seat.stuck = None

    def freed(self, actives: Sequence[Active]) -> None:
        """Slots of these are free: fill them; a worker that retires and has nothing left may go."""
        for seat in dict.fromkeys(active.seat for active in actives):
            self.pump(seat)
            self.dismiss_if_spent(seat)
        # Where a cap of a task was in the way, any worker may go on.
        for executor in {
            active.job.executor for active in actives if active.task.spec.concurrency is not None
        }:
            self.pump_all(executor)

    def dismiss_if_spent(self, seat: Seat) -> None:
        """A retiring worker goes when its last attempt has ended, and those have that are on their way to it."""
        if not (seat.retiring and seat.spent) or seat.dismissed or seat.worker.id not in self._board.seats:
            return
        if all(active.seat is not seat for active in self._placed.values()):
            seat.dismissed = True
            seat.worker.quit()

    def submitted(self, jobs: Iterable[Job]) -> None:
        """New jobs are committed: start those that were placed, look for slots for the others."""
        started: list[Active] = []
        queued: set[str] = set()
        for job in jobs:
            active = self._placed.pop(job.id, None)
            if active is not None:
                active.job = job
                started.append(active)
            elif job.state == "queued":
                queued.add(job.task)
        if started:
            self._hand_over(started)
        if queued:
            self.queued(queued)

    # -- claims

    def queued(self, tasks: Iterable[str]) -> None:
        """Jobs of these tasks have been queued."""
        for executor in {self._board.raise_ready(name) for name in tasks}:
            if executor is not None:
                self.pump_all(executor)

    def pump_all(self, executor: str) -> None:
        """Claim for every seat of this executor that has room."""
        for seat in list(self._board.of(executor)):
            self._pump(seat, executor)

    def pump(self, seat: Seat) -> None:
        """Claim for this seat, whatever it offers."""
        for executor in seat.used:
            self._pump(seat, executor)

    def _pump(self, seat: Seat, executor: str) -> None:
        ready = self._board.ready.get(executor)
        if not ready or executor in seat.claiming or not self.open or seat.retiring:
            return
        compute = seat.worker.kind == "cpu"
        tasks: dict[str, TaskState] = {}
        wants: dict[str, int] = {}
        for name, task in ready.items():
            free = min(self._board.free(task), CLAIM_MAX)
            room = min(seat.room(executor, task), free)
            if room > 0:
                tasks[name], wants[name] = task, room
            elif compute and free > 0 and name not in seat.worker.lacks:
                return  # one that needs more room here may be next in order: short ones must not pass it for ever
        if not wants:
            return
        limit = _most_at_once(tasks.values(), wants)
        if compute and limit < seat.used[executor] // 2:
            return  # plenty ahead of it: refilled in large steps, since every claim costs a commit
        seat.claiming.add(executor)
        self._claims += 1
        # Capped tasks are reserved, so that two seats that claim at once do not pass the cap together.
        reserved = {name: want for name, want in wants.items() if tasks[name].spec.concurrency is not None}
        self._board.running.update(reserved)
        marks = {name: (task, task.mark) for name, task in tasks.items()}
        claim = Claim(seat.worker.id, executor, wants, limit, self._now_us())

        def answered(rows: list[list[Job]] | Failure) -> None:
            seat.claiming.discard(executor)
            self._claims -= 1
            self._board.running.subtract(reserved)
            if isinstance(rows, Failure):
                self._claim_failed(rows)
            else:
                jobs = rows[0]
                self._on_claimed(jobs)
                self._drop_hints(claim, jobs, marks)
                if compute and len(tasks) > 1:
                    jobs.sort(key=lambda job: tasks[job.task].ahead == 0)  # nothing waits behind a long one
                self._hand_over([self._taken(job, tasks[job.task], seat) for job in jobs])
                for job in jobs:
                    self._bus.moved(job)
                self._pump(seat, executor)
            self.dismiss_if_spent(seat)
            if not self.open:
                self._board.gone.fire(None)

        self._store.claim([claim]).addBoth(answered)

    def _claim_failed(self, failure: Failure) -> None:
        """The jobs are still queued: try again in a while. A full disk is told once, by `on_failed`."""
        self._on_failed(failure)
        if not failure.check(CannotWrite):
            self._log.failure("the store failed a claim", failure, action="claim_failed")
        if self._claim_again is None or not self._claim_again.active():
            self._claim_again = self._clock.callLater(CLAIM_AGAIN_S, self._pump_everything)

    def _pump_everything(self) -> None:
        for seat in list(self._board.seats.values()):
            self.pump(seat)

    def _drop_hints(self, claim: Claim, jobs: Sequence[Job], marks: dict[str, tuple[TaskState, int]]) -> None:
        """Of which wanted tasks the store has no more. A claim that filled its limit proves nothing; nor does one
        during which more were queued (`mark` has grown).
        """  # fmt: skip
        if len(jobs) >= claim.limit:
            return
        got: dict[str, int] = {}
        for job in jobs:
            got[job.task] = got.get(job.task, 0) + 1
        ready = self._board.ready.get(claim.executor, {})
        for name, (task, mark) in marks.items():
            if ready.get(name) is task and task.mark == mark and got.get(name, 0) < claim.wants[name]:
                del ready[name]

    # -- handing over

    def _hand_over(self, actives: Sequence[Active]) -> None:
        """Their claims are committed: send them, each to its worker."""
        crash("CP5")
        starts: dict[Seat, list[Message]] = {}
        homeless: list[Active] = []
        for active in actives:
            job, seat, timeouts = active.job, active.seat, active.policy.timeouts
            self._board.active[job.id] = active
            seat.outstanding[job.no] = active
            active.committed = job.seq
            if not self.open or self.unwelcome(active) or seat.worker.id not in self._board.seats:
                homeless.append(active)
                continue
            timed = timeouts != _NO_TIMEOUTS
            # Of a quick one the worker need not announce the begin: not so where a timeout runs from it, or where a
            # death must tell for certain whether it began.
            quick = active.quick = active.task.quick and not timed and active.policy.on_lost == "retry"
            starts.setdefault(seat, []).append(
                Start(
                    job.no, job.epoch, job.id, job.task, job.executor, job.attempt, timeouts.run,
                    quick, 0, job.args if job.args is not None else b"{}", job.origin,
                    self._board.secret_key(job, active.task),
                )
            )  # fmt: skip
            if timed:
                self._on_timed(active)
        for seat, messages in starts.items():
            seat.worker.send(messages)
            self._watch(seat)
        if homeless:
            self._on_homeless(homeless)

    def unwelcome(self, active: Active) -> bool:
        """Whether its worker is to go and what it has not begun had better run elsewhere: on the new code.

        One that is only replaced by its like ends what it was given; a second claim would help nobody.
        """
        seat = active.seat
        return seat.dismissed or (seat.retiring and self._board.tasks.get(active.job.task) is not active.task)

    # -- what was handed over too early

    def _watch(self, seat: Seat) -> None:
        """Look in a moment whether what waits in this cpu worker waits too long."""
        if seat.worker.kind == "cpu" and len(seat.outstanding) > 1 and seat.watch is None:
            seat.watch = self._clock.callLater(STUCK_S, self._look, seat)

    def _look(self, seat: Seat) -> None:
        seat.watch = None
        if seat.stuck is not None:
            return  # all that waits has been called back already
        mark = seat.worker.running()
        runs = None if mark is None else seat.outstanding.get(mark[0])
        if (
            mark is not None
            and runs is not None
            and runs.key == mark[:2]
            and len(seat.outstanding) > 1
            and self._now_us() - mark[2] >= STUCK_S * 1e6
        ):
            seat.stuck = runs.key
            seat.worker.send([Recall()])
        else:
            self._watch(seat)
