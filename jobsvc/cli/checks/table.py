"""F5: all checks, in the order in which they are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from jobsvc.cli.checks import access, machine, running, storage
from jobsvc.cli.checks.findings import Finding, bad
from jobsvc.cli.checks.scene import Scene

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


def examine(scene: Scene) -> Iterator[tuple[str, Finding]]:
    """Every check with its finding. One that cannot look is a failure, and keeps no other from looking."""
    for name, look in CHECKS:
        try:
            yield name, look(scene)
        except OSError as error:
            yield name, bad(f"cannot be looked at: {error}", "ask as the daemon's user, or as root")
