"""F2: starts processes through `worker/launch.py` and follows each to its last byte.

The end of a process is told once, after everything it printed or sent has been read: the exit status alone comes
first, and output behind it would be lost. Workers and commands start the same way; what they say is not this module's
matter.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec import UNSET
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import jobsvc
from jobsvc.model.crashpoints import crash
from jobsvc.model.environment import handed_on
from jobsvc.model.errors import Exit
from jobsvc.model.task import NO_LIMITS, Limits
from jobsvc.pool import tree
from jobsvc.pool.descriptors import Inlet, IPoolReactor
from jobsvc.pool.limits import UsageWatch
from jobsvc.pool.oom import Counters, OomWatch, prefer

EXIT_DRAIN_S = 1.0
"""After the exit, how long pipes may stay open: a process that was left behind can hold them for ever."""

PACKAGE_DIR = Path(jobsvc.__path__[0]).resolve().parent
"""The folder in which the workers find this very package."""
LAUNCH = PACKAGE_DIR / "jobsvc" / "worker" / "launch.py"

SIGNAL_STATUS = 128
"""A shell adds it to the signal by which its child has ended."""

BOOT_VARIABLE = "JOBSVC_BOOT"
NODE_VARIABLE = "JOBSVC_NODE"
WORKER_VARIABLE = "JOBSVC_WORKER"
"""Marks of every process, however far from us: which start of the daemon, on which data directory, which worker or
command it comes from. The guard finds by them what has left its tree."""
MARK_VARIABLES = (BOOT_VARIABLE, NODE_VARIABLE, WORKER_VARIABLE)

Sweep = Callable[[str], Deferred[None]]
"""Ends all that carries the mark of one worker or command; fires when nothing of it runs any more."""


def child_environment(
    environ: Mapping[str, str], boot: str, allowed: Sequence[str] | None = None
) -> dict[str, str]:
    """What of the daemon's environment its children get, with the mark of this start.

    Args:
        allowed: see `handed_on`.
    """
    kept = handed_on(environ, allowed)
    return {name: value for name, value in kept.items() if name not in MARK_VARIABLES} | {BOOT_VARIABLE: boot}


def exit_of(reason: Failure) -> Exit:
    """How a process ended, from what the reactor says of it."""
    end = reason.value
    if isinstance(end, ProcessTerminated) and end.signal is not None:
        return _by_signal(end.signal)
    assert isinstance(end, (ProcessDone, ProcessTerminated))
    return Exit(code=end.exitCode or 0)


def exit_within(end: Exit) -> Exit:
    """How the program behind a launcher prefix ended: one that waits for it, as shells and bwrap do, tells a signal by
    its own exit status.
    """  # fmt: skip
    if end.code is UNSET or not SIGNAL_STATUS < end.code < SIGNAL_STATUS + signal.NSIG:
        return end
    return _by_signal(end.code - SIGNAL_STATUS)


def _by_signal(number: int) -> Exit:
    # Only SIGKILL can have come from a kernel that ran out of memory; from here it looks like any other.
    return Exit(signal=number, name=_signal_name(number), oom=None if number == signal.SIGKILL else False)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # a real-time signal


def exit_words(end: Exit | None) -> str:
    """The same for people."""
    if end is None:
        return "could not be started"
    return f"was ended by {end.name}" if end.signal is not UNSET else f"exited with status {end.code}"


class Child(ProcessProtocol):
    """One process from its start to its last byte.

    Args:
        on_ended: called once: it is reaped, what it left behind is gone, and every inlet has ended.
        sweep: ends what it left behind.
    """

    def __init__(
        self, clock: IReactorTime, on_ended: Callable[[Exit], None], sweep: Callable[[], Deferred[None]]
    ) -> None:
        self.pid = 0
        self.exit: Exit | None = None
        self._clock = clock
        self._on_ended = on_ended
        self._sweep = sweep
        self._swept = False
        self._inlets: list[Inlet] = []
        self._timer: IDelayedCall | None = None
        self._told = False

    @property
    def alive(self) -> bool:
        """Not reaped: its number is still its own."""
        return self.exit is None

    def watch(self, inlet: Inlet) -> None:
        """One more descriptor that must come to its end before the process counts as ended."""
        self._inlets.append(inlet)

    def connectionMade(self) -> None:
        """It has been started."""
        assert self.transport is not None
        self.pid = self.transport.pid

    def processExited(self, reason: Failure) -> None:
        """It is reaped. What it left behind in its group goes too; what it wrote may still lie in the pipes."""
        self.exit = exit_of(reason)
        tree.kill_group(self.pid)
        for inlet in self._inlets:
            inlet.resume()  # what is left is bounded by the pipe, so no one need wait for credit
        self._timer = self._clock.callLater(EXIT_DRAIN_S, self._cut)
        self._sweep().addCallback(self._is_swept)

    def inlet_ended(self) -> None:
        """One of the inlets has come to its end."""
        if self.exit is None or self._told or not self._swept or any(inlet.open for inlet in self._inlets):
            return
        self._told = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._on_ended(self.exit)

    def _is_swept(self, _: None) -> None:
        self._swept = True
        self.inlet_ended()

    def _cut(self) -> None:
        for inlet in self._inlets:
            inlet.drain()
        for inlet in self._inlets:
            inlet.close()


class Launcher:
    """Starts processes for one daemon.

    Args:
        cwd: where they start, and what relative folders are relative to.
        env: what they inherit: see `child_environment`.
        sweep: ends what one of them left behind.
        limits: of tasks that say nothing.
        prefix: words before every program.
    """

    def __init__(
        self,
        reactor: IPoolReactor,
        clock: IReactorTime,
        cwd: Path,
        env: Mapping[str, str],
        sweep: Sweep,
        *,
        limits: Limits = NO_LIMITS,
        prefix: Sequence[str] = (),
    ) -> None:
        self.reactor = reactor
        self.clock = clock
        self.cwd = cwd
        self.env = dict(env)
        self._marks = {BOOT_VARIABLE: self.env.pop(BOOT_VARIABLE)}
        self._sweep = sweep
        self.limits = limits
        self.prefix = tuple(prefix)
        self.usage = UsageWatch(clock)
        self.oom = OomWatch(clock, partial(Counters, anywhere=bool(prefix)))

    def mark_node(self, node: str) -> None:
        """What is started from now on also carries the mark of this data directory."""
        self._marks[NODE_VARIABLE] = node

    def start(
        self,
        argv: Sequence[str],
        on_out: Callable[[bytes], None],
        on_err: Callable[[bytes], None],
        on_ended: Callable[[Exit], None],
        *,
        mark: str,
        options: Sequence[str] = (),
        descriptors: Sequence[int] = (),
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> tuple[Child, Inlet, Inlet]:
        """Start `argv`: the process and the inlets of its stdout and stderr. It reads /dev/null.

        Args:
            mark: its own among all that this daemon starts; one word.
            options: of launch.py.
            descriptors: ours; the child has them as 3, 4, …
            cwd: relative to the launcher's.
            env: added to the launcher's.

        Raises:
            OSError: no process or descriptor is to be had.
        """
        folder = self.cwd / (cwd or "")
        change = [] if str(folder) == _here() else ["--chdir", str(folder)]
        words = [
            sys.executable,
            "-I",
            "-S",
            str(LAUNCH),
            "--parent",
            str(os.getpid()),
            *change,
            *options,
            "--",
            *self.prefix,
            *argv,
        ]
        child = Child(self.clock, on_ended, lambda: self._sweep(mark))
        theirs = [os.open(os.devnull, os.O_RDONLY)]
        inlets: list[Inlet] = []
        try:
            for on_bytes in (on_out, on_err):
                read, write = os.pipe()
                theirs.append(write)
                inlets.append(Inlet(self.reactor, read, on_bytes, child.inlet_ended))
                child.watch(inlets[-1])
            # No `path`: with one, Twisted would fork the daemon instead of spawning.
            self.reactor.spawnProcess(
                child,
                words[0],
                words,
                env=self.env | dict(env or {}) | self._marks | {WORKER_VARIABLE: mark},
                childFDs=dict(enumerate((*theirs, *descriptors))),
            )
            crash("CP6")
        except BaseException:
            for inlet in inlets:
                inlet.close()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        prefer(child.pid)
        return child, inlets[0], inlets[1]


def _here() -> str | None:
    """The daemon's folder; None when it has been removed under it."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None
