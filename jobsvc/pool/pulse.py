"""F2: the heartbeat of a worker: a question every second, and what to do when no answer has come for long.

An io worker answers from its loop, which proves that the loop turns. A cpu worker that runs an attempt is only looked
at, whether it has been stopped: the code may rightly hold the interpreter for hours. One that runs none answers.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from jobsvc.model.limits import PING_S, STALL_S

NAP_S = 3 * PING_S
"""When our own question is this late, the daemon was held up or the machine asleep: the worker's time starts anew."""


class Pulse:
    """See the module.

    Args:
        ask: sends a question with this number.
        on_stall: called once, after `STALL_S` without an answer.
    """

    def __init__(
        self,
        clock: IReactorTime,
        monotonic: Callable[[], float],
        ask: Callable[[int], None],
        on_stall: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._ask = ask
        self._on_stall = on_stall
        self._n = 0
        self._asked_at = self._heard_at = monotonic()
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """The worker is ready: its silence counts from now."""
        self._asked_at = self._heard_at = self._monotonic()
        self._beat()

    def heard(self) -> None:
        """An answer came."""
        self._heard_at = self._monotonic()

    def stop(self) -> None:
        """The worker is gone, or need not answer any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _beat(self) -> None:
        now = self._monotonic()
        if now - self._asked_at >= NAP_S:
            self._heard_at = now
        self._asked_at = now
        if now - self._heard_at >= STALL_S:
            self._timer = None
            self._on_stall()
            return
        self._n += 1
        self._ask(self._n)
        self._timer = self._clock.callLater(PING_S, self._beat)
