"""F5: `jobsvc audit check|tail`: the audit log of this machine's data directory, with or without a daemon on it."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

import click

from jobsvc.cli import exits
from jobsvc.cli.shell import Shell, json_option, pass_shell
from jobsvc.model.places import default_data_dir

TAIL_RECORDS = 20


def _folder() -> Path:
    named = click.get_current_context().find_root().params.get("data_dir")
    return Path(named) if named else default_data_dir(os.environ)


@click.group("audit")
def audit_command() -> None:
    """Read the audit log: who changed what, and who was refused.

    It is audit.log in the data directory, a JSON record on every line, each holding the hash of the one before.
    """


@audit_command.command("check")
@json_option
@pass_shell
def _check(shell: Shell, /) -> int:
    """Verify every record against the one before it, and the end against the database.

    The exit code is 0 when nothing was changed, removed or moved, otherwise 1; the first bad record is named.
    """
    from jobsvc.store.audit_check import check

    folder = _folder()
    try:
        report = check(folder)
    except OSError as error:
        click.echo(f"jobsvc: {error}", err=True)
        return exits.FAILED
    if not shell.drawing:
        shell.value(report)
    else:
        click.echo(f"{report.file}: {'whole' if report.ok else 'NOT WHOLE'}")
        for problem in report.problems:
            click.echo(f"  {problem}")
        click.echo(f"  {report.records} records, {report.first} to {report.last}")
        if report.heads is None:
            click.echo("  there is no database that knows where the log should end")
    return exits.OK if report.ok else exits.FAILED


@audit_command.command("tail")
@click.option("-n", "count", type=click.IntRange(1), default=TAIL_RECORDS, show_default=True, help="Records.")
def _tail(*, count: int) -> int:
    """Print the last records as they are."""
    from jobsvc.store.audit_file import AUDIT_FILE, files

    last: deque[bytes] = deque(maxlen=count)
    try:
        for file in files(_folder() / AUDIT_FILE):
            with file.open("rb") as opened:
                last.extend(opened)
    except OSError as error:
        click.echo(f"jobsvc: {error}", err=True)
        return exits.FAILED
    for line in last:
        click.echo(line.decode(errors="backslashreplace").rstrip("\n"))
    return exits.OK
