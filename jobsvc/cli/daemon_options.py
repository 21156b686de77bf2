"""F5: the options of the daemon, for commands that say what a daemon started with them would do.

The table of options is loaded when such a command runs or shows its help, not for the list of all commands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any

import click
from click.core import ParameterSource

_PREFIX = "daemon_"


class DaemonCommand(click.Command):
    """A command that takes all options of the daemon beside its own; see `with_given`."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """See click."""
        return [*super().get_params(ctx), *self._of_the_daemon]

    @cached_property
    def _of_the_daemon(self) -> list[click.Parameter]:
        from jobsvc.config import OPTIONS

        options: list[click.Parameter] = []
        for option in OPTIONS:
            word, _, _ = option.doc.partition(" ")
            options.append(
                click.Option(
                    [f"--{option.name}", _PREFIX + option.field],
                    is_flag=option.flag,
                    multiple=option.repeat,
                    default=False if option.flag else None,
                    metavar=None if option.flag else word if word.isupper() else "VALUE",
                    help=f"{option.doc} [env: {option.variable}]",
                )
            )
        return options


def with_given(command: Callable[..., int]) -> Callable[..., int]:
    """Hands the options of the daemon that were given to a command as `given`, in the shape of `config.gather`."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> int:
        from jobsvc.config import OPTIONS

        given = {
            option.name: value
            for option in OPTIONS
            if (value := _text(options.pop(_PREFIX + option.field))) is not None
        }
        _take_global_folder(given)
        return command(*args, given=given, **options)

    return run


def _text(value: Any) -> Any:
    """As `gather` takes it; None: not given."""
    if value is True:
        return "1"
    return None if value in (False, None, ()) else list(value) if isinstance(value, tuple) else value


def _take_global_folder(given: dict[str, Any]) -> None:
    """`jobsvc --data-dir DIR config …` means the same as the option behind it."""
    root = click.get_current_context().find_root()
    named = root.params.get("data_dir")
    if named and root.get_parameter_source("data_dir") is ParameterSource.COMMANDLINE:
        given.setdefault("data-dir", named)
