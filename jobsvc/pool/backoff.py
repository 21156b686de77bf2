"""F2: how long a slot waits before it starts a worker again. Pure.

A worker that dies of what it ran is replaced at once: its attempt is to blame, and the next one should not wait. One
that dies by itself, or does not even start, is tried again ever more slowly.
"""

from __future__ import annotations

from collections.abc import Callable

RESTART_BASE_S = 0.25
"""Second restart in a row; the first is immediate. A worker needs about as long to start."""
RESTART_MAX_S = 30.0
"""A module that cannot be imported costs two starts a minute, and an operator who mends it waits half of one."""
PROVEN_S = 10.0
"""A worker that lived this long has proved that it can: the count starts afresh."""


class Backoff:
    """See the module.

    Args:
        uniform: a random number between two, for jitter: slots that fail together do not start together.
        max_s: the longest pause.
    """

    def __init__(self, uniform: Callable[[float, float], float], max_s: float = RESTART_MAX_S) -> None:
        self._uniform = uniform
        self._max_s = max_s
        self._failures = 0

    def next_s(self, lived_s: float, *, blameless: bool) -> float:
        """Seconds to wait now that a worker has died after `lived_s`; `blameless`: by our hand or of its attempt."""
        if blameless:
            return 0.0
        if lived_s >= PROVEN_S:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        # 2**n overflows a float long after the cap has been reached.
        longest = min(self._max_s, RESTART_BASE_S * 2.0 ** min(self._failures - 2, 60))
        return self._uniform(longest / 2, longest)
