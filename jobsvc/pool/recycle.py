"""F2: recycling: which worker has run enough jobs, lived long enough or grown large enough to be replaced, and when.

The successor serves before the old one stops taking jobs, so nothing waits for it and nothing is lost. It is started
by the pool; this module decides, on a clock and on figures that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.model.frames import Message, Result

LOOK_S = 1.0
"""Between two looks at all workers: memory that leaks seldom grows faster, and a look costs some 10 µs a worker."""
AGE_JITTER = 0.1
"""Workers that were started together grow old at moments that differ by up to this share either way."""
RECYCLE_AGAIN_S = 60.0
"""After a successor that did not come up, until the next is tried for a worker of its kind."""

Why = Literal["jobs", "age", "rss"]


class Recycling(msgspec.Struct, frozen=True, kw_only=True):
    """When a worker is replaced; 0 = never for this reason.

    `jobs`: attempts that have ended in it. `age_s`: seconds since it began to serve. `rss_bytes`: resident memory.
    """

    jobs: int = 0
    age_s: float = 0.0
    rss_bytes: int = 0


class Wear:
    """What one worker has behind it since it began to serve.

    Args:
        full_at: attempts after which `on_full` is called, once; 0 = they are not counted.
        old_at: monotonic seconds from which it is old.
        heavy: it weighed more than it may before its first job: replacing it would not help.
    """

    __slots__ = ("_full_at", "_on_full", "counts", "heavy", "jobs", "old_at")

    def __init__(self, full_at: int, old_at: float, on_full: Callable[[], None], *, heavy: bool) -> None:
        self.jobs = 0
        self.old_at = old_at
        self.heavy = heavy
        self.counts = full_at > 0
        self._full_at = full_at
        self._on_full = on_full

    def saw(self, messages: Sequence[Message]) -> None:
        """It said this: count the attempts that ended."""
        before = self.jobs
        self.jobs += sum(type(message) is Result for message in messages)
        if before < self._full_at <= self.jobs:
            self._on_full()


class Aged(Protocol):
    """A worker that can be recycled."""

    @property
    def id(self) -> str:
        """Names it."""

    @property
    def pid(self) -> int | None:
        """While it lives."""


class Place(Protocol):
    """Where such a worker is: a slot."""

    @property
    def kind(self) -> str:
        """Workers of different kinds are recycled independently."""

    @property
    def state(self) -> str:
        """`ready` while it takes jobs, `retiring` while it finishes its last."""

    @property
    def worker(self) -> Aged | None:
        """Who is there."""

    @property
    def wear(self) -> Wear | None:
        """What is behind it."""


class Recycler:
    """See the module.

    Args:
        uniform: a random number between two, for the ages.
        places: all slots as they are now.
        replace: starts a successor; fires when it serves and the old worker retires, or when nothing came of it.
        held: whether a successor would lack a module that the old worker holds: then only memory is reason enough.
        rss: resident bytes of a process; None when it is gone.
        told: of each worker that was recycled: its kind and why.
    """

    _log = Logger()

    def __init__(
        self,
        limits: Recycling,
        clock: IReactorTime,
        monotonic: Callable[[], float],
        uniform: Callable[[float, float], float],
        places: Callable[[], Iterable[Place]],
        replace: Callable[[str], Deferred[None]],
        held: Callable[[], bool],
        rss: Callable[[int], int | None],
        told: Callable[[str, Why], None],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._monotonic = monotonic
        self._uniform = uniform
        self._places = places
        self._replace = replace
        self._held = held
        self._rss = rss
        self._told = told
        self._busy: set[str] = set()  # kinds of which one is being replaced
        self._not_before: dict[str, float] = {}  # by kind, after a successor that did not come up
        self._timer: IDelayedCall | None = None
        self._running = False

    def wear(self, kind: str, worker: Aged) -> Wear:
        """That of a worker of this kind which begins to serve now."""
        limits = self._limits
        old_at = float("inf")
        if limits.age_s:
            share = self._uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
            old_at = self._monotonic() + limits.age_s * share
        heavy = bool(limits.rss_bytes) and self._too_heavy(worker)
        if heavy:
            self._log.warn(
                "{worker} is larger before its first job than --recycle-rss {limit} allows: it is not recycled for "
                "its memory, as the next one would be no smaller; raise the limit",
                worker=worker.id, limit=limits.rss_bytes, action="recycle_rss_too_small",
            )  # fmt: skip
        return Wear(limits.jobs, old_at, lambda: self._look(kind), heavy=heavy)

    def start(self) -> None:
        """Look from now on, if there is anything to look for."""
        if self._limits != Recycling():
            self._running = True
            self._tick()

    def stop(self) -> None:
        """No more."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._clock.callLater(LOOK_S, self._tick)
        for kind in {place.kind for place in self._places()}:
            self._look(kind)

    def _look(self, kind: str) -> None:
        """Replace the first worker of this kind that is worn, unless that must wait."""
        if not self._running or kind in self._busy or self._monotonic() < self._not_before.get(kind, 0.0):
            return
        places = [place for place in self._places() if place.kind == kind]
        ready = [place for place in places if place.state == "ready"]
        # Old workers stay as long as their last jobs: there are never more of them than of those that serve.
        if sum(place.state == "retiring" for place in places) >= len(ready):
            return
        for place in ready:
            why = self._why(place)
            if why is not None:
                self._recycle(place, kind, why)
                return

    def _why(self, place: Place) -> Why | None:
        worker, wear, limits = place.worker, place.wear, self._limits
        if worker is None or wear is None:
            return None
        if limits.rss_bytes and not wear.heavy and self._too_heavy(worker):
            return "rss"
        if self._held():
            return None
        if limits.jobs and wear.jobs >= limits.jobs:
            return "jobs"
        return "age" if self._monotonic() >= wear.old_at else None

    def _too_heavy(self, worker: Aged) -> bool:
        rss = None if worker.pid is None else self._rss(worker.pid)
        return rss is not None and rss > self._limits.rss_bytes

    def _recycle(self, place: Place, kind: str, why: Why) -> None:
        worker = place.worker
        assert worker is not None
        self._busy.add(kind)
        self._log.info("{worker} is recycled: {why}", worker=worker.id, why=why, action="recycling")

        def done(_: None) -> None:
            self._busy.discard(kind)
            if place.worker is not worker:
                return  # it died meanwhile, and another one is there
            if place.state == "ready":
                self._not_before[kind] = self._monotonic() + RECYCLE_AGAIN_S
            else:
                self._told(kind, why)
                self._look(kind)

        def failed(failure: Failure) -> None:
            self._busy.discard(kind)
            self._not_before[kind] = self._monotonic() + RECYCLE_AGAIN_S
            self._log.failure("a worker could not be recycled", failure, action="recycle_failed")

        self._replace(worker.id).addCallback(done).addErrback(failed)
