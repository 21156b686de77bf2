"""F2: the dispatcher: which queued job goes to which worker, and when.

A job finds a slot in one of two ways: at submit, when a slot is free and nothing is queued for its executor (the claim
is part of the INSERT); or by a claim, when a slot has become free or jobs have been queued. Claims take the largest
priority first. `Board.ready` says of which tasks the store may have queued jobs: a hint that may be wrong towards yes,
which costs one empty claim, and never towards no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.python.failure import Failure

from jobsvc.engine.board import Active, Board, Seat, TaskState
from jobsvc.model.frames import Message, Start
from jobsvc.model.job import Job, policy_of
from jobsvc.model.task import Timeouts
from jobsvc.ports import Claim, Store

CLAIM_MAX = 512
"""Jobs in one claim: fills a cpu worker, and never holds the writer for more than some milliseconds."""

_NO_TIMEOUTS = Timeouts()


class Dispatcher:
    """See the module.

    Args:
        now_us: the wall clock.
        on_timed: told of each attempt with timeouts that is handed to a worker.
        on_homeless: told of claimed attempts whose worker has gone meanwhile.
        on_failed: told when the store failed a claim.
    """

    def __init__(
        self,
        board: Board,
        store: Store,
        now_us: Callable[[], int],
        on_timed: Callable[[Active], None],
        on_homeless: Callable[[Sequence[Active]], None],
        on_failed: Callable[[Failure], None],
    ) -> None:
        self._board = board
        self._store = store
        self._now_us = now_us
        self._on_timed = on_timed
        self._on_homeless = on_homeless
        self._on_failed = on_failed
        self._placed: dict[bytes, Active] = {}  # claimed by an INSERT that is not committed yet
        self.open = True  # False while draining

    # -- at submit

    def place(self, jobs: Iterable[Job]) -> None:
        """Claim slots for as many of these new jobs as can start at once: sets state, owner and epoch."""
        if not self.open:
            return
        board = self._board
        full: set[str] = set()
        for job in jobs:
            if job.executor in full or job.state != "queued" or board.ready.get(job.executor):
                continue
            task = board.tasks[job.task]
            if board.free(task) <= 0:
                continue
            seat = self._best(job.executor, task)
            if seat is None:
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
            if (best is None or seat.used[executor] < best.used[executor]) and seat.room(executor, task) > 0:
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
            self.pump(active.seat)

    def vacate(self, active: Active) -> None:
        """The attempt no longer takes its slot."""
        active.seat.give_back(active.job.executor, active.est_s)
        self._board.running[active.job.task] -= 1

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
        tasks: dict[str, TaskState] = {}
        wants: dict[str, int] = {}
        for name, task in ready.items():
            room = min(seat.room(executor, task), self._board.free(task), CLAIM_MAX)
            if room > 0:
                tasks[name], wants[name] = task, room
        if not wants:
            return
        limit = max(wants.values())
        if seat.worker.kind == "cpu" and limit < seat.used[executor] // 2:
            return  # plenty ahead of it: refilled in large steps, since every claim costs a commit
        seat.claiming.add(executor)
        # Capped tasks are reserved, so that two seats that claim at once do not pass the cap together.
        reserved = {name: want for name, want in wants.items() if tasks[name].spec.concurrency is not None}
        self._board.running.update(reserved)
        marks = {name: task.mark for name, task in tasks.items()}
        claim = Claim(seat.worker.id, executor, wants, limit, self._now_us())

        def answered(rows: list[list[Job]] | Failure) -> None:
            seat.claiming.discard(executor)
            self._board.running.subtract(reserved)
            if isinstance(rows, Failure):
                self._on_failed(rows)
                return
            self._drop_hints(claim, rows[0], marks)
            self._hand_over([self._taken(job, tasks[job.task], seat) for job in rows[0]])
            self._pump(seat, executor)

        self._store.claim([claim]).addBoth(answered)

    def _drop_hints(self, claim: Claim, jobs: Sequence[Job], marks: dict[str, int]) -> None:
        """Of which wanted tasks the store has no more. A claim that filled its limit proves nothing; nor does one
        during which more were queued (`mark` has grown)."""  # fmt: skip
        if len(jobs) >= claim.limit:
            return
        got: dict[str, int] = {}
        for job in jobs:
            got[job.task] = got.get(job.task, 0) + 1
        ready = self._board.ready.get(claim.executor, {})
        for name, mark in marks.items():
            task = ready.get(name)
            if task is not None and task.mark == mark and got.get(name, 0) < claim.wants[name]:
                del ready[name]

    # -- handing over

    def _hand_over(self, actives: Sequence[Active]) -> None:
        """Their claims are committed: send them, each to its worker."""
        starts: dict[Seat, list[Message]] = {}
        homeless: list[Active] = []
        for active in actives:
            job, seat, timeouts = active.job, active.seat, active.policy.timeouts
            self._board.active[job.id] = active
            seat.outstanding[job.no] = active
            active.committed = job.seq
            if seat.retiring or seat.worker.id not in self._board.seats:
                homeless.append(active)
                continue
            timed = timeouts != _NO_TIMEOUTS
            starts.setdefault(seat, []).append(
                Start(
                    job.no, job.epoch, job.id, job.task, job.executor, job.attempt, timeouts.run,
                    active.task.quick and not timed, 0, job.args if job.args is not None else b"{}",
                )
            )  # fmt: skip
            if timed:
                self._on_timed(active)
        for seat, messages in starts.items():
            seat.worker.send(messages)
        if homeless:
            self._on_homeless(homeless)
