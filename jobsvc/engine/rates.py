"""F2: how fast something goes, measured, and how fast it may go. Values on a clock that is handed in; no timers."""

from __future__ import annotations

from collections.abc import Callable
from math import exp

SHORT_S = 10.0
"""A rate is what the last seconds say…"""
LONG_S = 300.0
"""…or, where too little happened in them, the last minutes."""
ENOUGH = 10.0
"""So many events within `SHORT_S` are a rate; fewer may be chance, then the larger of the two counts."""
SILENCE = 3.0
"""After a silence in which so many events (bursts) were to be expected, the rate is no longer believed."""
FOLD_S = 0.1
"""Events are gathered for so long before they are weighed: counting one costs an addition."""
BURST_FADES = 0.9
"""How much of the largest burst is remembered at the next one."""
RETRY_LEAST_S = 1.0
"""Retry-After: no client should come again sooner…"""
RETRY_MOST_S = 300.0
"""…and none stay away for longer: what was measured may be wrong by then. Also where nothing moves at all."""


class _Window:
    """Events of the last `span_s`, older ones weighing less: exponential decay, exact for any spacing of events."""

    __slots__ = ("at", "since", "span_s", "weight")

    def __init__(self, span_s: float, now: float) -> None:
        self.span_s = span_s
        self.since = self.at = now
        self.weight = 0.0

    def add(self, count: int, now: float) -> None:
        self.weight = self.held(now) + count
        self.at = now

    def held(self, now: float) -> float:
        """Events that it holds now, by weight."""
        return self.weight * exp((self.at - now) / self.span_s) if now > self.at else self.weight

    def per_s(self, now: float) -> float:
        """Events a second. A young window is taken for as long as it is, not for its whole span."""
        age_s = max(now - self.since, 1.0)
        return self.held(now) / (self.span_s * (1.0 - exp(-age_s / self.span_s)))


class Rate:
    """How many of something go by in a second.

    Args:
        seconds: the steady clock.
    """

    __slots__ = ("_burst", "_folded", "_last", "_long", "_new", "_seconds", "_short")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        now = self._last = self._folded = seconds()
        self._new = 0
        self._burst = 0.0
        self._short = _Window(SHORT_S, now)
        self._long = _Window(LONG_S, now)

    def add(self, count: int) -> None:
        """So many have gone by, at once."""
        now = self._last = self._seconds()
        self._new += count
        if now - self._folded >= FOLD_S:
            self._fold(now)

    def _fold(self, now: float) -> None:
        if self._new:
            self._burst = max(self._new, self._burst * BURST_FADES)
            self._short.add(self._new, now)
            self._long.add(self._new, now)
            self._new = 0
        self._folded = now

    def per_s(self) -> float:
        """As measured; 0 when nothing has gone by."""
        now = self._seconds()
        self._fold(now)
        rate = self._short.per_s(now)
        if self._short.held(now) < ENOUGH:
            rate = max(rate, self._long.per_s(now))
        silence_s = now - self._last
        return min(rate, SILENCE * self._burst / silence_s) if silence_s > 0 else rate

    @property
    def over(self) -> bool:
        """Whether the last went by so long ago that a new one would say as much."""
        return self._seconds() - self._last >= LONG_S


class Bucket:
    """A token bucket: `per_s` on the average, `room` at once.

    Args:
        per_s: what flows in.
        room: what it holds, and holds at first.
        seconds: the steady clock.
    """

    __slots__ = ("_at", "_held", "_seconds", "per_s", "room")

    def __init__(self, per_s: float, room: float, seconds: Callable[[], float]) -> None:
        self.per_s = per_s
        self.room = room
        self._seconds = seconds
        self._held = room
        self._at = seconds()

    def held(self) -> float:
        """What can be taken now."""
        now = self._seconds()
        self._held = min(self.room, self._held + (now - self._at) * self.per_s)
        self._at = now
        return self._held

    @property
    def full(self) -> bool:
        """Whether a new one would hold as much."""
        return self.held() >= self.room

    def take(self, count: int) -> None:
        """Take so many, which are there."""
        self._held = self.held() - count

    def wait_s(self, count: float) -> float:
        """Seconds until so many can be taken; 0 when they can be now."""
        return max(0.0, (count - self.held()) / self.per_s)


def time_for(count: float, per_s: float) -> float:
    """Seconds until so many have gone by, for a Retry-After."""
    return RETRY_MOST_S if per_s <= 0 else bounded(count / per_s)


def bounded(seconds: float) -> float:
    """`seconds`, within what a Retry-After may say."""
    return min(RETRY_MOST_S, max(RETRY_LEAST_S, seconds))
