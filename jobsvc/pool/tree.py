"""F2: /proc: which processes belong to an attempt, how to end all of them, what a worker weighs.

As long as the reactor has not reaped a process we started, its number cannot belong to another one: what is done here
to such a process is done on the reactor, or in a thread while the process is held (`spawn.OwnProcess`). A walk costs 15
to 50 µs for each process of the machine, too long for the reactor, and happens only when something is killed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from twisted.logger import Logger

SWEEPS_MAX = 5
"""How often a tree that still grows is walked again: each walk stops all it finds, so a fork bomb dies out."""

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_log = Logger()


class Process(NamedTuple):
    """A process as /proc shows it; `pid` and `start` (ticks since the machine started) name it for good."""

    pid: int
    start: int
    parent: int
    session: int


def _stat(pid: int) -> list[bytes] | None:
    """Fields 3 and up of /proc/PID/stat; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - half the cost of a Path
            # The command's name stands in brackets and may hold any character.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None  # it ended while we looked


def _look(pid: int) -> Process | None:
    """None when it is gone, or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[19]), int(fields[1]), int(fields[3]))


def _processes() -> dict[int, Process]:
    """All of them, zombies left out."""
    found = (_look(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - as above
    return {process.pid: process for process in found if process is not None}


def tree_of(root: int) -> list[Process]:
    """The processes that descend from `root` or belong to its session, parents before children; `root` left out."""
    processes = _processes()
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    order: list[int] = []
    seen = {root}
    # Below the root first, then who was left by its parent and is known by the session alone.
    for start in (root, *(pid for pid, process in processes.items() if process.session == root)):
        for pid in (start, *_below(start, children)):
            if pid not in seen:
                seen.add(pid)
                order.append(pid)
    return [processes[pid] for pid in order]


def _below(root: int, children: Mapping[int, Sequence[int]]) -> list[int]:
    """All descendants, parents before children."""
    order = list(children.get(root, ()))
    for pid in order:  # grows while we go
        order += children.get(pid, ())
    return order


def stop(root: int) -> None:
    """Have a process we started do nothing more, until it is continued or killed. `root` must not have been reaped."""
    _signal(root, signal.SIGSTOP)


def kill_tree(root: int) -> None:
    """End a process we started, with all that it started: stop everything, then kill leaves first and `root` last.

    `root` must not be reaped meanwhile. Runs on: a thread. What has left session and tree is the guard's to find.
    """
    stop(root)
    held: list[Process] = []
    for _ in range(SWEEPS_MAX):
        fresh = [process for process in tree_of(root) if process not in held]
        if not fresh:
            break
        for process in fresh:
            _signal_if_same(process, signal.SIGSTOP)
        held += fresh
    for process in reversed(held):
        _signal_if_same(process, signal.SIGKILL)
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


def stopped(pid: int) -> bool:
    """Whether a signal has stopped it, and nothing has continued it yet; a debugger's stop is another thing."""
    fields = _stat(pid)
    return fields is not None and fields[0] == b"T"


def _signal_if_same(process: Process, number: int) -> None:
    """A descendant is reaped by its parent, not by us, so its number may belong to another one by now."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return  # it has ended; or we have no descriptor left, and the guard will find it by its mark
    try:
        now = _look(process.pid)
        if now is not None and now.start == process.start:
            signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return  # it has ended by itself, which is what was wanted
    except PermissionError:
        _log.warn("process {pid} belongs to another user and stays", pid=process.pid, action="kill_refused")
    finally:
        os.close(fd)


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
