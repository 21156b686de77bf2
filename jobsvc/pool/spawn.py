"""F2: starts processes without holding up the reactor, and waits for their end on it.

A start holds whoever makes it until the new process has begun its program (see `posix`), so one thread makes them all,
in the order in which they were asked for. It lives as long as the daemon: the processes are to die with their parent,
and the kernel takes the thread that made them for that. They are the daemon's own children all the same: the reactor
reaps them, so on the reactor the number of one that has not been reaped cannot belong to another.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.process import registerReapProcessHandler, unregisterReapProcessHandler
from twisted.logger import Logger

from jobsvc.model.crashpoints import crash
from jobsvc.pool import posix
from jobsvc.pool.oom import prefer
from jobsvc.runtime.threads import LastingThread


class Spawned(Protocol):
    """Who is told what becomes of a start; on the reactor, each at most once."""

    def started(self, process: OwnProcess) -> None:
        """It runs."""

    def failed(self, error: OSError) -> None:
        """There is no process; nothing else is told."""

    def exited(self, status: int) -> None:
        """It has been reaped; the status is that of waitpid(2)."""


class Order:
    """One start: what is to run, with descriptors that are closed when it runs or could not be started."""

    __slots__ = ("argv", "descriptors", "environment", "expendable", "spawned")

    def __init__(
        self,
        argv: Sequence[bytes],
        environment: Sequence[bytes],
        descriptors: Sequence[int],
        spawned: Spawned,
        *,
        expendable: bool,
    ) -> None:
        self.argv = argv
        self.environment = environment
        self.descriptors = descriptors
        self.spawned = spawned
        self.expendable = expendable


class Spawner:
    """See the module.

    Args:
        reactor: where is told what becomes of a start.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        self._reactor = reactor
        self._starts = LastingThread("jobsvc-spawn")
        self._deeds = LastingThread("jobsvc-kill")

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        spawned: Spawned,
        *,
        expendable: bool = True,
    ) -> None:
        """Start the program `argv[0]`, a path. Returns at once.

        Args:
            environment: all of it.
            descriptors: the program has copies of them as 0, 1, 2, …; the caller may close its own at once.
            expendable: when memory runs out, the kernel is to take it before the daemon.

        Raises:
            OSError: no descriptor is to be had; nobody else is told.
            ValueError: a word holds a zero byte.
        """
        words, variables = posix.words_of(argv), posix.environment_of(environment)
        copies = posix.spare(descriptors)
        order = Order(words, variables, copies, spawned, expendable=expendable)
        self._starts.do(partial(self._make, order))

    def _make(self, order: Order) -> None:
        told: Callable[[], None]
        try:
            pid = posix.spawn(order.argv, order.environment, order.descriptors)
        except Exception as error:  # noqa: BLE001 - whoever asked is told all
            refused = error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")
            told = partial(order.spawned.failed, refused)
        else:
            if order.expendable:
                prefer(pid)  # until it is told, nobody reaps it: the number is its own
            told = partial(self._begun, order.spawned, pid)
        posix.close(order.descriptors)
        self._reactor.callFromThread(told)

    def _begun(self, spawned: Spawned, pid: int) -> None:
        crash("CP6")
        process = OwnProcess(pid, spawned, self._reactor, self._deeds)
        try:
            spawned.started(process)
        finally:
            process.register()


class OwnProcess:
    """A child of the daemon; Twisted's reaper waits for it, as for those it has started itself.

    Args:
        thread: for what is done to it while it is held.
    """

    _log = Logger()

    def __init__(
        self, pid: int, spawned: Spawned, reactor: IReactorFromThreads, thread: LastingThread
    ) -> None:
        self.pid = pid
        self._spawned = spawned
        self._reactor = reactor
        self._thread = thread
        self._holds = 0

    def hold(self, deed: Callable[[int], None]) -> None:
        """Do this with its number in a thread. It is not reaped until that is done, so the number stays its own."""
        self._holds += 1
        self._thread.do(partial(self._held, deed))

    def _held(self, deed: Callable[[int], None]) -> None:
        try:
            deed(self.pid)
        finally:
            self._reactor.callFromThread(self._release)

    def _release(self) -> None:
        self._holds -= 1
        self.reapProcess()

    def register(self) -> None:
        """Wait for it from now on; one that has ended already is reaped at once."""
        registerReapProcessHandler(self.pid, self)

    def reapProcess(self) -> None:
        """Twisted asks this when some child has ended: was it this one?"""
        if self._holds:
            return
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            # Nobody else here waits for children. How it ended is not known, as with one that a stranger has killed.
            self._log.failure("the end of process {pid} was taken", pid=self.pid, action="reap_failed")
            pid, status = self.pid, int(signal.SIGKILL)
        if pid:
            unregisterReapProcessHandler(self.pid, self)
            self.processEnded(status)

    def processEnded(self, status: int) -> None:
        """Twisted calls this when it was reaped by `registerReapProcessHandler`."""
        self._spawned.exited(status)
