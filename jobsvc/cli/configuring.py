"""F5: `jobsvc config show|check`: the settings that a daemon would have, without one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobsvc.cli import exits
from jobsvc.cli.daemon_options import DaemonCommand, with_given
from jobsvc.cli.shell import Shell, json_option, pass_shell

if TYPE_CHECKING:
    from jobsvc.config import Settings


@click.group("config")
def config_command() -> None:
    """Show or check the settings of the daemon.

    Both take the daemon's own options, and read its environment variables and its file as a daemon started here would.
    """


@config_command.command("show", cls=DaemonCommand)
@click.option("--origin", is_flag=True, help="Also where each comes from.")
@json_option
@pass_shell
@with_given
def _show(shell: Shell, /, *, given: dict[str, Any], origin: bool) -> int:
    """Print every setting in force.

    What cannot be used is told on standard error, and its default stands in its place; then the exit code is 1.
    Secrets are no settings: of tokens and keys only the names of their files are printed.
    """
    from jobsvc.config import OPTIONS, gather

    settings = gather(given, os.environ)
    rows = [(option, settings.by_name[option.field]) for option in OPTIONS]
    if shell.drawing:
        file = settings.by_name["config"].value
        shell.table(
            ("OPTION", "ORIGIN", "VALUE") if origin else ("OPTION", "VALUE"),
            (
                # The whole path of the file, which can be long, is told once: as the value of `config`.
                (option.field, where.replace(str(file), file.name) if file else where, _spelled(value))
                if origin
                else (option.field, _spelled(value))
                for option, (value, where) in rows
            ),
        )
    else:
        for option, (value, where) in rows:
            shell.value(
                {"option": option.field, "value": _plain(value)} | ({"origin": where} if origin else {})
            )
    for note in settings.notes:
        shell.note(f"jobsvc: {note}")
    wrong = [problem for problem in settings.problems if problem is not settings.no_tasks]
    for problem in wrong:
        shell.note(f"jobsvc: {problem}")
    return exits.FAILED if wrong else exits.OK


@config_command.command("check", cls=DaemonCommand)
@click.argument("file", required=False, type=click.Path())
@json_option
@pass_shell
@with_given
def _check(shell: Shell, /, *, given: dict[str, Any], file: str | None) -> int:
    """Say whether these settings are good; nothing is started or written.

    What only a start can tell is not looked at: whether the modules load, whether addresses and files can be used.
    jobsvc doctor looks at files and folders.

    FILE goes before --config. Everything that is wrong is told in one go; then the exit code is 1.
    """
    from jobsvc.config import gather

    if file is not None:
        given["config"] = file
    settings = gather(given, os.environ)
    problems = [
        *settings.problems,
        *_bad_listeners(settings),
        *_no_keys(settings),
        *_open_listeners(settings),
    ]
    if not shell.drawing:
        shell.value(
            {
                "file": _plain(settings.by_name["config"].value),
                "ok": not problems,
                "problems": problems,
                "notes": settings.notes,
            }
        )
        return exits.FAILED if problems else exits.OK
    for line in (*problems, *settings.notes):
        click.echo(line)
    where = settings.by_name["config"].value or "no file, only options and variables"
    click.echo(f"{where}: {f'{len(problems)} to be mended' if problems else 'good'}")
    return exits.FAILED if problems else exits.OK


def _bad_listeners(settings: Settings) -> list[str]:
    """Which listeners nobody could open. Of kinds that plugins of Twisted bring only a start can tell."""
    from jobsvc.http.endpoints import EndpointError, parse

    found: list[str] = []
    for text in settings.config.listen:
        try:
            parse(text)
        except EndpointError as error:
            found.append(f"{settings.by_name['listen'].origin}: listen: {text}: {error}")
    return found


def _no_keys(settings: Settings) -> list[str]:
    """A file of keys that is named must be there: a start makes only the one of the data directory."""
    from jobsvc.config.sources import DEFAULT

    value, origin = settings.by_name["secret_key"]
    try:
        value.stat()
    except FileNotFoundError:
        if origin != DEFAULT:
            return [f"{origin}: secret_key: {value} is not there; put it back, or leave the option away"]
    except OSError:
        pass  # whether it is good only the daemon's user can see; jobsvc doctor says so
    return []


def _open_listeners(settings: Settings) -> list[str]:
    """What a start would refuse of the listeners."""
    from jobsvc.model.listeners import reach_of

    config, origin = settings.config, settings.by_name["listen"].origin
    if config.behind_proxy:
        return []
    return [
        f"{origin}: listen: {text} is open to other machines and not encrypted; listen on 127.0.0.1, on unix:, or on "
        "ssl: and tls: endpoints; behind_proxy says that a proxy in front encrypts"
        for text in config.listen
        if reach_of(text) == "open"
    ]


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return str(value) if isinstance(value, Path) else value


def _spelled(value: Any) -> str:
    """As a file would have it; nothing for what is not set."""
    import msgspec

    return "" if value is None else msgspec.json.encode(_plain(value)).decode()
