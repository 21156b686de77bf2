"""What every figure needs of a run: where, how often, how much, and the bare limits that several stand beside.

These are measured anew for each figure: a busy machine is another one a minute later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from bench import bare
from bench.daemon import Measured, fresh
from bench.load import Outcome

REPEATS = 3
QUICK_REPEATS = 1
QUICK_SHARE = 5
"""A quick run does a fifth of the work."""


class Bench:
    """One run.

    Args:
        folder: for data directories, on a real disk.
        quick: less of everything.
    """

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.repeats = QUICK_REPEATS if quick else REPEATS

    def daemon(self, *options: str) -> AbstractContextManager[Measured]:
        """A fresh daemon with default settings."""
        return fresh(self.folder, *options)

    def some(self, count: int) -> int:
        """So many, or fewer in a quick run."""
        return max(1, count // QUICK_SHARE) if self.quick else count

    def seconds(self, seconds: float) -> float:
        """So long, or shorter in a quick run."""
        return seconds / QUICK_SHARE if self.quick else seconds

    def repeat(self, measure: Callable[[], float]) -> list[float]:
        """The value of each repetition."""
        return [measure() for _ in range(self.repeats)]

    def hello_per_s(self) -> float:
        """A Klein hello at 32 connections."""
        with bare.hello() as server:
            return server.requests_per_s(32, seconds=self.seconds(bare.HELLO_S))

    def sqlite_grouped_per_s(self) -> float:
        """Our schema on SQLite, in groups of 500."""
        return bare.sqlite_grouped_per_s(self.folder, self.some(bare.SQLITE_GROUPS))

    def sqlite_single_per_s(self) -> float:
        """The same one by one."""
        return bare.sqlite_single_per_s(self.folder, self.some(bare.SQLITE_SINGLES))


def costs(outcome: Outcome, count: int, what: str) -> list[str]:
    """What a run of `count` jobs, requests or items cost: by it, small differences are settled on a busy machine.

    The load generator's share of a CPU shows that it is not what limits.
    """
    server = f"daemon and workers took {outcome.server_cpu_s / count * 1e6:,.1f} µs of CPU for one {what}"
    return [f"{server}, the load generator {outcome.cpu_s / outcome.elapsed_s:.0%} of one CPU"]
