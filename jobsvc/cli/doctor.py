"""F5: `jobsvc doctor`: whether everything that should be so, is so."""

from __future__ import annotations

import os
from typing import Any, Final

import click

from jobsvc.cli import exits
from jobsvc.cli.daemon_options import DaemonCommand, with_given
from jobsvc.cli.shell import Shell, json_option, pass_shell

_SIGNS: Final = {"pass": "pass", "warn": "WARN", "fail": "FAIL", "n/a": "n/a"}


@click.command("doctor", cls=DaemonCommand)
@json_option
@pass_shell
@with_given
def doctor_command(shell: Shell, /, *, given: dict[str, Any]) -> int:
    """Check settings, machine, storage and the running daemon.

    Every secure default is looked at, and everything that a daemon needs; each with pass, WARN, FAIL, or n/a where
    there is nothing to look at, and with what to do. Nothing is changed. The exit code is 1 when anything fails.

    Settings are judged too: those of the running daemon; if none runs, those of one started here with these options.
    Ask as the daemon's user, or as root.
    """
    from jobsvc.cli.checks.scene import Scene
    from jobsvc.cli.checks.table import examine
    from jobsvc.config import gather

    scene = Scene(gather(given, os.environ), os.environ)
    scene.look_at_daemon()
    counts = dict.fromkeys(_SIGNS, 0)
    rows = []
    for name, finding in examine(scene):
        counts[finding.status] += 1
        if shell.drawing:
            words = f"{finding.detail}. {finding.advice}" if finding.advice else finding.detail
            rows.append((_SIGNS[finding.status], name, words))
        else:
            shell.value(
                {
                    "check": name,
                    "status": finding.status,
                    "detail": finding.detail,
                    "advice": finding.advice or None,
                }
            )
    if shell.drawing:
        shell.table(("", "CHECK", "FOUND"), rows)
        click.echo(", ".join(f"{count} {_SIGNS[status]}" for status, count in counts.items() if count))
    return exits.FAILED if counts["fail"] else exits.OK
