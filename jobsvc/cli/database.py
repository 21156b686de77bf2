"""F5: `jobsvc db backup|check|migrate`: the database file itself, with or without a daemon on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from time import time_ns
from typing import Any

import click

from jobsvc.cli import exits
from jobsvc.cli.places import data_folder
from jobsvc.cli.shell import Shell, json_option, pass_shell

_file_argument = click.argument("file", required=False, type=click.Path(dir_okay=False))


def _now_us() -> int:
    return time_ns() // 1000


def _database(file: str | None) -> str:
    """The file that was named, or the one in the data directory."""
    from jobsvc.store.folder import DATABASE_FILE

    if file is not None:
        return file
    named = click.get_current_context().find_root().params.get("data_dir")
    return str(data_folder(named) / DATABASE_FILE)


def _explained(command: Callable[..., int]) -> Callable[..., int]:
    """What cannot be done becomes one line and an exit code."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> int:
        from jobsvc.store.connection import StoreRefused

        try:
            return command(*args, **options)
        except (StoreRefused, OSError) as error:
            click.echo(f"jobsvc: {error}", err=True)
            return exits.FAILED

    return run


@click.group("db")
def db_command() -> None:
    """Look after the database file: back it up, check it, migrate it.

    FILE is the database; without it, the one in the data directory.
    """


@db_command.command("backup")
@click.argument("dest", required=False, type=click.Path(path_type=Path))
@click.option(
    "--file", type=click.Path(dir_okay=False), help="The database, if not that of the data directory."
)
@json_option
@pass_shell
@_explained
def _backup(shell: Shell, /, *, dest: Path | None, file: str | None) -> int:
    """Write a whole copy of the database, also while a daemon works on it.

    DEST is a new file or a folder; without it, the copy goes to backup/ in the data directory. None is removed there.
    To restore: stop the daemon, move jobsvc.db and jobsvc.db-wal away, copy the backup to jobsvc.db.
    """
    from jobsvc.store.tending import backup

    path = _database(file)
    made = backup(path, dest, _now_us())
    size = made.stat().st_size
    if shell.drawing:
        click.echo(f"{made} ({size} bytes)")
    else:
        shell.value({"file": path, "backup": str(made), "bytes": size})
    return exits.OK


@db_command.command("check")
@_file_argument
@click.option(
    "--accept-missing-wal",
    is_flag=True,
    help="The write-ahead log is gone for good (and what was stored last with it): let the next start go on.",
)
@json_option
@pass_shell
@_explained
def _check(shell: Shell, /, *, file: str | None, accept_missing_wal: bool) -> int:
    """Look through the whole database, also while a daemon works on it.

    The exit code is 0 when a daemon would take it, otherwise 1.
    """
    from jobsvc.store.tending import accept_missing_log, check

    path = _database(file)
    if accept_missing_wal:
        accept_missing_log(path)
    report = check(path)
    if not shell.drawing:
        shell.value(report)
    else:
        _describe(report)
    return exits.OK if report.ok else exits.FAILED


def _describe(report: Any) -> None:
    closed = {
        True: "closed as it should be",
        False: "not closed by its last daemon; the next start puts that right",
        None: "not known whether its last daemon closed it",
    }[report.closed]
    if report.daemon is not None:
        closed = f"in use by the daemon with pid {report.daemon}"
    click.echo(f"{report.file}: {'whole' if report.ok else 'NOT USABLE'}")
    for problem in report.problems:
        click.echo(f"  {problem}")
    if report.schema is not None:
        older = report.schema < report.schema_known
        click.echo(f"  schema {report.schema}{'; to migrate it now: jobsvc db migrate' if older else ''}")
        click.echo(f"  {closed}")
    click.echo(f"  {report.bytes} bytes, and {report.log_bytes} in its write-ahead log")
    for state, count in sorted(report.jobs.items()):
        click.echo(f"  {count} {state}")


@db_command.command("migrate")
@_file_argument
@json_option
@pass_shell
@_explained
def _migrate(shell: Shell, /, *, file: str | None) -> int:
    """Bring the database of a stopped daemon to this program's schema, after a copy into backup/.

    A start does the same by itself; this is for those who want it done, or refused, before.
    """
    from jobsvc.store.tending import migrate

    path = _database(file)
    before, after, copy = migrate(path, _now_us)
    if not shell.drawing:
        shell.value(
            {"file": path, "from": before, "to": after, "backup": None if copy is None else str(copy)}
        )
    elif copy is None:
        click.echo(f"{path} has schema {after} already; nothing to do")
    else:
        click.echo(f"{path}: schema {before} became {after}; as it was, it is kept in {copy}")
    return exits.OK
