"""F0: a histogram as Prometheus has it: how often a figure was at most so large. Plain integers, written by one thread.

Reading from another thread may miss the newest figure, and sees nothing torn: each number is replaced in one step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts of figures by size.

    Args:
        bounds: upper bounds, ascending, without infinity.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, figure: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, figure)] += 1
        self.sum += figure

    @property
    def count(self) -> int:
        """How many so far."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, int]]:
        """(bound as text, how many were at most that), up to `+Inf`."""
        out: list[tuple[str, int]] = []
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), list(self.counts), strict=True):
            total += count
            out.append((bound, total))
        return out
