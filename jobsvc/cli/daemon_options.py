"""F5: the options of the daemon, for commands that say what a daemon started with them would do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from jobsvc.config import OPTIONS

F = TypeVar("F", bound=Callable[..., Any])

_PREFIX = "daemon_"


def daemon_options(command: F) -> F:
    """Adds all options of the daemon to a command; it gets those that were given as `given`, see `config.gather`."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        given = {
            option.name: value
            for option in OPTIONS
            if (value := _text(options.pop(_PREFIX + option.field))) is not None
        }
        _take_global_folder(given)
        return command(*args, given=given, **options)

    for option in reversed(OPTIONS):
        doc = f"{option.doc} [env: {option.variable}]"
        word, _, _ = option.doc.partition(" ")
        run = click.option(
            f"--{option.name}",
            _PREFIX + option.field,
            is_flag=option.flag,
            multiple=option.repeat,
            default=None if not option.flag else False,
            metavar=None if option.flag else word if word.isupper() else "VALUE",
            help=doc,
        )(run)
    return run  # type: ignore[return-value]


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
