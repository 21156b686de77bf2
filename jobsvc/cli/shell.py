"""F5: what every command gets: the client (made when first asked for), and how to print for this terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from jobsvc.client.blocking import Client

F = TypeVar("F", bound=Callable[..., Any])


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
        """A table for a person. Only its last column may be wrapped: the others are to be copied, or short."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns[:-1]:
            drawn.add_column(column, no_wrap=True)
        drawn.add_column(columns[-1], overflow="fold")
        for row in rows:
            drawn.add_row(*map(Text, row))
        Console(file=sys.stdout).print(drawn)


def json_option(command: F) -> F:
    """Adds `--json` to a command."""

    def note(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        context.ensure_object(Shell).json |= value

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=note, help="JSON lines, as when piped."
    )(command)


pass_shell = click.make_pass_decorator(Shell)
