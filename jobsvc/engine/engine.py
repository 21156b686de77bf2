"""F2: the engine as the edge sees it: one method per verb of the API, and the listener of all workers.

It composes the rooms of this folder and owns no logic of its own beyond who may see what. All on the reactor thread.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.engine.admission import Admission
from jobsvc.engine.board import Active, Board, Seat
from jobsvc.engine.bus import Bus, Follow, Sink
from jobsvc.engine.changing import Changing
from jobsvc.engine.chores import Chores
from jobsvc.engine.dispatch import Dispatcher
from jobsvc.engine.endings import Endings
from jobsvc.engine.intake import Intake
from jobsvc.engine.operations import Operations
from jobsvc.engine.quotas import Quotas, Sent
from jobsvc.engine.readers import EventReader, ItemReader
from jobsvc.engine.stops import Stops
from jobsvc.engine.verdict import Verdict
from jobsvc.engine.waits import Match, Waits
from jobsvc.engine.writes import AttemptWrites
from jobsvc.model.crashpoints import crash
from jobsvc.model.errors import JobsvcError
from jobsvc.model.events import Attempt
from jobsvc.model.frames import Message
from jobsvc.model.ids import IdMaker
from jobsvc.model.job import NO_ORIGIN, Job, Origin, Patch, Submit
from jobsvc.model.limits import ARGS_MAX_BYTES, KEEP_S, QUEUE_MAX
from jobsvc.model.task import NO_LIMITS, Limits, TaskSpec
from jobsvc.ports import Death, JobFilter, JobPage, Store, Submitted, Worker
from jobsvc.runtime.waiting import Background


class EngineConfig(msgspec.Struct, frozen=True):
    """What the operator set."""

    args_max_bytes: int = ARGS_MAX_BYTES
    keep_s: float = KEEP_S
    limits: Limits = NO_LIMITS
    queue_max: int = QUEUE_MAX
    submit_rate: float = 0.0


class Engine:
    """See the module.

    Args:
        clock: wakes the engine; its seconds are monotonic.
        now_us: the wall clock in microseconds, for records.
        random_bits: `random_bits(k)`: an integer of k random bits, for ids.
        uniform: `uniform(a, b)`: jitter of retries.
        on_worn: told of a worker that should be replaced (threads or coroutines that do not stop).
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        now_us: Callable[[], int],
        random_bits: Callable[[int], int],
        uniform: Callable[[float, float], float],
        config: EngineConfig,
        on_worn: Callable[[Worker], None],
    ) -> None:
        self.store = store
        self.clock = clock
        self.now_us = now_us
        self.config = config
        self.durability = store.durability
        self.started = False
        """Whether the store can be asked; before that the edge answers 503."""
        self.counters: Counter[tuple[str, ...]] = Counter()
        self.board = Board()
        self.bus = Bus(self.counters)
        self.background = Background()
        self._writes = AttemptWrites(store, clock, self._space_again)
        self.quotas = Quotas(clock.seconds, self.counters, config.queue_max, config.submit_rate)
        self._dispatcher = Dispatcher(
            self.board,
            store,
            self.bus,
            clock,
            now_us,
            self._timed,
            self._homeless,
            self._writes.saw,
            self.quotas.gone,
        )
        self._endings = Endings(
            self.board,
            self._writes,
            self.bus,
            self._dispatcher,
            now_us,
            self.counters,
            lambda: self._chores.known_us(),  # noqa: PLW0108 - made a few lines below
            lambda at: self._chores.due_at(at),  # noqa: PLW0108 - likewise
            self.quotas.back,
        )
        self._stops = Stops(
            self.board,
            store,
            self._writes,
            self.bus,
            self._dispatcher,
            self._endings,
            clock,
            now_us,
            uniform,
            on_worn,
            self.quotas.gone,
        )
        self._intake = Intake(
            self.board,
            self._writes,
            self.bus,
            self._dispatcher,
            self._endings,
            self._stops,
            now_us,
            uniform,
            self.counters,
        )
        self._chores = Chores(
            store, self.bus, self._dispatcher, clock, now_us, config.keep_s, self.background, self.quotas.gone
        )
        self._admission = Admission(self.board, IdMaker(random_bits), now_us, config.args_max_bytes)
        self._waits = Waits(self.board, store, self.bus, clock, now_us, config.keep_s)
        self._operations = Operations(
            self.board,
            store,
            self.bus,
            self._dispatcher,
            self._stops,
            self._waits,
            self._admission,
            now_us,
            self.quotas.gone,
        )

        self._changing = Changing(store, self.bus, self._dispatcher, self._waits, now_us, self._chores.due_at)

    # -- life

    async def start(self) -> None:
        """After the store is open and recovered, and the first manifest is in: look for what is queued."""
        self.quotas.seed(await self.store.depths())
        self.started = True
        self._dispatcher.queued(await self.store.queued())
        self._chores.start()

    @property
    def disk_full(self) -> bool:
        """Whether writes fail for want of space, or of leave to write, as far as is known."""
        return self._writes.full

    @property
    def disk_words(self) -> str:
        """How it stands with writing, in words."""
        return self._writes.why if self._writes.full else "can be written"

    @property
    def draining(self) -> bool:
        """Whether it has stopped to accept and to claim."""
        return not self._dispatcher.open

    def stop_claiming(self) -> None:
        """First step of a drain: nothing new starts; what workers have not begun comes back."""
        self._dispatcher.open = False
        self._chores.stop()
        for seat in self.board.seats.values():
            self._stops.recall(seat)

    async def idle(self) -> None:
        """Returns when no attempt is active and its writes are committed."""
        while self.board.active or self._dispatcher.in_flight:
            await self.board.gone.wait()

    def close(self) -> None:
        """The last step: no timer of the engine fires any more."""
        self._chores.stop()
        self._dispatcher.close()
        self._stops.close()
        self._writes.close()
        for active in tuple(self.board.active.values()):
            active.cancel_timers()

    def stop_all(self) -> None:
        """Second step of a drain: what still runs is asked to stop; it will be queued again."""
        for active in tuple(self.board.active.values()):
            self._stops.ask(active, "drained", None).addErrback(self._not_asked)

    def _not_asked(self, failure: Failure) -> None:
        # It will be stopped all the same, with its worker.
        self._log.failure("the store failed a stop", failure, action="stop_failed")

    # -- submit

    @property
    def tasks(self) -> Mapping[str, TaskSpec]:
        """The tasks in force, by name."""
        return {name: state.spec for name, state in self.board.tasks.items()}

    def task(self, name: str) -> TaskSpec | None:
        """One task."""
        state = self.board.tasks.get(name)
        return None if state is None else state.spec

    def prepare(self, submit: Submit, tenant: str, key_header: str | None = None) -> Job:
        """The job an envelope asks for, checked, not stored. Raises `JobsvcError`."""
        return self._admission.prepare(submit, tenant, key_header)

    def submit(self, jobs: Sequence[Job]) -> Deferred[list[Submitted]]:
        """Accept these jobs, at least one and all of one tenant; fires after the commit. Those for which a slot is free
        start at once.

        Raises:
            JobsvcError: `draining`; `queue_full`, `rate_limited`, `overloaded`: none of them is stored. How many would
                be, `quotas.room` tells.
        """  # fmt: skip
        if self.draining:
            raise JobsvcError(
                "draining", "the daemon is stopping; send it again in a moment", retry_after_s=5
            )
        self.quotas.check(jobs[0].tenant, len(jobs))
        crash("CP1")
        self._dispatcher.place(jobs)
        sent = self.quotas.sent(jobs)
        answer = self.store.submit(jobs)
        answer.addCallbacks(
            self._submitted, self._not_submitted, callbackArgs=(jobs, sent), errbackArgs=(jobs, sent)
        )
        return answer

    def _submitted(self, answers: list[Submitted], jobs: Sequence[Job], sent: Sent) -> list[Submitted]:
        crash("CP3")
        fresh: list[Job] = []
        for answer, job in zip(answers, jobs, strict=True):
            if answer.job is None or answer.replayed:
                self._dispatcher.unplace(job.id)
                continue
            fresh.append(answer.job)
            if answer.job.due_at is not None:
                self._chores.due_at(answer.job.due_at)
            if answer.job.expires_at is not None:
                self._chores.due_at(answer.job.expires_at)
        self.quotas.answered(sent, fresh)
        self.counters[("submitted",)] += len(fresh)
        self._dispatcher.submitted(fresh)
        return answers

    def _not_submitted(self, failure: Failure, jobs: Sequence[Job], sent: Sent) -> Failure:
        self.quotas.answered(sent, ())
        for job in jobs:
            self._dispatcher.unplace(job.id)
        return self._writes.saw(failure)

    # -- read and wait

    def get(self, job_id: bytes, tenant: str) -> Deferred[Job]:
        """One job. Raises `JobsvcError` not_found or purged."""
        return Deferred.fromCoroutine(self._waits.get(job_id, tenant))

    def missing(self, job_id: bytes) -> JobsvcError:
        """What is said of a job that is not there, and so of one that the asker may not see: not_found or purged."""
        return self._waits.missing(job_id)

    def get_many(
        self, ids: Sequence[bytes], tenant: str, max_bytes: int | None = None
    ) -> Deferred[dict[bytes, Job]]:
        """Those of these jobs that are there; `max_bytes` as in `Store.get_many`."""
        return Deferred.fromCoroutine(self._waits.get_many(ids, tenant, max_bytes))

    def wait(
        self,
        job_id: bytes,
        tenant: str,
        wait_s: float,
        revision: int | None = None,
        *,
        fresh: Job | None = None,
    ) -> Deferred[Job]:
        """The job when it is done, or at the end of the wait as it then is; with `revision`, at the next one above it.

        Args:
            fresh: the job as just submitted and not replayed: saves a read.
        """
        return Deferred.fromCoroutine(self._waits.wait(job_id, tenant, wait_s, revision, fresh))

    def wait_many(
        self, ids: Sequence[bytes], tenant: str, wait_s: float, until: str, max_bytes: int | None = None
    ) -> Deferred[dict[bytes, Job]]:
        """Those of these jobs that are there, once any (all) of them is done or the time is up."""
        return Deferred.fromCoroutine(self._waits.wait_many(ids, tenant, wait_s, until, max_bytes))

    def attempts(self, job_id: bytes, tenant: str) -> Deferred[list[Attempt]]:
        """All attempts, the current or last one included."""
        return Deferred.fromCoroutine(self._waits.attempts(job_id, tenant))

    def reader(
        self,
        job: Job,
        after: int,
        kinds: Sequence[str] = (),
        streams: Sequence[str] = (),
        *,
        follow: bool = True,
    ) -> EventReader:
        """A reader of the job's events numbered above `after`."""
        return EventReader(self.store, self.board, self.bus, job, after, kinds, streams, follow=follow)

    def item_reader(
        self, job: Job, stream: str, after: int, epoch: int | None, *, follow: bool = True
    ) -> ItemReader:
        """A reader of one stream's items numbered above `after`, of one epoch or all."""
        return ItemReader(self.store, self.board, self.bus, job, stream, after, epoch, follow=follow)

    def follow(self, jobs: Iterable[Job], sink: Sink, *, replayed: bool = False) -> Follow:
        """`sink` gets these jobs in batches as they end. `replayed`: some may have ended before."""
        return self._waits.follow(jobs, sink, replayed=replayed)

    # -- change

    # `match`: the revisions in which the job may be found; else nothing is done, and `stale` says in which it is.

    def change(self, job_id: bytes, tenant: str, patch: Patch, match: Match) -> Deferred[Job]:
        """Other fields for a waiting job. Raises `JobsvcError` stale, conflict, invalid_field."""
        return Deferred.fromCoroutine(self._changing.change(job_id, tenant, patch, match))

    def cancel(
        self, job_id: bytes, tenant: str, mode: str, grace_s: float, match: Match = None
    ) -> Deferred[tuple[Job, bool]]:
        """(job, True): it was waiting and is cancelled. (job, False): it is stopping."""
        return Deferred.fromCoroutine(self._operations.cancel(job_id, tenant, mode, grace_s, match))

    def retry(
        self, job_id: bytes, tenant: str, match: Match = None, origin: Origin = NO_ORIGIN
    ) -> Deferred[Job]:
        """A new job like this final one; `origin` is that of the request that asks for it."""
        return Deferred.fromCoroutine(self._operations.retry(job_id, tenant, self.submit, match, origin))

    def run_now(self, job_id: bytes, tenant: str, match: Match = None) -> Deferred[Job]:
        """A scheduled or retrying job is queued at once."""
        return Deferred.fromCoroutine(self._operations.run_now(job_id, tenant, match))

    def delete(self, job_id: bytes, tenant: str, match: Match = None) -> Deferred[None]:
        """Remove a final job."""
        return Deferred.fromCoroutine(self._operations.delete(job_id, tenant, match))

    # -- the listener of workers

    def tasks_changed(self, tasks: Mapping[str, TaskSpec]) -> None:
        """A manifest is in force."""
        first = not self.board.tasks
        self.board.set_tasks(tasks)
        if not first:
            # Jobs may have waited for a task that is there now, or moved to another executor with it.
            self.background.run("looking for queued jobs after a reload", self._look_for_queued())

    def _space_again(self) -> None:
        """The disk was full: what was kept back meanwhile goes on."""
        self._intake.catch_up()
        self._chores.look()

    async def _look_for_queued(self) -> None:
        self._dispatcher.queued(await self.store.queued())

    def worker_ready(self, worker: Worker) -> None:
        """It takes attempts from now on."""
        seat = self.board.seats[worker.id] = Seat(worker)
        self._dispatcher.pump(seat)

    def worker_retiring(self, worker: Worker) -> None:
        """No more attempts for it."""
        self._intake.retire(worker)

    def worker_messages(self, worker: Worker, messages: Sequence[Message]) -> None:
        """What it says of its attempts."""
        self._intake.messages(worker, messages)

    def worker_died(self, worker: Worker, death: Death) -> None:
        """It is gone; its attempts are judged."""
        self._intake.died(worker, death)

    async def gauges(self) -> Mapping[tuple[str, ...], float]:
        """How things stand: (name, label…) → figure, for the metrics."""
        if not self.started:
            return {}
        figures: dict[tuple[str, ...], float] = defaultdict(int)
        figures[("waiters",)] = self.bus.waiters
        for name, task in self.board.tasks.items():
            if task.mean_s is not None:
                figures["task_run_seconds", name] = task.mean_s
        for seat in self.board.seats.values():
            for executor, used in seat.used.items():
                figures["running", executor] += used
                figures["slots", executor] += seat.worker.slots[executor]
            figures[("orphans",)] += len(seat.orphans)
        for tenant, count in self.quotas.waiting.items():
            figures["waiting", tenant] = count
        for name, count in (await self.store.queued()).items():
            figures["queued", name] = count
        return figures

    def running_on(self, worker_id: str) -> int:
        """Attempts handed to that worker."""
        seat = self.board.seats.get(worker_id)
        return 0 if seat is None else sum(seat.used.values())

    # -- between the rooms

    def _timed(self, active: Active) -> None:
        self._stops.handed(active)

    def _homeless(self, actives: Sequence[Active]) -> None:
        self._endings.finish(
            [(active, Verdict("queued", "recalled", counted=False, record=False)) for active in actives]
        )

    # Last: below it, `list` no longer names the type.
    def list(self, wanted: JobFilter) -> Deferred[JobPage]:
        """One page of jobs."""
        return self.store.list(wanted).addCallback(self._waits.explained)
