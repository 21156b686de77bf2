"""F2: what the clock makes the engine do: queue what is due, expire what is late, purge what is old.

The timer is only a wake-up: due times are wall-clock records and are compared in the store. That somebody has set the
wall clock is noticed within `LOOK_S`: what was asked for at a moment then follows the new time, and the backoff of a
retry, which is a number of seconds, is moved with the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from jobsvc.engine.bus import Bus
from jobsvc.engine.dispatch import Dispatcher
from jobsvc.model.job import Job
from jobsvc.ports import Store
from jobsvc.runtime.waiting import Background

LOOK_S = 30.0
"""Longest sleep before the due times are looked at again."""
BATCH = 1_000
"""Jobs per transaction of a chore: some milliseconds of the writer."""
PURGE_EVERY_S = 60.0
STEP_S = 1.0
"""Wall and steady clock may drift apart by so much between two looks without anybody having set one."""


class Chores:
    """See the module."""

    _log = Logger()

    def __init__(
        self,
        store: Store,
        bus: Bus,
        dispatcher: Dispatcher,
        clock: IReactorTime,
        now_us: Callable[[], int],
        keep_s: float,
        background: Background,
        on_gone: Callable[[Sequence[Job]], None],
    ) -> None:
        self._store = store
        self._bus = bus
        self._dispatcher = dispatcher
        self._clock = clock
        self._now_us = now_us
        self._keep_s = keep_s
        self._background = background
        self._on_gone = on_gone  # told of jobs that wait no longer
        self._due: IDelayedCall | None = None
        self._purge: IDelayedCall | None = None
        self._looking = False
        self._again = False
        self._stopped = False
        self._offset_us = self._offset()

    def start(self) -> None:
        """From now on."""
        self.look()
        self._purge = self._clock.callLater(PURGE_EVERY_S, self._start_purge)

    def stop(self) -> None:
        """No more chores."""
        self._stopped = True
        for timer in (self._due, self._purge):
            if timer is not None and timer.active():
                timer.cancel()

    def due_at(self, at_us: int) -> None:
        """Something becomes due then: sleep no longer than that."""
        if self._stopped:
            return
        delay_s = max(0.0, (at_us - self._now_us()) / 1e6)
        if self._due is not None and self._due.active():
            if self._due.getTime() <= self._clock.seconds() + delay_s:
                return
            self._due.cancel()
        self._due = self._clock.callLater(min(delay_s, LOOK_S), self.look)

    def look(self) -> None:
        """Queue and expire what is due, then sleep until the next."""
        if self._looking:
            self._again = True
        elif not self._stopped:
            self._looking = True
            self._background.run("queueing what is due", self._look())

    async def _look(self) -> None:
        try:
            await self._notice_step()
            now = self._now_us()
            woken = await self._store.wake(now, BATCH)
            if woken:
                self._dispatcher.queued(woken)
            expired = await self._store.expire(now, BATCH)
            if expired:
                self._on_gone(expired)
                self._bus.ended(expired)
            following = await self._store.next_due()
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - logged; the clock must go on
            self._log.failure("looking for what is due failed", action="look_failed")
            self._looking = False
            self.due_at(self._now_us() + int(LOOK_S * 1e6))
            return
        self._looking = False
        if self._again or sum(woken.values()) >= BATCH or len(expired) >= BATCH:
            self._again = False
            self.look()
        else:
            self.due_at(following if following is not None else now + int(LOOK_S * 1e6))

    def _offset(self) -> int:
        """How far the wall clock is ahead of the steady one."""
        return self._now_us() - int(self._clock.seconds() * 1e6)

    def known_us(self) -> int:
        """The wall clock, as if no step that is still to be noticed had been: what is counted from it moves with it."""
        return int(self._clock.seconds() * 1e6) + self._offset_us

    async def _notice_step(self) -> None:
        step_us = self._offset() - self._offset_us
        self._offset_us += step_us
        if abs(step_us) >= STEP_S * 1e6:
            moved = await self._store.shift_retries(step_us)
            self._log.warn(
                "the wall clock was set by {step_s:+.0f} s: {moved} retries keep their seconds",
                step_s=step_us / 1e6, moved=moved, action="clock_stepped",
            )  # fmt: skip

    def _start_purge(self) -> None:
        self._background.run("retention", self._purge_old())

    async def _purge_old(self) -> None:
        try:
            before = self._now_us() - int(self._keep_s * 1e6)
            while not self._stopped and await self._store.purge(before, BATCH) >= BATCH:
                pass
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the same
            self._log.failure("retention failed", action="purge_failed")
        if not self._stopped:
            self._purge = self._clock.callLater(PURGE_EVERY_S, self._start_purge)
