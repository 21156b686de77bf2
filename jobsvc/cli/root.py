"""F5: the group of commands, its global options, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from jobsvc.cli import exits
from jobsvc.cli.shell import Shell

if TYPE_CHECKING:
    from jobsvc.client.blocking import Client

_COMMANDS = {
    "submit": "submitting",
    "call": "submitting",
    "map": "mapping",
    "get": "reading",
    "result": "reading",
    "follow": "following",
    "list": "reading",
    "cancel": "changing",
    "retry": "changing",
    "tasks": "daemon",
    "info": "daemon",
    "reload": "daemon",
    "db": "database",
    "config": "configuring",
    "doctor": "doctor",
    "completion": "completing",
}
"""Command → module of this package that holds it, as `<name>_command`; imported when it is used."""


class LazyGroup(click.Group):
    """Commands in the order of the table, each imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"jobsvc.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


_EPILOG = f"""\b
Exit codes:
{exits.table()}

\b
Examples:
  jobsvc tasks
  jobsvc submit add '{{"a": 1, "b": 2}}' --wait
  jobsvc submit thumbnail -a path=a.png -a width=200
  printf '[1, 2]\\n[3, 4]\\n' | jobsvc map add
  jobsvc list --state failed --task thumbnail
"""


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--url", envvar="JOBSVC_URL", show_envvar=True, help="The daemon: http://host:port or unix:/path."
)
@click.option(
    "--token",
    envvar="JOBSVC_TOKEN",
    show_envvar=True,
    help="Its token; better in the environment (or a file, env var: JOBSVC_TOKEN_FILE): arguments are visible.",
)
@click.option(
    "--data-dir",
    envvar="JOBSVC_DATA_DIR",
    show_envvar=True,
    type=click.Path(file_okay=False),
    help="Where a daemon of this machine keeps its address and token.",
)
@click.version_option(package_name="jobsvc")
@click.pass_context
def root(context: click.Context, url: str | None, token: str | None, data_dir: str | None) -> None:
    """Submit jobs to a jobsvc daemon and follow them.

    On the daemon's own machine nothing needs to be set: address and token are found in its data directory. On a
    terminal, commands draw tables; into a pipe, or with --json, they write JSON lines.
    """
    if context.obj is None:

        def connect() -> Client:
            from jobsvc.cli.places import data_folder
            from jobsvc.client.blocking import Client

            try:
                return Client(url, token, data_dir=data_folder(data_dir))
            except ValueError as error:
                raise click.UsageError(str(error)) from None

        context.obj = Shell(connect)
    context.call_on_close(context.obj.close)


def run(arguments: list[str], shell: Shell | None = None) -> int:
    """Run one command line. Answers the exit code; nothing is raised but what nobody foresaw."""
    try:
        answer = root.main(arguments, prog_name="jobsvc", standalone_mode=False, obj=shell)
    except click.Abort:
        # click makes this of Ctrl-C; a prompt does not occur.
        click.echo("jobsvc: interrupted", err=True)
        return exits.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader has gone (`| head`): no traceback, and none from the interpreter's last flush either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except Exception as error:  # noqa: BLE001 - what is not of the client is raised again there
        return _explained(error)
    return answer if isinstance(answer, int) else exits.OK


def _explained(error: Exception) -> int:
    """The message of an error of the client; others are ours and go on."""
    from jobsvc.client.errors import ClientError

    if not isinstance(error, ClientError):
        raise error
    click.echo(f"jobsvc: {error}", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(note, err=True)
    return exits.code_of(error)
