"""F5: `jobsvc completion`: click's own completion script."""

from __future__ import annotations

import click

from jobsvc.cli import exits


@click.command("completion")
@click.argument("shell_name", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell_name: str) -> int:
    """Print the completion script for bash, zsh or fish.

    \b
    Example, in ~/.bashrc:
      eval "$(jobsvc completion bash)"
    """  # noqa: D301 - click's own mark
    from click.shell_completion import get_completion_class

    from jobsvc.cli.root import root

    kind = get_completion_class(shell_name)
    if kind is None:
        raise click.UsageError(f"click knows no completion for {shell_name}")
    click.echo(kind(root, {}, "jobsvc", "_JOBSVC_COMPLETE").source())
    return exits.OK
