"""F2: /proc: which processes belong to an attempt, how to end all of them, what a worker weighs.

Runs on the reactor on purpose: as long as the reactor has not reaped a process, its number cannot belong to another
one. A walk costs 15 to 50 µs for each process of the machine and happens only when something is killed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

from twisted.logger import Logger

SWEEPS_MAX = 5
"""How often a tree that still grows is walked again: each walk stops all it finds, so a fork bomb dies out."""

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_log = Logger()


def _processes() -> dict[int, tuple[int, int]]:
    """Parent and session of every process by its number, zombies left out."""
    found: dict[int, tuple[int, int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - as below
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - half the cost of a Path
                # The command's name stands in brackets and may hold any character.
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if fields[0] not in (b"Z", b"X"):
            found[int(name)] = (int(fields[1]), int(fields[3]))
    return found


def tree_of(root: int) -> list[int]:
    """The processes that descend from `root` or belong to its session, parents before children, `root` first."""
    processes = _processes()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    order = [root]
    seen = {root}
    # Below the root first, then who was left by its parent and is known by the session alone.
    for start in (root, *(pid for pid, (_, session) in processes.items() if session == root)):
        if start not in seen:
            seen.add(start)
            order.append(start)
        for pid in _below(start, children):
            if pid not in seen:
                seen.add(pid)
                order.append(pid)
    return order


def _below(root: int, children: Mapping[int, Sequence[int]]) -> list[int]:
    """All descendants, parents before children."""
    order = list(children.get(root, ()))
    for pid in order:  # grows while we go
        order += children.get(pid, ())
    return order


def kill_tree(root: int) -> None:
    """End a process we started, with all that it started: stop everything, then kill leaves first and `root` last.

    `root` must not have been reaped. A process that left both the session and the tree escapes.
    """
    _signal(root, signal.SIGSTOP)
    stopped: list[int] = []
    for _ in range(SWEEPS_MAX):
        fresh = [pid for pid in tree_of(root) if pid not in stopped]
        if not fresh:
            break
        for pid in fresh:
            _signal(pid, signal.SIGSTOP)
        stopped += fresh
    for pid in reversed(stopped):
        if pid != root:
            _signal(pid, signal.SIGKILL)
    _signal(root, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """End what a process has left behind in its own group.

    Call at once when the leader has been reaped: the number of a group is not given out again while it has members.
    """
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
    _log.info("processes left behind by process {pid} were killed", pid=leader, action="left_behind_killed")


def terminate(leader: int) -> None:
    """Ask a process and its group to end (SIGTERM). `leader` must not have been reaped."""
    try:
        os.killpg(leader, signal.SIGTERM)
    except ProcessLookupError:
        _signal(leader, signal.SIGTERM)  # it has not made its session yet


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself, which is what was wanted
    except PermissionError:
        _log.warn("process {pid} belongs to another user and stays", pid=pid, action="kill_refused")


def rss_bytes(pid: int) -> int | None:
    """Resident memory of a process; None when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - as above
            return int(file.read().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return None
