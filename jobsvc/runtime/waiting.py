"""F1: waiting without sharing: fresh Deferreds per waiter, waits with a limit, work that outlives its asker."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")


class Waiters(Generic[T]):
    """Any number of waiters for one moment; each has a Deferred of its own, and may cancel it.

    One Deferred with two awaiters gives the second one None, hence this.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: set[Deferred[T]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[T]:
        """A Deferred that fires at the next `fire`."""
        waiter: Deferred[T] = Deferred(self._waiting.discard)
        self._waiting.add(waiter)
        return waiter

    def fire(self, value: T) -> None:
        """Wake all who wait now."""
        waiting, self._waiting = self._waiting, set()
        while (
            waiting
        ):  # one at a time: a waiter that is woken may cancel another one, which then leaves this very set
            waiting.pop().callback(value)

    def fire_some(self, value: T | Failure, count: int) -> None:
        """Wake at most so many of them."""
        while self._waiting and count:
            count -= 1
            self._waiting.pop().callback(value)


def turn(clock: IReactorTime) -> Deferred[None]:
    """Fires when everybody else has had a turn."""
    waiter: Deferred[None] = Deferred(lambda _: timer.cancel())
    timer = clock.callLater(0, waiter.callback, None)
    return waiter


async def hand_out(clock: IReactorTime, waiters: Waiters[T], value: T, at_once: int) -> None:
    """Wake all who wait, so many in one turn of the reactor."""
    waiters.fire_some(value, at_once)
    while waiters:
        await turn(clock)
        waiters.fire_some(value, at_once)


def within(clock: IReactorTime, seconds: float, waiter: Deferred[T]) -> Deferred[T | None]:
    """The waiter's value, or None when the time is up first (the waiter is then cancelled)."""
    timed_out = False

    def expire() -> None:
        nonlocal timed_out
        timed_out = True
        waiter.cancel()

    timer = clock.callLater(max(0.0, seconds), expire)

    def settle(value: T | Failure) -> T | Failure | None:
        if timer.active():
            timer.cancel()
        if timed_out and isinstance(value, Failure) and value.check(CancelledError):
            return None
        return value

    return waiter.addBoth(settle)


def leave(waiter: Deferred[T]) -> None:
    """This wait is not needed after all."""

    def gone(failure: Failure) -> None:
        failure.trap(CancelledError)

    waiter.addErrback(gone)
    waiter.cancel()


class Background:
    """The one door for work that must finish whoever asked for it goes away; a stop can wait for all of it."""

    _log = Logger()

    def __init__(self) -> None:
        self._running: set[Deferred[Any]] = set()
        self._idle: Waiters[None] = Waiters()

    def run(self, what: str, coroutine: Coroutine[Deferred[Any], Any, Any]) -> None:
        """Start it; a failure is logged here, since nobody waits for it."""
        running = Deferred.fromCoroutine(coroutine)
        running.addErrback(
            lambda failure: self._log.failure("{what} failed", failure, what=what, action="background_failed")
        )
        self._track(running)

    def detached(self, start: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Start work and wait for it in a Deferred of one's own: cancelling that one leaves the work alone."""
        answer: Deferred[T] = Deferred(lambda _: None)
        running = start()

        def hand_over(value: T | Failure) -> None:
            if not answer.called:
                answer.callback(value) if not isinstance(value, Failure) else answer.errback(value)
            elif isinstance(value, Failure):
                self._log.failure(
                    "detached work failed after its asker left", value, action="background_failed"
                )

        running.addBoth(hand_over)
        self._track(running)
        return answer

    def _track(self, running: Deferred[Any]) -> None:
        self._running.add(running)

        def forget(value: object) -> object:
            self._running.discard(running)
            if not self._running:
                self._idle.fire(None)
            return value

        running.addBoth(forget)

    async def drained(self) -> None:
        """Returns when nothing is running."""
        while self._running:
            await self._idle.wait()
