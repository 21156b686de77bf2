"""F1: signals from the first moment on: held until the reactor runs, then handled there; none ends us by chance.

The kernel's default for most signals is the end of the process. A handler does nothing but note the signal or hand it
to the reactor.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

HELD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What an operator sends. (SIGPIPE is ignored by Python, SIGQUIT stays what it is: an end with a core.)"""


class Signals:
    """See the module.

    Args:
        numbers: taken over at once.
        set_handler: `signal.signal`.
    """

    def __init__(
        self,
        numbers: Iterable[int] = HELD,
        set_handler: Callable[[int, Callable[[int, Any], None]], object] = signal.signal,
    ) -> None:
        self._held: list[int] = []
        self._hand_over: Callable[[int], None] = self._held.append
        for number in numbers:
            set_handler(number, self._caught)

    def _caught(self, number: int, _frame: Any) -> None:
        self._hand_over(number)

    def deliver(
        self, handlers: Mapping[int, Callable[[], None]], call_from_thread: Callable[..., object]
    ) -> None:
        """Hand each to its handler on the reactor; what came meanwhile first, each kind once.

        Args:
            handlers: by number; one without a handler is ignored.
            call_from_thread: the reactor's, safe in a signal handler.
        """

        def hand_over(number: int) -> None:
            if (handler := handlers.get(number)) is not None:
                call_from_thread(handler)

        held, self._held = self._held, []
        self._hand_over = hand_over
        for number in dict.fromkeys(held):
            hand_over(number)
