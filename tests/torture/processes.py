"""/proc, as the checker looks at it: who was started by which life of the daemon, who is a zombie, who is a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LIFE = "TORTURE_LIFE"
"""Environment variable that every process started by one life of the daemon inherits."""


class Seen(NamedTuple):
    """One process, as /proc shows it."""

    pid: int
    parent: int
    state: str
    life: str
    command: str


def everyone(prefix: str) -> Iterator[Seen]:
    """The living processes whose mark begins with `prefix`; the daemons bear it too."""
    for pid in _pids():
        life = _life(pid)
        if life.startswith(prefix):
            state, parent = _stat(pid)
            if state not in ("Z", "X", ""):
                yield Seen(pid, parent, state, life, command_line(pid))


def zombies_of(parent: int) -> list[int]:
    """Children of `parent` that have ended and have not been reaped."""
    return [pid for pid in _pids() if _stat(pid) == ("Z", parent)]


def workers_of(daemon: int, prefix: str) -> list[Seen]:
    """The io and cpu workers of a daemon, by number."""
    return sorted(p for p in everyone(prefix) if p.parent == daemon and "jobsvc.worker." in p.command)


def guard_of(daemon: int) -> int | None:
    """The guard process of a daemon; it bears no mark, as it must outlive what does."""
    for pid in _pids():
        if _stat(pid)[1] == daemon and "worker/guard.py" in command_line(pid):
            return pid
    return None


def descriptors_of(pid: int) -> int:
    """How many descriptors a process has open; 0 when it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names only
    except OSError:
        return 0


def command_line(pid: int) -> str:
    """Its command line; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal. Whether there was somebody to get it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names only


def _life(pid: int) -> str:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return ""
    for entry in environ.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == LIFE.encode():
            return value.decode(errors="replace")
    return ""


def _stat(pid: int) -> tuple[str, int]:
    """State and parent; ("", 0) when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return "", 0
    return fields[0].decode(), int(fields[1])
