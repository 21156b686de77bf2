"""How the demo shows what happens: bars on a terminal, plain lines in a file or a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import NamedTuple, Protocol, TextIO

PLAIN_EVERY_S = 0.5
"""Between two lines of progress where there is no terminal."""

Advance = Callable[[float], None]
"""Called with how far it is."""


class Row(NamedTuple):
    """One line of the summary. `right` says whether the results were checked and found right."""

    step: str
    executor: str
    jobs: int
    seconds: float
    result: str
    right: bool


HEADER = ("step", "executor", "jobs", "seconds", "result", "")


class Show(Protocol):
    """What the steps need to be seen."""

    def title(self, text: str) -> None:
        """A step begins."""

    def say(self, text: str) -> None:
        """One line."""

    def word(self, text: str) -> None:
        """A piece of a line, at once; an empty text ends the line."""

    def bar(self, what: str, of: float) -> AbstractContextManager[Advance]:
        """Progress, for the length of a `with`."""

    def table(self, rows: Sequence[Row]) -> None:
        """The summary."""


class PlainShow:
    """Lines of text."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = monotonic) -> None:
        self._out = out
        self._clock = clock
        self._in_line = False

    def title(self, text: str) -> None:
        """See `Show`."""
        self.say(f"\n== {text}")

    def say(self, text: str) -> None:
        """See `Show`."""
        print(text, file=self._out, flush=True)

    def word(self, text: str) -> None:
        """See `Show`."""
        print((" " if self._in_line else "   ") + text if text else "\n", end="", file=self._out, flush=True)
        self._in_line = bool(text)

    @contextmanager
    def bar(self, what: str, of: float) -> Iterator[Advance]:
        """See `Show`; one line each half second, and one at the end."""
        began = said = self._clock()
        at = 0.0

        def advance(n: float) -> None:
            nonlocal at, said
            at = n
            if self._clock() - said >= PLAIN_EVERY_S:
                said = self._clock()
                self.say(f"   {what}: {n:,.0f} of {of:,.0f}")

        yield advance
        self.say(f"   {what}: {at:,.0f} of {of:,.0f} in {self._clock() - began:.2f} s")

    def table(self, rows: Sequence[Row]) -> None:
        """See `Show`."""
        cells = [HEADER, *map(_cells, rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        self.say("")
        for line in cells:
            self.say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


class RichShow:
    """Bars, colours and a drawn table, by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def title(self, text: str) -> None:
        """See `Show`."""
        self._console.print(f"\n[bold]{text}[/bold]")

    def say(self, text: str) -> None:
        """See `Show`."""
        self._console.print(text, markup=False)

    def word(self, text: str) -> None:
        """See `Show`."""
        self._console.print(f" {text}" if text else "\n", end="", style="green", markup=False)

    @contextmanager
    def bar(self, what: str, of: float) -> Iterator[Advance]:
        """See `Show`."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("   {task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            shown = progress.add_task(what, total=of)
            yield lambda n: progress.update(shown, completed=n)

    def table(self, rows: Sequence[Row]) -> None:
        """See `Show`."""
        from rich.table import Table

        table = Table(*HEADER)
        for column in (2, 3):
            table.columns[column].justify = "right"
        for row in rows:
            table.add_row(*_cells(row), style=None if row.right else "bold red")
        self._console.print()
        self._console.print(table)


def _cells(row: Row) -> tuple[str, ...]:
    verdict = "right" if row.right else "WRONG"
    return (row.step, row.executor, f"{row.jobs:,}", f"{row.seconds:.2f}", row.result, verdict)


def make_show(out: TextIO) -> Show:
    """The one that suits where `out` goes."""
    return RichShow() if out.isatty() else PlainShow(out)
