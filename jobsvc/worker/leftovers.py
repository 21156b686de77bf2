"""What an attempt of a cpu worker leaves running: found when it ends, and ended.

F2, free of Twisted. The worker is the parent of all that its attempts orphan (`launch.py --subreaper`), so whatever was
started, however often it forked, is below it. What has left the worker's session meant to outlive the attempt and is
killed; what stayed in the session is taken for a library's helper (a pool, a resource tracker) and lives on until the
worker ends. What was there before the first attempt belongs to the task modules and stays as well.

Orphans that end become our zombies, for which nobody waits. One in a session of its own is reaped at the attempt's
end. One in ours may be a child for whose status the task's code still asks later, so the latest of them are kept.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

FORK_S = 50e-6
"""No attempt that took less has started a process: a bare fork and exec takes several times as long, and two in three
no-op attempts are saved the look."""
DEATH_MS = 1_000
"""How long killed processes may take to end before the next attempt begins all the same."""
WALKS_MAX = 20
"""How often what still grows is walked again: each walk stops all it finds."""
AGAIN_S = (0.05, 0.2, 0.6)
"""Pauses after which an idle worker looks again, when an attempt has left processes in the session: one that means to
leave it may not have come to that yet."""
ZOMBIES_KEPT = 16
"""Ended children in our own session of which nobody has asked the status yet. `subprocess` asks at once or when the
next child is started; more than these only gather where nobody asks."""


class Leftovers:
    """See the module. Made when the task modules are loaded and before the first attempt; for the main thread."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._session = os.getsid(0)
        self._own: set[int] = set()
        self._own.update(self._below())
        self._known: set[int] = set()  # left in the session by earlier attempts
        self._pauses: list[float] = []
        self._ended: dict[int, None] = {}  # zombies of our session, oldest first

    def again_s(self) -> float:
        """How long to wait for work before the next `clear`; -1: for ever."""
        return self._pauses.pop(0) if self._pauses else -1

    def clear(self) -> None:
        """End what the attempt that has just returned left behind. About 1.5 µs when there is nothing at all."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self._pauses.clear()
            return  # not even a zombie
        if os.getpid() != self._pid:
            return  # a copy of the worker that a task has forked: its children are nobody's matter here
        held: dict[int, int] = {}  # descriptor by number
        for _ in range(WALKS_MAX):
            below = self._below()
            fresh = [pid for pid in below if pid not in held and _session(pid) not in (self._session, None)]
            if not fresh:
                break
            self._stop(fresh, held)
        self._end(held)
        stayed = {pid for pid in below if pid not in held}
        if not stayed <= self._known:
            self._pauses = list(AGAIN_S)
        self._known = stayed
        self._reap_in_session()

    def _below(self) -> list[int]:
        """Descendants, parents before children, zombies among them, without those of the task modules."""
        found = _children(self._pid)
        for pid in found:  # grows while we go
            found += _children(pid)
        return [pid for pid in found if pid not in self._own] if self._own else found

    def _stop(self, pids: list[int], held: dict[int, int]) -> None:
        """Get hold of these and stop them."""
        fds: dict[int, int] = {}
        for pid in pids:
            with suppress(OSError):  # it has ended
                fds[pid] = os.pidfd_open(pid)
        below = self._below()  # who is still there is the one whose descriptor we have
        for pid, fd in fds.items():
            if pid in below and _signal(fd, signal.SIGSTOP):
                held[pid] = fd
            else:
                os.close(fd)

    def _end(self, held: dict[int, int]) -> None:
        """Kill all of them, leaves first, and reap: those in between become ours when their parents die."""
        ends = select.poll()
        for fd in reversed(held.values()):
            _signal(fd, signal.SIGKILL)
            ends.register(fd, select.POLLIN)
        waiting = set(held.values())
        while waiting and (ended := ends.poll(DEATH_MS)):
            for fd, _ in ended:
                ends.unregister(fd)
                waiting.discard(fd)
        for pid, fd in held.items():
            os.close(fd)
            with suppress(ChildProcessError):  # somebody else has reaped it
                os.waitpid(pid, os.WNOHANG)

    def _reap_in_session(self) -> None:
        now = [pid for pid in self._known if _is_zombie(pid)]
        self._ended = dict.fromkeys([*(pid for pid in self._ended if pid in now), *now])
        for pid in list(self._ended)[:-ZOMBIES_KEPT]:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            del self._ended[pid]


def _signal(fd: int, number: int) -> bool:
    """Send it; False: it has changed its user and cannot be killed by us."""
    try:
        signal.pidfd_send_signal(fd, number)
    except PermissionError:
        return False
    except ProcessLookupError:
        return True  # it has just ended
    return True


def _session(pid: int) -> int | None:
    """None when it is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _children(pid: int) -> list[int]:
    """Of all threads of a process; none where the kernel does not tell (CONFIG_PROC_CHILDREN): then everything stays
    until the worker ends.
    """  # fmt: skip
    found: list[int] = []
    with suppress(OSError):  # it has ended meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - half the cost
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123 - the same
                found += map(int, file.read().split())
    return found


def _is_zombie(pid: int) -> bool:
    """Whether a child of ours has ended and not been reaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False
