"""F2: all workers of the daemon: started, replaced when they die, exchanged by a reload, stopped together."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

import msgspec
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jobsvc.model.clock import time_text
from jobsvc.model.errors import JobsvcError
from jobsvc.model.limits import LOOP_SLOTS, THREADS
from jobsvc.model.task import TaskSpec
from jobsvc.pool.backoff import Backoff
from jobsvc.pool.command import CommandWorker
from jobsvc.pool.descriptors import IPoolReactor
from jobsvc.pool.generation import Generation, ModuleLoadError, differences
from jobsvc.pool.guard import Guard
from jobsvc.pool.process import HostKind, Owner, Plan, WorkerProcess
from jobsvc.pool.slot import Core, Slot
from jobsvc.pool.spawn import Launcher, child_environment
from jobsvc.pool.tree import rss_bytes
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
    """

    modules: tuple[str, ...]
    path: tuple[str, ...] = ()
    cwd: Path = msgspec.field(default_factory=Path.cwd)
    cpu_workers: int
    threads: int = THREADS
    loop_slots: int = LOOP_SLOTS
    command_slots: int = COMMAND_SLOTS


class ReloadReport(msgspec.Struct):
    """What a reload has changed: how many tasks there are now, the names of those whose declaration differs."""

    tasks: int
    added: list[str]
    removed: list[str]
    changed: list[str]


class WorkerRow(TypedDict):
    """One worker as `/v1/workers` shows it, but for `running`, which the engine knows."""

    id: str
    kind: str
    pid: int | None
    state: str
    slots: Mapping[str, int]
    started_at: str
    rss: int | None
    restarts: int


class Pool:
    """See the module. Everything runs on the reactor.

    Args:
        boot: id of this start of the daemon.
        environ: the daemon's environment; its secrets are not handed on.
        clock: wakes; the reactor, but in tests.
        now_us: the wall clock.
        uniform: random numbers for backoff.
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
    ) -> None:
        clock = reactor if clock is None else clock
        self._listener = listener
        self._config = config
        self._boot = boot
        self._clock = clock
        self._monotonic = monotonic
        self._now_us = now_us
        self._uniform = uniform
        self._guard = Guard(reactor, clock, monotonic, boot, uniform)
        environ = child_environment(environ, boot)
        self._launcher = Launcher(reactor, clock, config.cwd, environ, self._guard.sweep)
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
        self._tasks: Mapping[str, TaskSpec] = {}
        self._slots: list[Slot] = []
        self._gone: Waiters[None] = Waiters()
        self._loading: set[Deferred[dict[str, TaskSpec]]] = set()
        self._background = Background()
        self._reloads: Waiters[ReloadReport | Exception] = Waiters()
        self._reloading = False
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
        generation, tasks = await self._load(self._kinds())
        self._change_tasks(tasks)
        generation.serve()
        self._command.offer()

    def stop(self, *, kill: bool = False) -> Deferred[None]:
        """Let all workers exit, kill those that do not, end all commands; fires when no process is left.

        Args:
            kill: do not wait for them: what still runs was asked to stop long enough ago.
        """
        return Deferred.fromCoroutine(self._stop(kill=kill))

    async def _stop(self, *, kill: bool) -> None:
        self._stopping = True
        for loading in list(self._loading):
            loading.cancel()
        for slot in list(self._slots):
            slot.quit()
            if kill and slot.worker is not None:
                slot.worker.destroy("quit")
        await self._command.stop()
        while self._slots:
            await self._gone.wait()
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
        old = [slot for slot in self._slots if not slot.on_trial]
        outcome: ReloadReport | Exception
        try:
            generation, tasks = await self._load(self._kinds())
        except CancelledError:
            outcome = JobsvcError("draining", "The daemon is stopping.")
        except ModuleLoadError as error:
            self._log.error(
                "reload failed, the old code serves on: {error}", error=str(error), action="reload_failed"
            )
            outcome = error
        else:
            outcome = ReloadReport(len(tasks), *differences(self._tasks, tasks))
            self._change_tasks(tasks)
            generation.serve()
            for slot in old:
                slot.retire()
            self._log.info("reloaded: {report}", report=outcome, action="reloaded")
        self._reloading = False
        self._reloads.fire(outcome)

    def replace(self, worker_id: str) -> Deferred[None]:
        """Start another worker beside this one and retire this one when the other is ready; fires then.

        One that is not there, or not ready, or being replaced already is left alone. A failure is logged: the old
        worker serves on.
        """
        slot = next(
            (slot for slot in self._slots if slot.worker is not None and slot.worker.id == worker_id), None
        )
        if slot is None or slot.state != "ready" or slot in self._replacing or self._stopping:
            return succeed(None)
        self._replacing.add(slot)
        return Deferred.fromCoroutine(self._replace(slot))

    async def _replace(self, slot: Slot) -> None:
        try:
            generation, tasks = await self._load([slot.kind])
            if slot.state != "ready":  # it went by itself meanwhile, or by a reload
                generation.dismiss()
            elif tasks == self._tasks:
                generation.serve()
                slot.retire()
            else:  # the files have changed: all go, this one with them
                generation.dismiss()
                await self.reload()
        except CancelledError:
            return  # the daemon is stopping
        except (ModuleLoadError, JobsvcError) as error:
            self._log.error("no replacement for a worker: {error}", error=str(error), action="replace_failed")
        finally:
            self._replacing.discard(slot)

    # -- slots

    def _kinds(self) -> list[HostKind]:
        io, cpu = KINDS
        return [io] + [cpu] * self._config.cpu_workers

    def _plan(self, kind: HostKind) -> Plan:
        config = self._config
        slots = {"loop": config.loop_slots, "thread": config.threads} if kind == "io" else {"process": 1}
        return Plan(kind=kind, boot=self._boot, modules=config.modules, path=config.path, slots=slots)

    async def _load(self, kinds: list[HostKind]) -> tuple[Generation, dict[str, TaskSpec]]:
        """New slots of these kinds, all of which have loaded the same tasks."""
        generation = Generation(lambda: self._tasks, self._stale, self._slot_gone)
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
            )
        )

    def _hire(self, kind: HostKind, owner: Owner) -> WorkerProcess:
        self._serials[kind] += 1
        worker_id = f"{kind}-{self._serials[kind]}@{self._boot[:BOOT_CHARS]}"
        return WorkerProcess(
            worker_id=worker_id,
            plan=self._plans[kind],
            launcher=self._launcher,
            started_us=self._now_us(),
            monotonic=self._monotonic,
            owner=owner,
        )

    def _change_tasks(self, tasks: Mapping[str, TaskSpec]) -> None:
        self._tasks = tasks
        self._command.tasks = tasks
        self._listener.tasks_changed(tasks)

    def _stale(self) -> None:
        """A worker that was started again has found other tasks on disk."""
        if not self._stopping:
            self.reload().addErrback(
                lambda failure: failure.trap(ModuleLoadError, JobsvcError)
            )  # logged there

    def _slot_gone(self, slot: Slot) -> None:
        self._slots.remove(slot)
        self._gone.fire(None)

    # -- for people

    def workers(self) -> list[WorkerRow]:
        """The rows of `/v1/workers`, at some 10 µs each (/proc)."""
        rows = [
            WorkerRow(
                id=worker.id,
                kind=worker.kind,
                pid=worker.pid,
                state=slot.state,
                slots=worker.slots,
                started_at=time_text(worker.started_us),
                rss=None if worker.pid is None else rss_bytes(worker.pid),
                restarts=slot.restarts,
            )
            for slot in self._slots
            if (worker := slot.worker) is not None
        ]
        command = self._command
        rows.append(
            WorkerRow(
                id=command.id,
                kind=command.kind,
                pid=None,
                state=command.state,
                slots=command.slots,
                started_at=time_text(command.started_us),
                rss=None,
                restarts=0,
            )
        )
        return rows


def _raised(outcome: ReloadReport | Exception) -> ReloadReport:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
