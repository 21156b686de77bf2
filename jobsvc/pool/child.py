"""F2: one process that we have started, followed to its last byte.

The end of a process is told once, after everything it printed or sent has been read: the exit status alone comes
first, and output behind it would be lost. Until it runs it has no number: what is to be done to it waits till then,
and so does what it says, which may be there before the news that it runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from jobsvc.model.errors import Exit
from jobsvc.pool import posix, tree
from jobsvc.pool.descriptors import Inlet, IPoolReactor
from jobsvc.pool.exits import exit_of
from jobsvc.pool.spawn import OwnProcess, Spawner

EXIT_DRAIN_S = 1.0
"""After the exit, how long pipes may stay open: a process that was left behind can hold them for ever."""


class Child:
    """See the module; implements `spawn.Spawned`.

    Args:
        on_started: told when it runs.
        on_ended: told once, at last: how it ended, when it is reaped, what it left behind is gone, and every inlet has
            ended; or why it could not be started.
        sweep: ends what it left behind.
    """

    def __init__(
        self,
        clock: IReactorTime,
        on_started: Callable[[], None],
        on_ended: Callable[[Exit | OSError], None],
        sweep: Callable[[], Deferred[None]],
    ) -> None:
        self.pid: int | None = None
        """Its number while that is its own: it has been started, and not reaped."""
        self._clock = clock
        self._on_started = on_started
        self._on_ended = on_ended
        self._sweep = sweep
        self._end: Exit | OSError | None = None
        self._process: OwnProcess | None = None
        self._asked: list[Callable[[], None]] = []  # for when it runs
        self._killed = False
        self._swept = False
        self._inlets: list[Inlet] = []
        self._timer: IDelayedCall | None = None
        self._told = False

    @property
    def alive(self) -> bool:
        """It is being started, or runs: its end has not been seen."""
        return self._end is None

    def watch(self, inlet: Inlet) -> None:
        """One more descriptor that must come to its end before the process counts as ended."""
        self._inlets.append(inlet)
        if self.pid is None:
            inlet.pause()

    # -- what is done to it

    def terminate(self) -> None:
        """Ask it and its group to end."""
        if self.pid is not None:
            tree.terminate(self.pid)
        elif self.alive:
            self._asked.append(self.terminate)

    def kill(self) -> None:
        """End it and all that it has started.

        It does nothing more from now on; to find the others takes a walk through /proc, which a thread makes.
        """
        if self.pid is None:
            if self.alive:
                self._asked.append(self.kill)
        elif not self._killed:
            assert self._process is not None
            self._killed = True
            tree.stop(self.pid)
            self._process.hold(tree.kill_tree)

    # -- what becomes of it

    def started(self, process: OwnProcess) -> None:
        """See `Spawned`."""
        self._process, self.pid = process, process.pid
        self._on_started()
        for inlet in self._inlets:
            inlet.resume()
        if self._asked:
            self._clock.callLater(0, self._do_asked)

    def _do_asked(self) -> None:
        for deed in self._asked:
            deed()

    def failed(self, error: OSError) -> None:
        """See `Spawned`."""
        self._end = error
        self._swept = True  # there was nothing that could have left anything
        self._close()
        self.inlet_ended()

    def exited(self, status: int) -> None:
        """See `Spawned`. What it left behind in its group goes too; what it wrote may still lie in the pipes."""
        assert self.pid is not None
        leader, self.pid = self.pid, None
        self._end = exit_of(status)
        tree.kill_group(leader)
        for inlet in self._inlets:
            inlet.resume()  # what is left is bounded by the pipe, so no one need wait for credit
        self._timer = self._clock.callLater(EXIT_DRAIN_S, self._cut)
        self._sweep().addCallback(self._is_swept)

    def inlet_ended(self) -> None:
        """One of the inlets has come to its end."""
        if self._end is None or self._told or not self._swept or any(inlet.open for inlet in self._inlets):
            return
        self._told = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._on_ended(self._end)

    def _is_swept(self, _: None) -> None:
        self._swept = True
        self.inlet_ended()

    def _cut(self) -> None:
        for inlet in self._inlets:
            inlet.drain()
        self._close()

    def _close(self) -> None:
        for inlet in self._inlets:
            inlet.close()


def begin(
    child: Child,
    argv: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Sequence[int],
    on_out: Callable[[bytes], None],
    on_err: Callable[[bytes], None],
    *,
    reactor: IPoolReactor,
    spawner: Spawner,
    expendable: bool = True,
) -> tuple[Inlet, Inlet]:
    """Start a process with pipes for what it prints: their inlets.

    Args:
        descriptors: ours; the process has copies of them as 0, 3, 4, …
        on_out: takes its stdout, as `on_err` its stderr.
        expendable: see `Spawner.start`.

    Raises:
        OSError: no descriptor is to be had; the child is told nothing.
    """
    stdin, *more = descriptors
    theirs: list[int] = []
    inlets: list[Inlet] = []
    try:
        for on_bytes in (on_out, on_err):
            read, write = os.pipe()
            theirs.append(write)
            inlets.append(Inlet(reactor, read, on_bytes, child.inlet_ended))
            child.watch(inlets[-1])
        spawner.start(argv, environment, (stdin, *theirs, *more), child, expendable=expendable)
    except BaseException:
        for inlet in inlets:
            inlet.close()
        raise
    finally:
        posix.close(theirs)
    return inlets[0], inlets[1]
