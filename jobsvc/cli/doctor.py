"""F5: `jobsvc doctor`: whether everything that should be so, is so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from jobsvc.cli import exits
from jobsvc.cli.checks import access, machine, running, storage
from jobsvc.cli.checks.findings import Finding, bad
from jobsvc.cli.checks.scene import Scene
from jobsvc.cli.daemon_options import daemon_options
from jobsvc.cli.shell import Shell, json_option, pass_shell
from jobsvc.config import gather

CHECKS: Final[tuple[tuple[str, Callable[[Scene], Finding]], ...]] = (
    ("settings", access.settings),
    ("config-file", access.config_file),
    ("user", access.user),
    ("listeners", access.listeners),
    ("data-dir", access.data_folder),
    ("token-file", access.token_file),
    ("key-file", access.key_file),
    ("data-files", access.data_files),
    ("memory", access.memory),
    ("umask", access.umask),
    ("new-privileges", access.new_privileges),
    ("core-dumps", access.core_dumps),
    ("worker-env", access.worker_env),
    ("audit", access.audit),
    ("http2", machine.http2),
    ("python", machine.python),
    ("twisted", machine.twisted),
    ("kernel", machine.kernel),
    ("guard", machine.guard),
    ("open-files", machine.open_files),
    ("job-limits", machine.job_limits),
    ("queue-limits", machine.queue_limits),
    ("clock", machine.clock),
    ("sqlite", storage.sqlite),
    ("durability", storage.durability),
    ("file-system", storage.file_system),
    ("free-space", storage.free_space),
    ("fsync", storage.fsync),
    ("lock", storage.lock),
    ("database", storage.database),
    ("daemon", running.reachable),
    ("reactor", machine.reactor),
    ("token", access.asks_for_token),
    ("host-names", access.host_names),
    ("other-sites", access.other_sites),
    ("version", running.same_version),
    ("ready", running.ready),
)
"""Name of a check → what looks. Its order is that of the answer: what can be reached, the machine, the store, the
running daemon."""

_SIGNS: Final = {"pass": "pass", "warn": "WARN", "fail": "FAIL", "n/a": "n/a"}


def examine(scene: Scene) -> Iterator[tuple[str, Finding]]:
    """Every check with its finding. One that cannot look is a failure, and keeps no other from looking."""
    for name, look in CHECKS:
        try:
            yield name, look(scene)
        except OSError as error:
            yield name, bad(f"cannot be looked at: {error}", "ask as the daemon's user, or as root")


@click.command("doctor")
@daemon_options
@json_option
@pass_shell
def doctor_command(shell: Shell, /, *, given: dict[str, Any]) -> int:
    """Check settings, machine, storage and the running daemon.

    Every secure default is looked at, and everything that a daemon needs; each with pass, WARN, FAIL, or n/a where
    there is nothing to look at, and with what to do. Nothing is changed. The exit code is 1 when anything fails.

    Settings are judged too: those of the running daemon; if none runs, those of one started here with these options.
    Ask as the daemon's user, or as root.
    """
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
