"""F2: all workers of the daemon: started, replaced when they die, exchanged by a reload, stopped together."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jobsvc.model.errors import JobsvcError
from jobsvc.model.limits import LOOP_SLOTS, THREADS
from jobsvc.model.task import NO_LIMITS, Limits, TaskSpec
from jobsvc.pool.backoff import Backoff
from jobsvc.pool.command import CommandWorker
from jobsvc.pool.descriptors import IPoolReactor
from jobsvc.pool.generation import Generation, ModuleLoadError
from jobsvc.pool.guard import Guard
from jobsvc.pool.launcher import Launcher, child_environment
from jobsvc.pool.modules import Code, Modules, differences
from jobsvc.pool.process import HostKind, Owner, Plan, WorkerProcess
from jobsvc.pool.recycle import Recycler, Recycling
from jobsvc.pool.rows import ModuleRow, WorkerRow, module_rows, worker_rows
from jobsvc.pool.slot import Core, Slot
from jobsvc.pool.spawn import Spawner
from jobsvc.pool.tree import rss_bytes
from jobsvc.pool.usage import weight_of
from jobsvc.ports import WorkerListener
from jobsvc.runtime.waiting import Background, Waiters

KINDS: tuple[HostKind, ...] = ("io", "cpu")

COMMAND_SLOTS = 16
"""Programs that run at once: they do their work elsewhere, yet each is a process with memory of its own."""

BOOT_CHARS = 8
"""Of the boot id in a worker's id: enough to tell the starts of one daemon apart."""


def _now_us() -> int:
    return time.time_ns() // 1000


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers are to be.

    `path`: where the workers look for modules before they look in `cwd`, the folder in which the daemon was started.
    `limits`: of tasks on processes and of commands that say nothing. `prefix`: words before every worker and command.
    `worker_env`: names and patterns of the variables that they get; None: all but the daemon's own.
    """

    modules: tuple[str, ...]
    path: tuple[str, ...] = ()
    cwd: Path = msgspec.field(default_factory=Path.cwd)
    cpu_workers: int
    threads: int = THREADS
    loop_slots: int = LOOP_SLOTS
    command_slots: int = COMMAND_SLOTS
    limits: Limits = NO_LIMITS
    prefix: tuple[str, ...] = ()
    recycle: Recycling = Recycling()
    worker_env: tuple[str, ...] | None = None


class ReloadReport(msgspec.Struct):
    """What a reload has changed: how many tasks there are now, the names of those whose declaration differs."""

    tasks: int
    added: list[str]
    removed: list[str]
    changed: list[str]


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

    _log = Logger()

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
        self._plans = {kind: self._plan(kind) for kind in KINDS}
        self._serials: Counter[str] = Counter()
        self._modules = Modules(config.modules, clock, now_us, self._module_due)
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
        self._slots: list[Slot] = []
        self._gone: Waiters[None] = Waiters()
        self._loading: set[Deferred[Code]] = set()
        self._background = Background()
        self._reloads: Waiters[ReloadReport | Exception] = Waiters()
        self._reloading = False
        self._renewing = False
        self._replacing: set[Slot] = set()
        self._stopping = False

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
        generation, code = await self._load(self._kinds())
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
        self._stopping = True
        self._modules.stop()
        self._recycler.stop()
        for loading in list(self._loading):
            loading.cancel()
        for slot in list(self._slots):
            slot.quit()
            if kill and slot.worker is not None:
                slot.worker.destroy("quit")
        await self._command.stop()
        while self._slots:
            await self._gone.wait()
        self._launcher.oom.stop()
        await self._background.drained()
        await self._guard.stop()

    def reload(self) -> Deferred[ReloadReport]:
        """New code without losing a job: start new workers beside the old ones, change over when all have loaded.

        Who asks while a reload runs gets its answer.

        Raises:
            ModuleLoadError: the new code does not load; nothing has changed, the old workers serve on.
            JobsvcError: `draining`, the daemon is stopping.
        """
        answer = self._reloads.wait().addCallback(_raised)
        if not self._reloading:
            self._reloading = True
            self._background.run("reload", self._reload())
        return answer

    async def _reload(self) -> None:
        outcome: ReloadReport | Exception
        try:
            generation, code = await self._load(self._kinds())
        except CancelledError:
            outcome = JobsvcError("draining", "The daemon is stopping.")
        except ModuleLoadError as error:
            self._log.error(
                "reload failed, the old code serves on: {error}", error=str(error), action="reload_failed"
            )
            self._modules.hurry()  # what was mended beside this module need not wait for its turn
            outcome = error
        else:
            outcome = self._change_over(generation, code)
        self._reloading = False
        self._reloads.fire(outcome)

    def _change_over(self, generation: Generation, code: Code) -> ReloadReport:
        """These workers take the place of all that serve now."""
        old = [slot for slot in self._slots if not slot.on_trial]
        before = self._modules.code.tasks
        report = ReloadReport(0, *differences(before, self._adopt(code)))
        report.tasks = len(self._modules.code.tasks)
        generation.serve()
        for slot in old:
            slot.retire()
        self._log.info(
            "reloaded: {report.tasks} tasks; added {report.added}, removed {report.removed}, changed {report.changed}",
            report=report, action="reloaded")  # fmt: skip
        return report

    def replace(self, worker_id: str, *, whole: bool = False) -> Deferred[None]:
        """Start another worker beside this one and retire this one when the other is ready; fires then.

        One that is not there, or not ready, or being replaced already is left alone. A failure is logged: the old
        worker serves on.

        Args:
            whole: the old one is better than one that lacks a module.
        """
        slot = next(
            (slot for slot in self._slots if slot.worker is not None and slot.worker.id == worker_id), None
        )
        if slot is None or slot.state != "ready" or slot in self._replacing or self._stopping:
            return succeed(None)
        self._replacing.add(slot)
        return Deferred.fromCoroutine(self._replace(slot, whole=whole))

    async def _replace(self, slot: Slot, *, whole: bool) -> None:
        try:
            generation, code = await self._load_sound([slot.kind], whole=whole)
            if slot.state != "ready":  # it went by itself meanwhile, or by a reload
                generation.dismiss()
            elif self._modules.unfit(code) is None:
                generation.serve()
                slot.retire()
            else:  # the files have changed: all go, this one with them
                generation.dismiss()
                await self._renew()
        except CancelledError:
            return  # the daemon is stopping
        except (ModuleLoadError, JobsvcError) as error:
            self._log.error("no replacement for a worker: {error}", error=str(error), action="replace_failed")
        finally:
            self._replacing.discard(slot)

    # -- modules that do not load

    async def _load_sound(self, kinds: list[HostKind], *, whole: bool = False) -> tuple[Generation, Code]:
        """As `_load`, without the modules that are broken; one that proves to be broken now is left out in its turn.

        Args:
            whole: rather fail than leave out another one.
        """
        while True:
            try:
                generation, code = await self._load(kinds, self._modules.without_broken())
            except ModuleLoadError as error:
                if not self._modules.blame(error.faults) or whole:
                    raise
            else:
                if not self._modules.missing(code):
                    return generation, code
                generation.dismiss()  # what was left out works again

    async def _renew(self) -> None:
        """New workers for all, without what is broken: the files have changed. Raises as `_load`."""
        if not self._modules.broken:
            await self.reload()
            return
        try:
            generation, code = await self._load_sound(self._kinds())
        except ModuleLoadError as error:
            self._log.error(
                "no workers for the changed code: {error}", error=str(error), action="renew_failed"
            )
            raise
        self._change_over(generation, code)

    def _module_due(self, module: str) -> None:
        self._background.run(f"another try of module {module}", self._try(module))

    async def _try(self, module: str) -> None:
        """See whether a broken module loads again, in one worker of each kind; if so, all get it."""
        without = self._modules.without_broken() - {module}
        try:
            trial, _ = await self._load(list(KINDS), without)
            trial.dismiss()
            generation, code = await self._load(self._kinds(), without)
            if self._modules.missing(code) or module not in self._modules.broken:
                generation.dismiss()  # a reload or another try has been faster
            else:
                self._change_over(generation, code)
        except CancelledError:
            return  # the daemon is stopping
        except ModuleLoadError as error:
            self._modules.blame(error.faults)
        finally:
            self._modules.rested(module)

    # -- slots

    def _kinds(self) -> list[HostKind]:
        io, cpu = KINDS
        return [io] + [cpu] * self._config.cpu_workers

    def _plan(self, kind: HostKind) -> Plan:
        config = self._config
        slots = {"loop": config.loop_slots, "thread": config.threads} if kind == "io" else {"process": 1}
        return Plan(kind=kind, boot=self._boot, modules=config.modules, path=config.path, slots=slots)

    async def _load(
        self, kinds: list[HostKind], without: frozenset[str] = frozenset()
    ) -> tuple[Generation, Code]:
        """New slots of these kinds, all of which have loaded the same tasks of all modules but these."""
        if self._stopping:
            raise CancelledError
        generation = Generation(self._modules, without, self._stale, self._slot_gone)
        slots = [self._slot(kind, generation) for kind in kinds]
        self._slots += slots
        loading = generation.load(slots)
        self._loading.add(loading)
        try:
            return generation, await loading
        finally:
            self._loading.discard(loading)

    def _slot(self, kind: HostKind, generation: Generation) -> Slot:
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

    def _stale(self) -> None:
        """A worker that was started again has found other tasks on disk."""
        if not self._stopping and not self._renewing:
            self._renewing = True
            Deferred.fromCoroutine(self._renew()).addErrback(
                lambda failure: failure.trap(ModuleLoadError, JobsvcError, CancelledError)
            ).addBoth(self._renewed)  # logged there

    def _renewed(self, _: object) -> None:
        self._renewing = False

    def _count_recycled(self, kind: str, why: str) -> None:
        self._recycled["worker_recycled", kind, why] += 1

    def _slot_gone(self, slot: Slot) -> None:
        self._slots.remove(slot)
        self._gone.fire(None)

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


def _raised(outcome: ReloadReport | Exception) -> ReloadReport:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
