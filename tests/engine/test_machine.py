"""Whatever happens in whatever order, states move along the table, numbers have no holes, and slots come back.

Commits are made when the machine says so, so that anything may come between a write and its answer.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred

from jobsvc.model.errors import Exit, JobsvcError, Kind
from jobsvc.model.frames import Cancel, Start
from jobsvc.model.job import Job, Patch
from jobsvc.model.limits import PREFETCH_JOBS
from jobsvc.model.states import FINAL, WAITING, State, allowed
from jobsvc.ports import Death, WorkerKind
from tests.engine import tasks
from tests.engine.fakes import FakeWorker, Key, PumpedStore, Rig, result_of

LIVE_MAX = 4
"""Workers at once."""
JOBS_MAX = 15
FOREVER_S = 1e9

names = st.sampled_from(sorted(tasks.ALL))
picks = st.integers(0, 1_000)
kinds: st.SearchStrategy[Kind] = st.sampled_from(["task_error", "rejected", "cancelled", "crashed"])


class EngineMachine(RuleBasedStateMachine):
    """One engine, up to `LIVE_MAX` workers, up to `JOBS_MAX` jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.store = PumpedStore()
        self.rig = Rig(self.store)
        self.store.settle_down()
        self.live: list[FakeWorker] = []
        self.begun: dict[FakeWorker, set[Key]] = {}
        self.jobs: dict[bytes, Job] = {}
        self.waits: dict[bytes, Deferred[Job]] = {}
        self.absent: str | None = None

    # -- clients

    @precondition(lambda self: len(self.jobs) < JOBS_MAX)
    @rule(
        task=names,
        count=st.integers(1, 4),
        priority=st.integers(-1, 1),
        delay_s=st.sampled_from([0, 0, 2]),
        retries=st.integers(0, 2),
        on_lost=st.sampled_from(["retry", "retry", "fail"]),
    )
    def submit(self, task: str, count: int, priority: int, delay_s: int, retries: int, on_lost: str) -> None:
        if task == self.absent:
            return
        args = {"add": {"a": 1}, "cat": {"path": "x"}}.get(task)
        jobs = [
            self.rig.job(task, args, priority=priority, delay_s=delay_s, retries=retries, on_lost=on_lost)
            for _ in range(count)
        ]
        self.rig.engine.submit(jobs)
        self._accepted(jobs)

    def _accepted(self, jobs: list[Job]) -> None:
        self.store.pump()  # ids are known to nobody before
        for job in jobs:
            self.jobs[job.id] = job
            self.waits[job.id] = self.rig.engine.wait(job.id, "default", FOREVER_S)

    @precondition(lambda self: self.jobs)
    @rule(pick=picks, mode=st.sampled_from(["polite", "deadline", "now"]))
    def cancel(self, pick: int, mode: str) -> None:
        self.rig.cancel(self._job(pick), mode).addErrback(_refused, "conflict", "cannot_kill")

    @precondition(lambda self: self.jobs)
    @rule(pick=picks)
    def run_now(self, pick: int) -> None:
        self.rig.engine.run_now(self._job(pick).id, "default").addErrback(_refused, "conflict")

    @precondition(lambda self: self.jobs)
    @rule(pick=picks, priority=st.none() | st.integers(-1, 1), start=st.booleans())
    def change(self, pick: int, priority: int | None, *, start: bool) -> None:
        patch = Patch() if priority is None else Patch(priority=priority)
        if start:
            patch.run_at = None
        self.rig.engine.change(self._job(pick).id, "default", patch, None).addErrback(_refused, "conflict")

    def _job(self, pick: int) -> Job:
        return list(self.jobs.values())[pick % len(self.jobs)]

    # -- the store and the clock

    @rule()
    def pump(self) -> None:
        self.store.pump()

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 3.0]))
    def advance(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)

    # -- workers

    @precondition(lambda self: len(self.live) < LIVE_MAX)
    @rule(kind=st.sampled_from(["io", "cpu", "cpu", "command"]))
    def start_worker(self, kind: WorkerKind) -> None:
        worker = self.rig.worker(kind, {"thread": 2, "loop": 2} if kind == "io" else None)
        self.live.append(worker)
        self.begun[worker] = set()

    @precondition(lambda self: self.live)
    @rule(pick=picks)
    def retire(self, pick: int) -> None:
        self.rig.engine.worker_retiring(self._worker(pick))

    @precondition(lambda self: self.live)
    @rule(pick=picks, how=st.sampled_from(["exit", "lost", "stalled", "quit"]))
    def die(self, pick: int, how: Any) -> None:
        self._bury(self._worker(pick), how)

    @precondition(lambda self: any(worker.killed for worker in self.live))
    @rule()
    def reap(self) -> None:
        for worker in [each for each in self.live if each.killed]:
            self._reap(worker)

    def _reap(self, worker: FakeWorker) -> None:
        if worker.kind == "command":
            for key in worker.killed:
                if key in worker.handed:
                    self._end(worker, worker.handed[key], "crashed")
            worker.killed = []
        else:
            self._bury(worker, "killed")

    def _bury(self, worker: FakeWorker, how: Any) -> None:
        self.live.remove(worker)
        worker.die(Death(how, Exit(signal=11, name="SIGSEGV")))

    def _worker(self, pick: int) -> FakeWorker:
        return self.live[pick % len(self.live)]

    @rule()
    def reload(self) -> None:
        self.absent = None
        self.rig.reload(tasks.ALL)

    @rule(name=names)
    def reload_without(self, name: str) -> None:
        self.absent = name
        self.rig.reload({each: spec for each, spec in tasks.ALL.items() if each != name})

    # -- what happens in workers

    @precondition(lambda self: self._handed(begun=False))
    @rule(pick=picks)
    def begin(self, pick: int) -> None:
        worker, start = _any(self._handed(begun=False), pick)
        if worker.kind == "cpu":
            if worker.mark is not None:
                return
            start = next(iter(worker.handed.values()))
        self._begin(worker, start)

    def _begin(self, worker: FakeWorker, start: Start) -> None:
        worker.begin(self.jobs[start.id], frame=not start.quick)
        self.begun[worker].add((start.no, start.epoch))

    @precondition(lambda self: self._handed(begun=True))
    @rule(pick=picks, kind=st.none() | kinds)
    def end(self, pick: int, kind: Kind | None) -> None:
        self._end(*_any(self._handed(begun=True), pick), kind)

    @precondition(lambda self: self._handed(begun=True))
    @rule(pick=picks, after_s=st.sampled_from([0, 0.5, 5]))
    def snooze(self, pick: int, after_s: float) -> None:
        worker, start = _any(self._handed(begun=True), pick)
        worker.snooze(self.jobs[start.id], after_s)

    def _end(self, worker: FakeWorker, start: Start, kind: Kind | None) -> None:
        job = self.jobs[start.id]
        if kind is None:
            worker.succeed(job, b"1", run_s=0.0001)
        else:
            worker.fail(job, kind, run_s=0.0001)

    @precondition(lambda self: self._handed(begun=False))
    @rule(pick=picks)
    def answer_recall_or_cancel(self, pick: int) -> None:
        worker, start = _any(self._handed(begun=False), pick)
        if worker.recalls or any(
            (m.no, m.epoch) == (start.no, start.epoch) for m in worker.sent if isinstance(m, Cancel)
        ):
            worker.give_back(self.jobs[start.id])

    @precondition(lambda self: self._handed(begun=True))
    @rule(pick=picks, what=st.sampled_from(["items", "log", "progress"]))
    def report(self, pick: int, what: str) -> None:
        worker, start = _any(self._handed(begun=True), pick)
        job = self.jobs[start.id]
        if what == "items":
            worker.items(job, 1, 2)
        elif what == "log":
            worker.log(job, "x")
        else:
            worker.progress(job, 1, 2)

    def _handed(self, *, begun: bool) -> list[tuple[FakeWorker, Start]]:
        return [
            (worker, start)
            for worker in self.live
            for key, start in worker.handed.items()
            if (key in self.begun[worker]) is begun
        ]

    # -- what always holds

    @invariant()
    def slots_are_never_exceeded(self) -> None:
        for worker in self.live:
            used = self.rig.engine.board.seats[worker.id].used
            for executor, count in used.items():
                most = 1 + PREFETCH_JOBS if worker.kind == "cpu" else worker.slots[executor]
                assert 0 <= count <= most
        assert min(self.rig.engine.board.running.values(), default=0) >= 0

    @invariant()
    def caps_are_never_exceeded(self) -> None:
        handed = Counter(start.task for worker in self.live for start in worker.handed.values())
        for name in ("single", "lone", "pair"):
            assert handed[name] <= (tasks.ALL[name].concurrency or 0)

    @invariant()
    def attempts_of_one_job_never_overlap(self) -> None:
        handed = Counter(start.id for worker in self.live for start in worker.handed.values())
        assert max(handed.values(), default=0) <= 1

    @invariant()
    def the_counts_of_what_waits_are_those_of_the_store(self) -> None:
        if not self.store.waiting:  # else the store is ahead of the answers
            counted = {tenant: count for tenant, count in self.rig.engine.quotas.waiting.items() if count}
            assert counted == result_of(self.store.depths())

    @invariant()
    def histories_follow_the_table(self) -> None:
        for job in self.jobs.values():
            self._check_history(job)

    def _check_history(self, job: Job) -> State:
        events = self.rig.read(job)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        state: State | None = None
        revision = 0
        ended = 0
        for event in events:
            if event.kind in {"job", "state"}:
                changed = state in WAITING and state == event.data["state"]  # other fields, the same state
                assert changed or allowed(state, event.data["state"]), (state, event.data["state"])
                state = event.data["state"]
                assert event.data["revision"] > revision
                revision = event.data["revision"]
                ended += state in FINAL
            else:
                assert state in {"running", "stopping"}
        assert ended <= 1
        assert state is not None
        return state

    # -- the end

    def teardown(self) -> None:
        self.store.release()
        self.reload()
        for _ in range(200):
            if all(self.rig.get(job).done for job in self.jobs.values()):
                break
            self._let_go_on()
        for job in self.jobs.values():
            assert self._check_history(job) in FINAL
            assert result_of(self.waits[job.id]).state == self.rig.get(job).state
        for worker, start in [(w, s) for w in self.live for s in w.handed.values()]:
            worker.succeed(self.jobs[start.id])  # threads that had been given up
        assert self.rig.free()
        assert self.rig.engine.bus._interests == {}
        assert self.rig.engine.bus.follows == {}
        self.rig.close()
        assert self.rig.clock.getDelayedCalls() == []

    def _let_go_on(self) -> None:
        """Every worker answers, those that retire are replaced, time passes."""
        for worker in list(self.live):
            if worker.killed:
                self._reap(worker)
            elif worker.quits or self.rig.engine.board.seats[worker.id].retiring:
                self._bury(worker, "quit")
        for kind in ("io", "cpu", "command"):
            if not any(worker.kind == kind for worker in self.live):
                self.start_worker(kind)
        for worker in self.live:
            for start in list(worker.handed.values()):
                if (start.no, start.epoch) not in self.begun[worker]:
                    self._begin(worker, start)
                self._end(worker, start, None)
        self.rig.clock.advance(1)


def _any(among: list[tuple[FakeWorker, Start]], pick: int) -> tuple[FakeWorker, Start]:
    return among[pick % len(among)]


def _refused(failure: Any, *codes: str) -> None:
    assert failure.check(JobsvcError), failure
    assert failure.value.code in codes


EngineMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True
)
test_anything_in_any_order = EngineMachine.TestCase
