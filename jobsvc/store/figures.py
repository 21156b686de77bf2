"""F2: how the store does, for the metrics and `/readyz?verbose`: written by its writer thread, read by anybody."""

from __future__ import annotations

from typing import Final

from jobsvc.model.histogram import Histogram

COMMIT_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""From a flush of a fast disk to one that somebody should look at."""
GROUP_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Calls that share one commit."""


class StoreFigures:
    """Plain numbers.

    Attributes:
        commit_s: seconds from taking a group to its commit.
        group_calls: calls in one group.
        last_commit: monotonic moment of the newest one; None before the first.
        last_commit_s: how long it took.
        opened: whether the database is open.
        taken: monotonic moment at which the group was taken that is being written; None while none is.
    """

    __slots__ = ("commit_s", "group_calls", "last_commit", "last_commit_s", "opened", "taken")

    def __init__(self) -> None:
        self.commit_s = Histogram(COMMIT_BOUNDS_S)
        self.group_calls = Histogram(GROUP_BOUNDS)
        self.last_commit: float | None = None
        self.last_commit_s = 0.0
        self.opened = False
        self.taken: float | None = None

    def committed(self, calls: int, began: float, ended: float) -> None:
        """A group is durable."""
        self.commit_s.observe(ended - began)
        self.group_calls.observe(calls)
        self.last_commit, self.last_commit_s = ended, ended - began
