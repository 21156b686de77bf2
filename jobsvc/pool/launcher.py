"""F2: what every worker and command is started with: `worker/launch.py` before it, marks in its environment, pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

import jobsvc
from jobsvc.model.environment import handed_on
from jobsvc.model.errors import Exit
from jobsvc.model.task import NO_LIMITS, Limits
from jobsvc.pool.child import Child, begin
from jobsvc.pool.descriptors import Inlet, IPoolReactor
from jobsvc.pool.limits import UsageWatch
from jobsvc.pool.oom import Counters, OomWatch
from jobsvc.pool.spawn import Spawner
from jobsvc.runtime.threads import LastingThread

PACKAGE_DIR = Path(jobsvc.__path__[0]).resolve().parent
"""The folder in which the workers find this very package."""
LAUNCH = PACKAGE_DIR / "jobsvc" / "worker" / "launch.py"

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


def _nothing() -> None:
    """Whoever asked waits for what the process says."""


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
        spawner: Spawner,
        cwd: Path,
        env: Mapping[str, str],
        sweep: Sweep,
        *,
        limits: Limits = NO_LIMITS,
        prefix: Sequence[str] = (),
    ) -> None:
        self.reactor = reactor
        self.clock = clock
        self.spawner = spawner
        self.cwd = cwd
        self.env = dict(env)
        self._marks = {BOOT_VARIABLE: self.env.pop(BOOT_VARIABLE)}
        self._sweep = sweep
        self.limits = limits
        self.prefix = tuple(prefix)
        self._looks = LastingThread("jobsvc-usage")
        self.usage = UsageWatch(clock, partial(self._looks.fetch, reactor))
        self.oom = OomWatch(clock, partial(Counters, anywhere=bool(prefix)))

    def mark_node(self, node: str) -> None:
        """What is started from now on also carries the mark of this data directory."""
        self._marks[NODE_VARIABLE] = node

    def start(
        self,
        argv: Sequence[str],
        on_out: Callable[[bytes], None],
        on_err: Callable[[bytes], None],
        on_ended: Callable[[Exit | OSError], None],
        *,
        mark: str,
        on_started: Callable[[], None] = _nothing,
        options: Sequence[str] = (),
        descriptors: Sequence[int] = (),
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> tuple[Child, Inlet, Inlet]:
        """Start `argv`: the process, which soon runs, and the inlets of its stdout and stderr. It reads /dev/null.

        Args:
            on_ended: told how it ended, or why it could not be started.
            on_started: told when it runs.
            mark: its own among all that this daemon starts; one word.
            options: of launch.py.
            descriptors: ours; the child has copies of them as 3, 4, …
            cwd: relative to the launcher's.
            env: added to the launcher's.

        Raises:
            OSError: no descriptor is to be had; nothing else is told.
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
        child = Child(self.clock, on_started, on_ended, lambda: self._sweep(mark))
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            out, err = begin(
                child,
                words,
                self.env | dict(env or {}) | self._marks | {WORKER_VARIABLE: mark},
                (null, *descriptors),
                on_out,
                on_err,
                reactor=self.reactor,
                spawner=self.spawner,
            )
        finally:
            os.close(null)
        return child, out, err


def _here() -> str | None:
    """The daemon's folder; None when it has been removed under it."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None
