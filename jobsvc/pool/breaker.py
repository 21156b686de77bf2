"""F2: the circuit breakers of the task modules: which are left out of new workers, and when each is tried again.

Pure but for its clock. Closed: every worker imports the module. Open: it has failed, workers are started without it, so
that the tasks of the others go on. Half-open: its pause is over and whoever is told of that tries it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime

BREAKER_DEATHS = 3
"""Workers that die in the import of a module before it is left out: one can be killed by chance or for want of memory.
An exception or a hang needs no second proof: each costs a start, a hang `START_S` too."""
BREAKER_BASE_S = 5.0
"""From the opening to the first try: what somebody who has just saved a mistake needs to see and mend it."""
BREAKER_MAX_S = 300.0
"""Longest pause between two tries. A try costs two processes; who cannot wait asks for a reload."""


class ModuleFault(NamedTuple):
    """A module that a worker could not import. `why`: one line that names the error or the death, then what led to it.

    `certain`: it will fail again, as it raised or hung; a death can have come from elsewhere.
    """

    module: str
    why: str
    certain: bool


class BrokenModule(msgspec.Struct):
    """A module whose breaker is open. `why`: as in the fault. Times: wall clock."""

    name: str
    why: str
    since_us: int
    again_us: int
    tries: int = 0

    @property
    def line(self) -> str:
        """The first line of the reason, which names the error or the death."""
        return self.why.partition("\n")[0].rstrip(":")


class Breaker:
    """See the module.

    Args:
        now_us: the wall clock, for people.
        on_due: told which module is to be tried now; `rest` or `close` ends the try.
    """

    def __init__(self, clock: IReactorTime, now_us: Callable[[], int], on_due: Callable[[str], None]) -> None:
        self._clock = clock
        self._now_us = now_us
        self._on_due = on_due
        self._deaths: Counter[str] = Counter()
        self._open: dict[str, BrokenModule] = {}
        self._timers: dict[str, IDelayedCall] = {}
        self._stopped = False

    @property
    def open(self) -> Mapping[str, BrokenModule]:
        """The open ones by module."""
        return self._open

    def failed(self, fault: ModuleFault) -> bool:
        """Count this; whether it has opened a breaker."""
        broken = self._open.get(fault.module)
        if broken is not None:
            broken.why = fault.why
            return False
        self._deaths[fault.module] += 1
        if not fault.certain and self._deaths[fault.module] < BREAKER_DEATHS:
            return False
        now = self._now_us()
        self._open[fault.module] = BrokenModule(fault.module, fault.why, now, now)
        self._wait(fault.module)
        return True

    def loaded(self, modules: Iterable[str]) -> None:
        """A worker has imported these: earlier deaths in them no longer count. What is open stays so until `close`."""
        for module in modules:
            del self._deaths[module]  # a Counter does not mind

    def close(self, modules: Iterable[str]) -> list[BrokenModule]:
        """These are in use everywhere: those that were open."""
        names = list(modules)
        self.loaded(names)
        closed = [self._open.pop(name) for name in names if name in self._open]
        for broken in closed:
            self._cancel(broken.name)
        return closed

    def rest(self, module: str) -> None:
        """The try is over; if the module is still open, the next one comes after a longer pause."""
        broken = self._open.get(module)
        if broken is not None:
            broken.tries += 1
            self._wait(module)

    def hurry(self) -> None:
        """Try every open one now, but for those that are being tried."""
        for timer in list(self._timers.values()):
            if timer.active():
                timer.reset(0)

    def stop(self) -> None:
        """No more tries."""
        self._stopped = True
        for module in list(self._timers):
            self._cancel(module)

    def _wait(self, module: str) -> None:
        if self._stopped:
            return
        broken = self._open[module]
        # 2**n overflows a float long after the cap has been reached.
        pause_s = min(BREAKER_MAX_S, BREAKER_BASE_S * 2.0 ** min(broken.tries, 60))
        broken.again_us = self._now_us() + int(pause_s * 1e6)
        self._cancel(module)
        self._timers[module] = self._clock.callLater(pause_s, self._due, module)

    def _due(self, module: str) -> None:
        del self._timers[module]
        self._on_due(module)

    def _cancel(self, module: str) -> None:
        timer = self._timers.pop(module, None)
        if timer is not None and timer.active():
            timer.cancel()
