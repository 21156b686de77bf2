"""What the tests of stores share: jobs to store, and waiting for answers without a real reactor."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

from jobsvc.model.events import Chunk, event_lines, merged
from jobsvc.model.job import Job
from jobsvc.model.states import State
from jobsvc.ports import Claim, Settled, Step
from jobsvc.store.face import StoreFace

T = TypeVar("T")

NOW = 1_790_000_000_000_000
ANSWER_S = 30.0
"""Far longer than any answer takes: a test that waits so long has failed."""
MANY_BYTES = 1 << 30

_serial = count(1)


class PumpedReactor:
    """Takes calls from threads and runs them when the test waits."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self.calls.put((function, args))

    def turn(self) -> None:
        """Run one call from a thread, waiting for it."""
        function, args = self.calls.get(timeout=ANSWER_S)
        function(*args)

    def wait(self, answer: Deferred[T]) -> T:
        """The value of a Deferred; its failure is raised."""
        fired: list[T | Failure] = []
        answer.addBoth(fired.append)
        while not fired:
            self.turn()
        value = fired[0]
        if isinstance(value, Failure):
            value.raiseException()
        return value

    @property
    def provided(self) -> IReactorFromThreads:
        """Itself, as what the code under test asks for; it uses nothing else of that interface."""
        return cast("IReactorFromThreads", self)


class Held:
    """A store under test, open, with a reactor that the test turns by waiting."""

    def __init__(self, store: StoreFace, reactor: PumpedReactor) -> None:
        self.store = store
        self.reactor = reactor

    def __call__(self, answer: Deferred[T]) -> T:
        return self.reactor.wait(answer)

    # -- short words for what most tests do first
    def submitted(self, *jobs: Job) -> list[Job]:
        """Store new jobs."""
        return [cast("Job", s.job) for s in self(self.store.submit(jobs))]

    def claimed(
        self, task: str = "count", limit: int = 100, owner: str = "cpu-1", at: int = NOW + 10
    ) -> list[Job]:
        """Claim queued jobs of one task."""
        (jobs,) = self(self.store.claim([Claim(owner, "process", {task: limit}, limit, at)]))
        return jobs

    def running(self, **fields: Any) -> Job:
        """One job, submitted and claimed."""
        (job,) = self.submitted(job_of(**fields))
        (claimed,) = self.claimed(job.task)
        assert claimed.id == job.id
        return claimed

    def row(self, job: Job) -> Job:
        """The job as it is stored."""
        found = self(self.store.get(job.id))
        assert found is not None
        return found

    def chunks(self, job: Job) -> list[Chunk]:
        """All its stored events."""
        return self(self.store.chunks(job.no, 0, MANY_BYTES))

    def event_numbers(self, job: Job) -> list[int]:
        """Numbers of all events of a job, stored and derived, from 2 (1 is the job itself)."""
        row = self.row(job)
        stored = self.chunks(row)
        last = max([row.seq, *(chunk.last for chunk in stored)])
        return [seq for chunk in merged(row, stored, 0, last) for seq, _, _ in event_lines(chunk)]


def new_id() -> bytes:
    """An id that no other job of this run has."""
    return next(_serial).to_bytes(16, "big")


def job_of(**fields: Any) -> Job:
    """A new job."""
    usual: dict[str, Any] = {
        "id": new_id(),
        "task": "count",
        "executor": "process",
        "created_at": NOW,
        "args": b"{}",
    }
    return Job(**(usual | fields))


def end_of(job: Job, state: State = "succeeded", **fields: Any) -> Settled:
    """The outcome of a claimed job, as the engine would give it."""
    usual: dict[str, Any] = {
        "no": job.no, "epoch": job.epoch, "owner": job.owner, "state": state, "reason": None, "attempt": job.attempt,
        "started_at": NOW + 20, "finished_at": NOW + 30, "seq": job.seq + 1, "revision": job.revision + 1,
        "result": b"null" if state == "succeeded" else None,
        "error": None if state == "succeeded" else b'{"kind":"task_error"}',
    }  # fmt: skip
    return Settled(**(usual | fields))


def step_of(job: Job, to: State, **fields: Any) -> Step:
    """A step of a claimed job, as the engine would give it."""
    usual: dict[str, Any] = {
        "no": job.no, "epoch": job.epoch, "owner": job.owner, "to": to, "reason": None, "at": NOW + 25, "due_at": None,
        "attempt": job.attempt, "losses": job.losses, "seq": job.seq + 1, "revision": job.revision + 1,
    }  # fmt: skip
    return Step(**(usual | fields))
