"""A memory cgroup with a limit for one test, where the machine lets us make one."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GROUP_WAIT_MS = 5_000
"""Killed processes leave their group a moment after they are gone."""


def _homes() -> Iterator[tuple[Path, str]]:
    """Where a group may be made, and the name of the file with its limit: version 1, then 2."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, mount, kind, options, *_ in mounts:
        for number, controllers, path in groups:
            if kind == "cgroup" and "memory" in options.split(",") and "memory" in controllers.split(","):
                yield Path(mount, path.lstrip("/")), "memory.limit_in_bytes"
            elif kind == "cgroup2" and number == "0":
                yield Path(mount, path.lstrip("/")), "memory.max"


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path | None]:
    """The folder of a new group; None where no memory controller can be written."""
    for home, name in _homes():
        group = home / f"jobsvc-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / name).exists():
                (group / name).write_text(str(limit_bytes))
                yield group
                return
        finally:
            _remove(group)
    yield None


def _remove(group: Path) -> None:
    """After a test that has failed, processes may be left in it."""
    for pid in map(int, (group / "cgroup.procs").read_text().split()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    poller = select.poll()
    for _ in range(GROUP_WAIT_MS // 50):
        try:
            group.rmdir()
        except OSError:
            poller.poll(50)
        else:
            return
    group.rmdir()
