"""F2: who is told what: waiters for an outcome or the next revision, readers at the tail, followers of many jobs.

Everything is published after its commit. On the way of a job nobody waits for, this costs two dict look-ups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from jobsvc.model.job import Job
from jobsvc.runtime.waiting import Waiters

T = TypeVar("T")
Sink = Callable[[Sequence[Job]], None]


class _Interest:
    """Those who wait for something of one job."""

    __slots__ = ("ended", "grown", "moved")

    def __init__(self) -> None:
        self.ended: Waiters[Job] = Waiters()
        self.moved: Waiters[Job] = Waiters()
        self.grown: Waiters[None] = Waiters()

    def __len__(self) -> int:
        return len(self.ended) + len(self.moved) + len(self.grown)


class Follow:
    """One follower of many jobs: `sink` gets them in batches, in the order in which they end."""

    __slots__ = ("_bus", "batch", "left", "sink")

    def __init__(self, bus: Bus, sink: Sink) -> None:
        self._bus = bus
        self.sink = sink
        self.left: set[bytes] = set()
        self.batch: list[Job] = []

    def add(self, job_ids: Iterable[bytes]) -> None:
        """Follow these too."""
        follows = self._bus.follows
        new = set(job_ids) - self.left  # two submits of one key are one job
        self.left |= new
        for job_id in new:
            first = follows.setdefault(job_id, self)
            if isinstance(first, dict):
                first[self] = None
            elif first is not self:
                follows[job_id] = {first: None, self: None}

    def drop(self, job_id: bytes) -> None:
        """Follow this one no longer."""
        if job_id in self.left:
            self.left.discard(job_id)
            self._forget(job_id)

    def close(self) -> None:
        """The follower is gone."""
        for job_id in self.left:
            self._forget(job_id)
        self.left = set()

    def _forget(self, job_id: bytes) -> None:
        follows = self._bus.follows
        found = follows.get(job_id)
        if isinstance(found, dict):
            del found[self]
            if len(found) == 1:
                follows[job_id] = next(iter(found))
        elif found is not None:
            del follows[job_id]


class Bus:
    """See the module.

    Args:
        counters: ends are counted here, since all pass by, whoever made them.
    """

    def __init__(self, counters: Counter[tuple[str, ...]]) -> None:
        self._counters = counters
        self._interests: dict[bytes, _Interest] = {}
        self.follows: dict[bytes, Follow | dict[Follow, None]] = {}
        """Who follows which job: nearly always one, hence no table for each of a million."""

    # -- waiting

    @property
    def waiters(self) -> int:
        """How many wait for something of a job."""
        return sum(map(len, self._interests.values()))

    def end_of(self, job_id: bytes) -> Deferred[Job]:
        """Fires with the job when its outcome is committed; may be cancelled."""
        return self._until(job_id, self._interest(job_id).ended.wait())

    def move_of(self, job_id: bytes) -> Deferred[Job]:
        """Fires with the job at its next revision (or end)."""
        return self._until(job_id, self._interest(job_id).moved.wait())

    def growth_of(self, job_id: bytes) -> Deferred[None]:
        """Fires when more events of the job can be read."""
        return self._until(job_id, self._interest(job_id).grown.wait())

    def follow(self, sink: Sink) -> Follow:
        """A follower of no job yet."""
        return Follow(self, sink)

    # -- publishing

    def ended(self, jobs: Sequence[Job]) -> None:
        """These outcomes are committed."""
        touched: dict[int, Follow] = {}
        for job in jobs:
            self._counters["ended", job.task, job.state] += 1
            found = self.follows.pop(job.id, None)
            if found is not None:
                for follower in found if isinstance(found, dict) else (found,):
                    follower.left.discard(job.id)
                    follower.batch.append(job)
                    touched[id(follower)] = follower
            interest = self._interests.pop(job.id, None)
            if interest is not None:
                interest.ended.fire(job)
                interest.moved.fire(job)
                interest.grown.fire(None)
        for follower in touched.values():
            batch, follower.batch = follower.batch, []
            follower.sink(batch)

    def moved(self, job: Job) -> None:
        """A change that did not end it is committed."""
        interest = self._interests.get(job.id)
        if interest is not None:
            interest.moved.fire(job)
            interest.grown.fire(None)

    def grown(self, job_id: bytes) -> None:
        """Chunks of it are committed."""
        interest = self._interests.get(job_id)
        if interest is not None:
            interest.grown.fire(None)

    # -- inside

    def _interest(self, job_id: bytes) -> _Interest:
        interest = self._interests.get(job_id)
        if interest is None:
            interest = self._interests[job_id] = _Interest()
        return interest

    def _until(self, job_id: bytes, waiter: Deferred[T]) -> Deferred[T]:
        """The same waiter; the last one to leave takes the entry away."""

        def left(value: T | Failure) -> T | Failure:
            found = self._interests.get(job_id)
            if found is not None and not len(found):
                del self._interests[job_id]
            return value

        return waiter.addBoth(left)
