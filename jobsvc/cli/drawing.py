"""F5: live bars, for terminals only, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class _Bar:
    def __init__(self, progress: Progress, row: TaskID) -> None:
        self._progress = progress
        self._row = row

    def log(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def at(self, n: float | None, of: float | None, note: str | None) -> None:
        """`n` of `of`."""
        self._progress.update(self._row, completed=n or 0, total=of, note=escape(note or ""))


@contextmanager
def bar(title: str, total: float | None = None) -> Iterator[_Bar]:
    """One bar while the block runs; without a total it only moves."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
    with progress:
        yield _Bar(progress, progress.add_task(escape(title), total=total, note=""))


@contextmanager
def counter(title: str) -> Iterator[Callable[[], None]]:
    """A count that goes up by one with each call."""
    progress = Progress(
        TextColumn("{task.description}"),
        TextColumn("{task.completed:.0f} done"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    with progress:
        row = progress.add_task(escape(title), total=None)
        yield lambda: progress.advance(row)
