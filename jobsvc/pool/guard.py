"""F2: the daemon's side of the guard: starts `worker/guard.py`, asks it to sweep, starts it again when it dies.

The guard holds the other end of a pipe from us. When that pipe closes, because the daemon is gone in whatever way, it
kills all that this start of the daemon has left running; so no child may inherit our end (it is close-on-exec).
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.model.errors import Exit
from jobsvc.pool.backoff import Backoff
from jobsvc.pool.child import Child, begin
from jobsvc.pool.descriptors import IPoolReactor
from jobsvc.pool.exits import exit_words
from jobsvc.pool.launcher import PACKAGE_DIR
from jobsvc.pool.spawn import Spawner
from jobsvc.runtime.waiting import Waiters

GUARD = PACKAGE_DIR / "jobsvc" / "worker" / "guard.py"

ANSWER_S = 5.0
"""For one command, starts of the guard included: it needs some milliseconds. Then it is killed and started afresh, and
who waits is told that nobody knows."""
RESTART_S = 1.0
"""Longest pause before another one is started: a daemon killed within it leaves its orphans to its own next start."""
QUIT_TRIES = 2
"""Guards for the last sweep: the one there is, and another if that is dead or dies of it."""
QUIT_S = 3.0
"""From `quit` to the kill: the guard's last sweep may wait a second for what it has killed."""


class GuardSilent(Exception):
    """The guard has not done what it was asked to do; the text says what."""


class Request:
    """One command that is not answered yet; sent again to a guard that takes the place of a dead one."""

    __slots__ = ("answer", "line", "timer", "words")

    def __init__(self, line: bytes, words: str, timer: IDelayedCall) -> None:
        self.line = line
        self.words = words
        self.timer = timer
        self.answer: Deferred[int] | None = Deferred()


class Guard:
    """See the module. Everything runs on the reactor.

    Args:
        boot: whose processes end with the daemon.
        uniform: random numbers for backoff.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IPoolReactor,
        clock: IReactorTime,
        spawner: Spawner,
        monotonic: Callable[[], float],
        boot: str,
        uniform: Callable[[float, float], float],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._spawner = spawner
        self._monotonic = monotonic
        self._boot = boot
        self._backoff = Backoff(uniform, RESTART_S)
        self._ears: Ears | None = None
        self._started = 0.0
        self._again: IDelayedCall | None = None  # the next start; in the end, the kill
        self._requests: dict[int, Request] = {}
        self._number = 0
        self._stopping = False
        self._quit_tries = QUIT_TRIES
        self._gone: Waiters[None] = Waiters()

    @property
    def pid(self) -> int | None:
        """Its process number while it runs."""
        return None if self._ears is None else self._ears.child.pid

    def clear(self, node: str) -> Deferred[None]:
        """End what earlier starts on this data directory have left; starts the guard. Fires when nothing runs.

        Raises:
            GuardSilent: it has not answered, so nobody knows.
        """
        asked = self._ask("clear", node, "the sweep of processes that an earlier start has left")
        return asked.addCallback(self._cleared)

    def sweep(self, mark: str) -> Deferred[None]:
        """See `spawn.Sweep`. A guard that is silent does not hold up the daemon: it is logged and sweeps later."""
        asked = self._ask("sweep", mark, f"the sweep behind {mark}")
        return asked.addCallback(self._swept, mark).addErrback(self._unknown)

    def stop(self) -> Deferred[None]:
        """Let it do a last sweep and exit; fires when it is gone."""
        self._stopping = True
        for request in self._requests.values():
            if request.timer.active():
                request.timer.cancel()
        if self._again is not None and self._again.active():
            self._again.cancel()
        if not self._number:
            return succeed(None)  # it was never asked for anything: nothing has been started
        gone = self._gone.wait()
        self._quit()
        return gone

    def _quit(self) -> None:
        """Have one do the last sweep."""
        self._quit_tries -= 1
        if self._ears is None:
            self._start()
        if self._ears is None:
            self._gone.fire(None)
            return
        self._ears.tell(b"quit\n")
        self._again = self._clock.callLater(QUIT_S, self._kill)

    # -- commands

    def _ask(self, verb: str, operand: str, words: str) -> Deferred[int]:
        self._number += 1
        number = self._number
        line = f"{verb} {number} {operand}\n".encode()
        request = Request(line, words, self._clock.callLater(ANSWER_S, self._overdue, number))
        assert request.answer is not None
        self._requests[number] = request
        if self._ears is not None:
            self._ears.tell(line)
        elif self._again is None:
            self._start()
        return request.answer

    def answered(self, number: int, killed: int) -> None:
        """It has carried out a command."""
        request = self._requests.pop(number)
        if request.timer.active():
            request.timer.cancel()
        if request.answer is not None:
            request.answer.callback(killed)

    def _overdue(self, number: int) -> None:
        request = self._requests[number]
        answer, request.answer = request.answer, None
        self._kill()
        assert answer is not None
        answer.errback(GuardSilent(f"{request.words} has not been done within {ANSWER_S:g} s"))

    def _cleared(self, killed: int) -> None:
        if killed:
            self._log.warn(
                "{killed} processes that an earlier start had left were killed",
                killed=killed, action="left_over_killed",
            )  # fmt: skip

    def _swept(self, killed: int, mark: str) -> None:
        if killed:
            self._log.info(
                "{killed} processes left behind by {mark} were killed",
                killed=killed, mark=mark, action="left_behind_killed",
            )  # fmt: skip

    def _unknown(self, failure: Failure) -> None:
        failure.trap(GuardSilent)
        self._log.error("{error}", error=failure.getErrorMessage(), action="guard_silent")

    # -- its process

    def _start(self) -> None:
        self._again = None
        self._started = self._monotonic()
        try:
            self._ears = Ears(self, self._reactor, self._clock, self._spawner, self._boot)
        except OSError:
            self._log.failure("the guard could not be started", action="guard_start_failed")
            if not self._stopping:
                self._wait()
            return
        for request in self._requests.values():
            self._ears.tell(request.line)

    def _wait(self) -> None:
        delay_s = self._backoff.next_s(self._monotonic() - self._started, blameless=False)
        self._again = self._clock.callLater(delay_s, self._start)

    def _kill(self) -> None:
        if self._ears is not None:
            self._ears.child.kill()

    def said(self, text: bytes) -> None:
        """What it prints beside its answers: the traceback of a fault of its own."""
        self._log.error("the guard says: {text}", text=text.decode(errors="replace"), action="guard_said")

    def ended(self, end: Exit | OSError) -> None:
        """It is gone. What was started before is covered by the next one, since marks are by boot."""
        self._ears = None
        if self._stopping:
            if self._again is not None and self._again.active():
                self._again.cancel()
            if self._quit_tries and end != Exit(code=0):
                self._quit()
            else:
                self._gone.fire(None)
            return
        words = f"could not be started: {end}" if isinstance(end, OSError) else exit_words(end)
        self._log.error("the guard {words}: it is started again", words=words, action="guard_died")
        self._wait()


class Ears:
    """The guard's process: what it is told and what it says, line by line.

    Raises:
        OSError: no descriptor is to be had.
    """

    def __init__(
        self, guard: Guard, reactor: IPoolReactor, clock: IReactorTime, spawner: Spawner, boot: str
    ) -> None:
        self._guard = guard
        self._rest = b""
        self._untold: deque[bytes] = deque()  # for which its pipe has had no room
        theirs, self._wire = os.pipe()
        os.set_blocking(self._wire, False)
        self.child = Child(clock, _nothing, self._ended, lambda: succeed(None))
        try:
            # No environment: it must not carry the marks by which it finds others.
            begin(
                self.child, [sys.executable, "-I", "-S", str(GUARD), boot], {}, [theirs], self._heard, guard.said,
                reactor=reactor, spawner=spawner, expendable=False,
            )  # fmt: skip
        except BaseException:
            os.close(self._wire)
            raise
        finally:
            os.close(theirs)

    def tell(self, line: bytes) -> None:
        """One command, which is less than a pipe takes at once."""
        self._untold.append(line)
        self._write()

    def _write(self) -> None:
        try:
            while self._untold:
                os.write(self._wire, self._untold[0])
                self._untold.popleft()
        except BlockingIOError:
            return  # its next answer makes room
        except BrokenPipeError:
            return  # its end is about to be told; the next one is asked again

    def _heard(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            number, killed = map(int, line.split())
            self._guard.answered(number, killed)
        self._write()

    def _ended(self, end: Exit | OSError) -> None:
        """All it said has been read."""
        os.close(self._wire)
        self._guard.ended(end)


def _nothing() -> None:
    """What it is told waits in its pipe."""
