"""F2: all workers of the daemon: started and stopped together, shown to people; what belongs to it is built here.

How new ones come is `roster`'s matter, when they take the place of others that of `renewal`, what becomes of one that
of its `slot`.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from jobsvc.model.task import TaskSpec
from jobsvc.pool.backoff import Backoff
from jobsvc.pool.command import CommandWorker
from jobsvc.pool.config import KINDS, PoolConfig
from jobsvc.pool.descriptors import IPoolReactor
from jobsvc.pool.generation import Generation
from jobsvc.pool.guard import Guard
from jobsvc.pool.launcher import Launcher, child_environment
from jobsvc.pool.modules import Code, Modules
from jobsvc.pool.plan import HostKind
from jobsvc.pool.process import Owner, WorkerProcess
from jobsvc.pool.recycle import Recycler
from jobsvc.pool.renewal import ReloadReport, Renewal
from jobsvc.pool.roster import Roster
from jobsvc.pool.rows import ModuleRow, WorkerRow, module_rows, worker_rows
from jobsvc.pool.slot import Core, Slot
from jobsvc.pool.spawn import Spawner
from jobsvc.pool.tree import rss_bytes
from jobsvc.pool.usage import weight_of
from jobsvc.ports import WorkerListener

BOOT_CHARS = 8
"""Of the boot id in a worker's id: enough to tell the starts of one daemon apart."""


def _now_us() -> int:
    return time.time_ns() // 1000


class Pool:
    """See the module. Everything runs on the reactor.

    Args:
        boot: id of this start of the daemon.
        environ: the daemon's environment; its secrets are not handed on.
        clock: wakes; the reactor, but in tests.
        now_us: the wall clock.
        uniform: random numbers for backoff and ages.
        counters: counts `("worker_recycled", kind, why)`.
    """

    def __init__(
        self,
        reactor: IPoolReactor,
        listener: WorkerListener,
        config: PoolConfig,
        *,
        boot: str,
        environ: Mapping[str, str] = os.environ,
        clock: IReactorTime | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = _now_us,
        uniform: Callable[[float, float], float] = random.uniform,
        counters: Counter[tuple[str, ...]] | None = None,
    ) -> None:
        clock = reactor if clock is None else clock
        self._listener = listener
        self._config = config
        self._boot = boot
        self._clock = clock
        self._monotonic = monotonic
        self._now_us = now_us
        self._uniform = uniform
        spawner = Spawner(reactor)
        self._guard = Guard(reactor, clock, spawner, monotonic, boot, uniform)
        self._launcher = Launcher(
            reactor, clock, spawner, config.cwd, child_environment(environ, boot, config.worker_env), self._guard.sweep,
            limits=config.limits, prefix=config.prefix,
        )  # fmt: skip
        self._command = CommandWorker(
            worker_id=f"command@{boot[:BOOT_CHARS]}",
            slots=config.command_slots,
            launcher=self._launcher,
            listener=listener,
            monotonic=monotonic,
            now_us=now_us,
        )
        self._plans = {kind: config.plan(kind, boot) for kind in KINDS}
        self._serials: Counter[str] = Counter()
        self._modules = Modules(config.modules, clock, now_us, self._module_due)
        self._roster = Roster(self._modules, self._new_slot, self._stale)
        self._slots = self._roster.slots
        self._renewal = Renewal(self._roster, self._modules, config.kinds(), self._adopt)
        self._recycled: Counter[tuple[str, ...]] = Counter() if counters is None else counters
        self._recycler = Recycler(
            config.recycle,
            clock,
            monotonic,
            uniform,
            lambda: self._slots,
            lambda worker_id: self.replace(worker_id, whole=True),
            lambda: bool(self._modules.broken),
            weight_of if config.prefix else rss_bytes,
            self._count_recycled,
        )

    # -- life

    def secure(self, node: str) -> Deferred[None]:
        """Start the guard, and end what earlier starts on this data directory have left running. Comes first.

        Args:
            node: identity of the data directory, one word; marks all that is started from now on.

        Raises:
            GuardSilent: the guard does not answer, so nobody knows.
        """
        self._launcher.mark_node(node)
        return self._guard.clear(node)

    def start(self) -> Deferred[None]:
        """Start all workers; fires when each has loaded the task modules and the engine has been told of all.

        Raises:
            ModuleLoadError: a module does not load, or the workers do not agree; the workers are being killed.
        """
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        self._launcher.oom.start()
        generation, code = await self._roster.load(self._config.kinds())
        self._adopt(code)
        generation.serve()
        self._command.offer()
        self._recycler.start()

    def stop(self, *, kill: bool = False) -> Deferred[None]:
        """Let all workers exit, kill those that do not, end all commands; fires when no process is left.

        Args:
            kill: do not wait for them: what still runs was asked to stop long enough ago.
        """
        return Deferred.fromCoroutine(self._stop(kill=kill))

    async def _stop(self, *, kill: bool) -> None:
        self._modules.stop()
        self._recycler.stop()
        self._roster.stop(kill=kill)
        await self._command.stop()
        await self._roster.empty()
        self._launcher.oom.stop()
        await self._renewal.drained()
        await self._guard.stop()

    def reload(self) -> Deferred[ReloadReport]:
        """See `Renewal.reload`."""
        return self._renewal.reload()

    def replace(self, worker_id: str, *, whole: bool = False) -> Deferred[None]:
        """See `Renewal.replace`."""
        return self._renewal.replace(worker_id, whole=whole)

    # -- workers

    def _new_slot(self, kind: HostKind, generation: Generation) -> Slot:
        backoff = Backoff(self._uniform)
        return Slot(
            Core(
                kind=kind,
                hire=self._hire,
                listener=self._listener,
                trial=generation,
                clock=self._clock,
                monotonic=self._monotonic,
                backoff=backoff,
                new_wear=self._recycler.wear,
            )
        )

    def _hire(self, kind: HostKind, owner: Owner, without: frozenset[str]) -> WorkerProcess:
        self._serials[kind] += 1
        worker_id = f"{kind}-{self._serials[kind]}@{self._boot[:BOOT_CHARS]}"
        return WorkerProcess(
            worker_id=worker_id,
            plan=self._plans[kind].less(without),
            launcher=self._launcher,
            started_us=self._now_us(),
            monotonic=self._monotonic,
            owner=owner,
        )

    def _adopt(self, code: Code) -> Mapping[str, TaskSpec]:
        """This code is in force; all the tasks there are now."""
        tasks = self._modules.adopt(code).tasks
        self._command.tasks = tasks
        self._listener.tasks_changed(tasks)
        return tasks

    def _module_due(self, module: str) -> None:
        self._renewal.try_again(module)

    def _stale(self) -> None:
        self._renewal.stale()

    def _count_recycled(self, kind: str, why: str) -> None:
        self._recycled["worker_recycled", kind, why] += 1

    # -- for people

    def modules(self) -> list[ModuleRow]:
        """Each task module: how many workers hold it, and what is wrong with it."""
        return module_rows(self._config.modules, self._modules.broken, self._slots)

    def trouble(self) -> str | None:
        """Why a worker that should be there is not; None when none is missing."""
        return next((slot.trouble for slot in self._slots if slot.trouble and not slot.on_trial), None)

    def states(self) -> list[tuple[str, str]]:
        """(kind, state) of each worker that is there, and of the one for commands."""
        there = [(slot.kind, slot.state) for slot in self._slots if slot.worker is not None]
        return [*there, (self._command.kind, self._command.state)]

    def guard_check(self) -> tuple[bool, str]:
        """Whether the guard runs, and one line."""
        pid = self._guard.pid
        return pid is not None, "is being started" if pid is None else f"runs as process {pid}"

    def workers(self) -> list[WorkerRow]:
        """The rows of `/v1/workers`, at some 10 µs each (/proc)."""
        return worker_rows(self._slots, self._command)
