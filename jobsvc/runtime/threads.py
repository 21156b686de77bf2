"""F1: threads for blocking work: a named, bounded pool, and a single one that lasts. The reactor's own pool is not ours
and is never used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import ParamSpec, TypeVar, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from jobsvc.model.errors import JobsvcError
from jobsvc.runtime.waiting import Waiters

P = ParamSpec("P")
T = TypeVar("T")


class NamedPool:
    """Threads that start when first needed, with a bound on how much may wait for them.

    Args:
        reactor: where answers are delivered.
        name: of the pool, and the beginning of its threads' names.
        threads: most threads at once; they live until `stop`.
        waiting_max: how many calls may wait beyond those that run; more are refused (`overloaded`).
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, threads: int, waiting_max: int) -> None:
        self._reactor = reactor
        self._name = name
        self._in_flight_max = threads + waiting_max
        self._in_flight = 0
        self._idle: Waiters[None] = Waiters()
        self._pool = ThreadPool(0, threads, name)
        self._started = self._stopped = False

    @property
    def in_flight(self) -> int:
        """Calls that wait or run, also those whose asker has cancelled: a thread cannot be stopped."""
        return self._in_flight

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call `function` in a thread. The Deferred fails with what it raises, or `JobsvcError` `overloaded`."""
        if self._stopped or self._in_flight >= self._in_flight_max:
            why = "is stopping" if self._stopped else "has too much waiting"
            return fail(
                JobsvcError("overloaded", f"The pool {self._name} {why}; try again later.", retry_after_s=1)
            )
        if not self._started:
            self._pool.start()
            self._started = True
        answer: Deferred[T] = Deferred()
        self._in_flight += 1

        def ended(_success: bool, value: T | Failure) -> None:
            self._reactor.callFromThread(self._deliver, answer, value)

        # The thread logs under the ids of who asked.
        context = copy_context()
        self._pool.callInThreadWithCallback(ended, lambda: context.run(function, *args, **kwargs))
        return answer

    def _deliver(self, answer: Deferred[T], value: T | Failure) -> None:
        self._in_flight -= 1
        if isinstance(value, Failure):
            answer.errback(value)
        else:
            answer.callback(value)
        if not self._in_flight:
            self._idle.fire(None)

    async def drained(self) -> None:
        """Returns when nothing waits or runs."""
        while self._in_flight:
            await self._idle.wait()

    def stop(self) -> Deferred[None]:
        """Refuse new calls, let all calls in hand end, then end the threads."""
        self._stopped = True

        async def drain_and_join() -> None:
            await self.drained()
            if self._started:
                self._started = False
                self._pool.stop()

        return cast("Deferred[None]", Deferred.fromCoroutine(drain_and_join()))


class LastingThread:
    """One thread that makes calls in the order in which they come, started when first needed.

    It lives as long as the process and does not keep that from ending. Who asks bounds how much waits.
    """

    _log = Logger()

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, call: Callable[[], None]) -> None:
        """Make this call; what it raises is logged."""
        self._calls.put(call)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def fetch(
        self, reactor: IReactorFromThreads, work: Callable[[], list[T]], told: Callable[[list[T]], None]
    ) -> None:
        """Do this work and tell what it found on the reactor; an empty list when it failed, which is logged."""

        def call() -> None:
            found: list[T] = []
            try:
                found = work()
            finally:
                reactor.callFromThread(told, found)

        self.do(call)

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            try:
                call()
            except Exception:  # noqa: BLE001 - what one call does wrong is no matter of the next
                self._log.failure("a call in {thread} failed", thread=self._name, action="thread_call_failed")
