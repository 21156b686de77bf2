"""F5: what every command gets: the client (made when first asked for), and how to print for this terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from jobsvc.client.blocking import Client

F = TypeVar("F", bound=Callable[..., Any])

_GAP: Final = 2
"""Cells between two columns of a table."""
_FOLDED_LEAST: Final = 20
"""Cells that the last column gets also on a narrow terminal: a name is readable then."""


class Shell:
    """Settings of one run of the command.

    Args:
        connect: makes the client; asked once, and only by commands that talk to the daemon.
        terminal: whether a person reads standard output; None: look.
    """

    def __init__(self, connect: Callable[[], Client], *, terminal: bool | None = None) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._terminal = terminal
        self.json = False

    @property
    def client(self) -> Client:
        """The daemon. Raises `Unreachable`."""
        if self._client is None:
            self._client = self._connect()
        return self._client

    @property
    def drawing(self) -> bool:
        """Whether to draw for a person: on a terminal, unless `--json` was given."""
        if self.json:
            return False
        return sys.stdout.isatty() if self._terminal is None else self._terminal

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self._client is not None:
            self._client.close()

    def line(self, text: bytes) -> None:
        """One line of JSON for a program."""
        click.echo(text.rstrip(b"\n"))

    def value(self, value: Any) -> None:
        """Any value as a line of JSON."""
        import msgspec

        self.line(msgspec.json.encode(value))

    def note(self, text: str) -> None:
        """Something beside the answer, for people: on standard error."""
        click.echo(text, err=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table for a person. Only its last column may be wrapped: the others are to be copied, or short.

        Where a terminal is too narrow for those, the table is wider than it: half an id is of no use.
        """
        from rich.cells import cell_len
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns[:-1]:
            drawn.add_column(column, no_wrap=True)
        drawn.add_column(columns[-1], overflow="fold")
        lines = list(rows)
        for row in lines:
            drawn.add_row(*map(Text, row))
        *whole, last = (max(map(cell_len, column)) for column in zip(columns, *lines, strict=True))
        least = sum(width + _GAP for width in whole) + max(cell_len(columns[-1]), min(last, _FOLDED_LEAST))
        console = Console(file=sys.stdout)
        console.width = max(console.width, least)
        console.print(drawn, crop=False)


def json_option(command: F) -> F:
    """Adds `--json` to a command."""

    def note(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        context.ensure_object(Shell).json |= value

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=note, help="JSON lines, as when piped."
    )(command)


pass_shell = click.make_pass_decorator(Shell)
