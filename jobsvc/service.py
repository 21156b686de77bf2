"""F4: the composition root: builds the rooms, starts them in order, drains and stops them in reverse, step by step.

Start: data directory and lock → listeners (not ready yet) → guard and its sweep → store open → recovery → workers and
their manifests → ready. Stop: not ready → no more claims, submits refused → wait for attempts → stop what still runs,
queue it again → workers end → streams get their last event, listeners close → store checkpoint → lock released.
"""

from __future__ import annotations

import gc
import os
import secrets
import shutil
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from random import Random
from time import time_ns
from typing import Any, TextIO, cast
from uuid import uuid4

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc.config import Config, usable_cpus
from jobsvc.engine.engine import Engine, EngineConfig
from jobsvc.http.api import Api, build_site
from jobsvc.http.listening import Listeners, ListenRefused
from jobsvc.model.crashpoints import crash
from jobsvc.model.errors import JobsvcError
from jobsvc.model.places import TOKEN_CREDENTIAL, credential
from jobsvc.pool.generation import ModuleLoadError
from jobsvc.pool.recycle import Recycling
from jobsvc.pool.rows import flaws
from jobsvc.pool.supervision import Pool, PoolConfig
from jobsvc.pool.watch import ModuleWatch
from jobsvc.ports import Store, Worker
from jobsvc.runtime.threads import NamedPool
from jobsvc.runtime.waiting import Background, within
from jobsvc.store.connection import StoreRefused
from jobsvc.store.folder import DataFolder, FolderRefused
from jobsvc.store.memory import InlineStore
from jobsvc.store.threaded import ThreadedStore

EXIT_MARGIN_S = 15.0
"""What the watchdog of a stop allows beyond the drain: kills, the last commits, the checkpoint."""
STOP_GRACE_S = 3.0
"""After the drain's time is up: between the polite ask and the end of the workers."""
SWITCH_S = 0.0005
"""A tenth of Python's default: between a busy reactor and the store's writer, each waits for the other at every
statement; with 5 ms a multi-row insert took forty times as long (design section 7)."""
GC_ALLOCATIONS = 50_000
"""Objects between two collections: a bulk upload makes hundreds of thousands that live until their outcome, and the
default of 700 walks through them again and again."""
PRIVATE = 0o077
"""Taken from the mode of every file that daemon, workers and jobs make: theirs alone, unless a job says otherwise."""
COMMANDS_PER_CPU = 2
"""External commands at once per CPU: one computes while another waits for its files."""
METRICS_WAITING_MAX = 16
"""Scrapes that may wait for the thread that writes the metrics' text."""


def now_us() -> int:
    """The wall clock."""
    return time_ns() // 1000


class Daemon(Service):
    """One jobsvc daemon.

    Args:
        owns_process: started by twistd or twist: a failed start ends the process with status 1, a clean stop with 0,
            and signals during the stop are ours.
    """

    _log = Logger()

    def __init__(self, config: Config, reactor: IReactorCore, *, owns_process: bool) -> None:
        self.config = config
        self.boot = uuid4().hex
        self.started_at = now_us()
        self._reactor: Any = reactor
        self._owns_process = owns_process
        self._background = Background()
        self._listeners = Listeners(reactor)
        self._hurry: Deferred[None] | None = None
        self._started: Deferred[None] | None = None
        token_given = credential(os.environ, TOKEN_CREDENTIAL)
        self.folder = DataFolder(config.data_dir, self.boot, secrets.token_bytes, token_given)
        self.store: Store
        if config.durability == "memory":
            self.store = InlineStore()
        else:
            file = str(self.folder.database)
            self.store = ThreadedStore(file, config.durability, cast("Any", reactor), self._store_failed)
        random = Random(secrets.randbits(128))
        self.engine = Engine(
            self.store,
            cast("IReactorTime", reactor),
            now_us,
            random.getrandbits,
            random.uniform,
            EngineConfig(config.args_max, config.keep_s, config.limits, config.queue_max, config.submit_rate),
            self._worn,
        )
        self.pool = Pool(
            cast("Any", reactor),
            self.engine,
            PoolConfig(
                modules=config.tasks,
                path=config.path,
                cwd=Path.cwd(),
                cpu_workers=config.cpu_workers,
                threads=config.threads,
                loop_slots=config.loop_slots,
                command_slots=COMMANDS_PER_CPU * usable_cpus(),
                limits=config.limits,
                prefix=_found(config.launcher_prefix),
                recycle=Recycling(
                    jobs=config.recycle_jobs, age_s=config.recycle_age, rss_bytes=config.recycle_rss
                ),
                worker_env=config.worker_env,
            ),
            boot=self.boot,
            now_us=now_us,
            uniform=random.uniform,
            counters=self.engine.counters,
        )
        self._metrics_thread = NamedPool(cast("Any", reactor), "jobsvc-metrics", 1, METRICS_WAITING_MAX)
        self.is_ready = False
        self._status = 0  # to end with
        self._watch: ModuleWatch | None = None

    # -- start

    def startService(self) -> None:
        """Take the directory and the ports, which needs no running reactor; the rest follows once it runs.

        Raises:
            StartRefused: one line that says what is wrong and what to do.
        """
        super().startService()
        if self._owns_process:
            sys.setswitchinterval(SWITCH_S)
            gc.set_threshold(GC_ALLOCATIONS)
            os.umask(os.umask(PRIVATE) | PRIVATE)
        try:
            self.folder.take()
            token = self.folder.token()
        except FolderRefused as error:
            raise _refusal(str(error)) from None
        hosts = self.config.allowed_host
        self.site = build_site(
            self.engine, self, self._reactor, self._metrics_thread.run, token=token, hosts=hosts
        )
        self.api = cast("Api", self.site.application)
        try:
            for description in self.config.listen:
                self._listeners.open(description, self.site)
        except ListenRefused as error:
            raise _refusal(str(error)) from None
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._started = Deferred.fromCoroutine(self._start())
        self._started.addErrback(self._start_failed)

    async def _start(self) -> None:
        await self.pool.secure(self.folder.identity())  # no attempt still runs when its job is queued again
        await self.store.open()
        recovered = await self.store.recover(now_us())
        await self.pool.start()
        await self.engine.start()
        self.is_ready = True
        if self.config.reload:
            self._watch = ModuleWatch(self._reactor, self.config.tasks, self.config.path, self._changed)
            self._watch.start()
        url, unix = self._listeners.address()
        self.folder.publish(url, unix)
        self._log.info(
            "ready on {where}; {queued} interrupted jobs queued again, {failed} failed, {cancelled} cancelled",
            where=url or unix, queued=recovered.queued, failed=recovered.failed, cancelled=recovered.cancelled,
            action="ready",
        )  # fmt: skip

    def _start_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if failure.check(ModuleLoadError, StoreRefused, FolderRefused):
            self.fail(f"jobsvc: {failure.value}")
        else:
            self.fail(f"jobsvc: cannot start: {failure.getErrorMessage()}\n{failure.getTraceback()}")

    def fail(self, words: str) -> None:
        """The daemon cannot go on: say why, end, and make sure that the status is not 0."""
        self._log.error("{words}", words=words, action="failed")
        _terminal().write(words.rstrip() + "\n")
        _terminal().flush()
        self.is_ready = False
        if self._owns_process:
            self._end_with(1)
            with suppress(ReactorNotRunning):  # it is stopping already
                self._reactor.stop()

    def _end_with(self, status: int) -> None:
        """Neither launcher lets a service choose the exit status: take it when all has been shut down. A
        failure is never undone by what went well.
        """  # fmt: skip
        self._status = max(self._status, status)

        def leave() -> None:
            status = self._status
            logging_done = getattr(self._reactor, "_exitSignal", None)
            if status == 0 and logging_done is not None:
                # A clean drain after SIGTERM is a success: without this the launcher would raise the signal again.
                self._reactor._exitSignal = None  # noqa: SLF001 - no public door (Twisted 26.10, _twistd and _twist)
            elif status:
                os._exit(status)

        self._reactor.addSystemEventTrigger("after", "shutdown", leave)

    # -- while it runs

    def _store_failed(self, failure: Failure) -> None:
        """The disk has failed: nothing may be acknowledged any more. Restart and recovery make it right."""
        self.fail(
            f"jobsvc: the database {self.folder.database} has failed: {failure.getErrorMessage()}; "
            "the next start checks it"
        )

    def _worn(self, worker: Worker) -> None:
        self.pool.replace(worker.id)

    def _changed(self) -> None:
        self._background.run("reload of changed modules", self._reload_changed())

    async def _reload_changed(self) -> None:
        try:
            await self.pool.reload()
        except ModuleLoadError as error:
            self._log.error(
                "the changed code does not load, the old one goes on: {error}",
                error=error,
                action="reload_failed",
            )

    # -- what the edge shows of it

    def ready(self) -> list[tuple[str, bool, str]]:
        """(name, whether it is well, one line) for `/readyz?verbose`; the first tells whether all is ready."""
        workers = self.pool.workers()
        up = sum(worker["state"] == "ready" for worker in workers)
        trouble = self.pool.trouble()
        modules = self.pool.modules()
        usable = sum(module.broken is None or module.holders > 0 for module in modules)
        return [
            ("ready", self.is_ready, "started" if self.is_ready else "starting or stopping"),
            ("workers", bool(up), f"{up} of {len(workers)} ready" + (f"; {trouble}" if trouble else "")),
            ("modules", bool(usable), f"{usable} of {len(modules)} work"),
            ("disk", not self.engine.disk_full, self.engine.disk_words),
            ("tasks", bool(self.engine.board.tasks), f"{len(self.engine.board.tasks)} tasks"),
        ]

    def flaws(self) -> list[tuple[str, str]]:
        """(check, one line) of each broken module."""
        return flaws(self.pool.modules())

    def gauges(self) -> dict[tuple[str, ...], int]:
        """(name, label…) → figure of what the daemon around the engine knows."""
        return {
            ("module_broken", module.name): int(module.broken is not None) for module in self.pool.modules()
        }

    def workers(self) -> list[dict[str, Any]]:
        """The workers in the shape of `/v1/workers`."""
        return [dict(worker, running=self.engine.running_on(worker["id"])) for worker in self.pool.workers()]

    def reload(self) -> Deferred[dict[str, Any]]:
        """New workers with the code as it is on disk now; on an error the old ones go on."""
        return Deferred.fromCoroutine(self._reload())

    async def _reload(self) -> dict[str, Any]:
        try:
            return msgspec.structs.asdict(await self.pool.reload())
        except ModuleLoadError as error:
            raise JobsvcError(
                "conflict", f"the new code does not load, the old one goes on: {error}"
            ) from None

    # -- stop

    def stopService(self) -> Deferred[None]:
        """Drain and stop; see the module. A second signal shortens the wait to nothing."""
        super().stopService()
        self._arm_watchdog()
        if self._owns_process:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._reactor.callFromThread(self._second_signal))
            if self.is_ready:
                self._end_with(0)
        return Deferred.fromCoroutine(self._stop())

    def _arm_watchdog(self) -> None:
        """The process ends, whatever hangs."""
        limit_s = self.config.drain_s + EXIT_MARGIN_S
        self._stopped = threading.Event()

        def watch() -> None:
            if not self._stopped.wait(limit_s):
                os.write(2, b"jobsvc: the stop hangs; leaving\n")
                os._exit(1)

        if self._owns_process:
            threading.Thread(target=watch, name="stop-watchdog", daemon=True).start()

    def _second_signal(self) -> None:
        if self._hurry is not None and not self._hurry.called:
            self._hurry.callback(None)

    async def _stop(self) -> None:
        was_ready, self.is_ready = self.is_ready, False
        if self._started is not None and not self._started.called:
            self._started.cancel()
        if self._watch is not None:
            self._watch.stop()
        if was_ready:
            await self._drain()
        await self.pool.stop(kill=bool(self.engine.board.active))
        if was_ready:
            await self.engine.idle()  # what the workers' end sent back to the queue is committed
        self.engine.close()
        self.api.edge.say_farewell()
        await self.api.edge.background.drained()
        await self._listeners.close()
        await self._background.drained()
        await self._metrics_thread.stop()
        try:
            if was_ready or self._started is not None:
                await self.store.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the end must not look like a clean one
            self._log.failure("the database was not closed", action="close_failed")
            self.fail(
                f"jobsvc: the database {self.folder.database} was not closed: {error}; the next start checks it"
            )
        finally:
            self.folder.release()
            self._stopped.set()

    async def _drain(self) -> None:
        self.engine.stop_claiming()
        crash("CP15")
        self._hurry = Deferred()
        idle = Deferred.fromCoroutine(self.engine.idle())
        self._hurry.addCallback(lambda _: idle.cancel())
        idle.addErrback(lambda failure: failure.trap(CancelledError) and None)
        await within(self._reactor, self.config.drain_s, idle)
        if self.engine.board.active:
            self.engine.stop_all()
            await within(self._reactor, STOP_GRACE_S, Deferred.fromCoroutine(self.engine.idle()))


def _found(prefix: tuple[str, ...]) -> tuple[str, ...]:
    """The launcher prefix with the whole path of its program, which is looked for where the daemon is started.

    Raises:
        StartRefused: it is not there, or cannot be run.
    """
    if not prefix:
        return ()
    program = shutil.which(prefix[0])
    if program is None:
        raise _refusal(
            f"--launcher-prefix: there is no program {prefix[0]!r} that can be run; install it, or give its whole path"
        )
    return (str(Path(program).absolute()), *prefix[1:])


class StartRefused(SystemExit, Exception):
    """The end of a start that cannot go on. An `Exception` too: only of those a twistd in the background tells the one
    who waits at the terminal, and removes its pid file.
    """  # fmt: skip


def _refusal(words: str) -> StartRefused:
    """What to raise. Where twistd's log has taken the place of sys.stderr, Python would write the words into that; a
    person looks elsewhere.
    """  # fmt: skip
    line = f"jobsvc: {words}"
    if sys.stderr is not _terminal():
        _terminal().write(line + "\n")
        _terminal().flush()
    return StartRefused(line)


def _terminal() -> TextIO:
    """Where a person looks: twistd has put its log in the place of sys.stderr."""
    return sys.__stderr__ if sys.__stderr__ is not None else sys.stderr
