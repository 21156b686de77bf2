"""F1: how a process of ours ends: with the status it has earned, and not later than it may take.

Nothing else in the daemon calls `os._exit`.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from jobsvc.runtime.signals import HELD

STDERR_FD = 2


class Ending:
    """The end of a process that a service has for itself.

    Args:
        reactor: whose shutdown the status is taken after.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._status = 0
        self._over = threading.Event()

    def with_status(self, status: int) -> None:
        """End with this status once all has been shut down: neither launcher lets a service choose it. A failure is
        never undone by what went well.
        """  # fmt: skip
        self._status = max(self._status, status)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._leave)

    def _leave(self) -> None:
        if self._status:
            os._exit(self._status)
        # The interpreter gives signals back to the kernel while it ends, and a clean stop would end as killed by an
        # operator who was impatient; what is ignored stays ignored.
        for number in HELD:
            signal.signal(number, signal.SIG_IGN)
        if getattr(self._reactor, "_exitSignal", None) is not None:
            # A clean drain after SIGTERM is a success: without this the launcher would raise the signal again.
            self._reactor._exitSignal = None  # noqa: SLF001 - no public door (Twisted 26.10, _twistd and _twist)

    def within(self, limit_s: float, last_words: Callable[[], None]) -> None:
        """From now on the process ends after `limit_s` seconds, whatever hangs, unless `over` is called before.

        Args:
            last_words: called before it does, in a thread.
        """

        def watch() -> None:
            if not self._over.wait(limit_s):
                os.write(STDERR_FD, b"jobsvc: the stop hangs; leaving\n")
                faulthandler.dump_traceback(STDERR_FD)  # all threads: one of them is why
                last_words()
                os._exit(1)

        threading.Thread(target=watch, name="stop-watchdog", daemon=True).start()

    def over(self) -> None:
        """The stop is done: what is left is the launcher's."""
        self._over.set()
