"""F4: the composition root: builds the rooms, starts them in order, drains and stops them in reverse, step by step.

Start: data directory and lock → listeners (not ready yet) → guard and its sweep → store open → recovery → workers and
their manifests → ready. Stop: not ready → no more claims, submits refused → wait for attempts → stop what still runs,
queue it again → workers end → streams get their last event, listeners close → store checkpoint → lock released.
"""

from __future__ import annotations

import gc
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic, time_ns
from typing import Any, cast
from uuid import uuid4

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from jobsvc.config import Config, usable_cpus
from jobsvc.engine.engine import Engine, EngineConfig
from jobsvc.figures import add_metrics, gauges, picture
from jobsvc.health import KINDS, workers_at_all, workers_of
from jobsvc.http.api import Api, build_site
from jobsvc.http.auditing import trail_in
from jobsvc.http.listening import Listeners, ListenRefused
from jobsvc.logs.takeover import Log
from jobsvc.model.crashpoints import crash
from jobsvc.model.errors import JobsvcError
from jobsvc.model.places import TOKEN_CREDENTIAL, credential
from jobsvc.pool.config import PoolConfig
from jobsvc.pool.generation import ModuleLoadError
from jobsvc.pool.recycle import Recycling
from jobsvc.pool.rows import flaws, usable
from jobsvc.pool.supervision import Pool
from jobsvc.pool.watch import ModuleWatch
from jobsvc.ports import Worker, WorkerKind
from jobsvc.runtime.ending import Ending
from jobsvc.runtime.refusal import found, refusal, terminal
from jobsvc.runtime.signals import Signals
from jobsvc.runtime.stopping import Step, in_turn
from jobsvc.runtime.systemd import Notifier
from jobsvc.runtime.threads import NamedPool
from jobsvc.runtime.waiting import Background, within
from jobsvc.store.connection import StoreRefused
from jobsvc.store.face import store_check
from jobsvc.store.folder import DataFolder, FolderRefused
from jobsvc.store.memory import InlineStore
from jobsvc.store.secret_keys import key_ring
from jobsvc.store.threaded import ThreadedStore
from jobsvc.store.token_file import TokenFile
from jobsvc.upkeep import Upkeep

EXIT_MARGIN_S = 10.0
"""What the watchdog of a stop allows beyond the drain: kills, the last commits, the checkpoint. After that the process
ends as if it had been killed, which loses nothing."""
STOP_GRACE_S = 3.0
"""After the drain's time is up: between the polite ask and the end of the workers; and for their last writes."""
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
FILES_WAITING_MAX = 16
"""Writes of the data directory that may wait for the thread that makes them."""


def now_us() -> int:
    """The wall clock."""
    return time_ns() // 1000


class Daemon(Service):
    """One jobsvc daemon.

    Args:
        owns_process: started by twistd or twist: a failed start ends the process with status 1, a clean stop with 0,
            and signals during the stop are ours.
        log: what took the place of the launcher's, when it did.
        signals: caught since the process began.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: IReactorCore,
        *,
        owns_process: bool,
        log: Log | None = None,
        signals: Signals | None = None,
    ) -> None:
        self.config = config
        self.log = log
        self.boot = uuid4().hex
        self.started_at = now_us()
        self._reactor: Any = reactor
        self._owns_process = owns_process
        self._background = Background()
        self._listeners = Listeners(reactor, behind_proxy=config.behind_proxy)
        self._hurry: Deferred[None] | None = None
        self._started: Deferred[None] | None = None
        token_given = credential(os.environ, TOKEN_CREDENTIAL)
        self.folder = DataFolder(config.data_dir, self.boot, secrets.token_bytes, token_given)
        self.store: InlineStore | ThreadedStore
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
                prefix=found(config.launcher_prefix),
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
        self.trail = (
            trail_in(config.data_dir, self.boot, reactor, now_us, self.store, config.audit_keep)
            if config.audit
            else None
        )
        self._file_thread = NamedPool(cast("Any", reactor), "jobsvc-files", 1, FILES_WAITING_MAX)
        self.upkeep = Upkeep(
            reactor, log, signals, Notifier.from_environ(os.environ if owns_process else {}, os.getpid()),
            self.reload, self._picture, config.data_dir, now_us,
        )  # fmt: skip
        reread = partial(self._file_thread.run, self._listeners.reread_certificates)
        self.upkeep.on_hangup.append(("certificates", reread))
        self.is_ready = False
        self._ending = Ending(reactor)
        self._watch: ModuleWatch | None = None

    # -- start

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802 - Twisted's name
        """See twisted. The application is where twistd looks for whom to log to."""
        super().setServiceParent(parent)
        if self.log is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log)

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
            self.engine.board.ring = key_ring(self.folder.path, self.config.secret_key, secrets.token_bytes)
        except FolderRefused as error:
            raise refusal(str(error)) from None
        given = self.folder.token_is_given  # then it is not ours to change
        self.site = build_site(
            self.engine,
            self,
            self._reactor,
            self._metrics_thread.run,
            token=token,
            token_file=None if given else TokenFile(self.folder, self._file_thread.run),
            random_bytes=secrets.token_bytes,
            hosts=self.config.allowed_host,
            behind_proxy=self.config.behind_proxy,
            trail=self.trail,
        )
        self.api = cast("Api", self.site.application)
        self._add_checks()
        add_metrics(self.api.edge.metrics, self.store.figures, self.upkeep.watchdog.turns, self.log)
        self.api.access_log = self.log is not None and self.log.level == "debug"
        try:
            for description in self.config.listen:
                self._listeners.open(description, self.site)
        except ListenRefused as error:
            raise refusal(str(error)) from None
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self.upkeep.begin(own=self._owns_process)
        self._started = Deferred.fromCoroutine(self._start())
        self._started.addErrback(self._start_failed)

    async def _start(self) -> None:
        await self.pool.secure(self.folder.identity())  # no attempt still runs when its job is queued again
        await self.store.open()
        recovered = await self.store.recover(now_us())
        if self.trail is not None:
            await self.trail.begin()
        await self.api.edge.registry.load()
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
        self.upkeep.ready(f"ready on {url or unix}")

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
        terminal().write(words.rstrip() + "\n")
        terminal().flush()
        self.is_ready = False
        self._second_signal()  # a drain in which this happens has nothing more to wait for
        if self._owns_process:
            self._ending.with_status(1)
            with suppress(ReactorNotRunning):  # it is stopping already
                self._reactor.stop()

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

    def _add_checks(self) -> None:
        """In the order in which they are shown; the first tells whether all is ready."""
        add, pool, engine = self.upkeep.checks.add, self.pool, self.engine
        add("ready", lambda: (self.is_ready, "started" if self.is_ready else "starting or stopping"))
        add("listeners", self._listeners.check)
        add("certificate", partial(self._listeners.certificate_check, now_us), decides=False)
        add("store", lambda: store_check(self.store, monotonic()))
        add("workers", lambda: workers_at_all(pool.states(), pool.trouble()))
        for kind in KINDS:
            add(f"workers {kind}", partial(self._workers_check, kind), decides=False)
        add("guard", pool.guard_check)
        add("modules", lambda: usable(pool.modules()))
        add("disk", lambda: (not engine.disk_full, engine.disk_words))
        add("tasks", lambda: (bool(engine.board.tasks), f"{len(engine.board.tasks)} tasks"))

    def _workers_check(self, kind: WorkerKind) -> tuple[bool, str]:
        return workers_of(kind, self.pool.states(), self.pool.trouble())

    def ready(self) -> list[tuple[str, bool, str]]:
        """(name, whether it is well, one line) of each check without which the daemon is not ready."""
        return [(c.name, c.ok, c.detail) for c in self.upkeep.checks.ask(decides=True)]

    def remarks(self) -> list[tuple[str, bool, str]]:
        """The same of those without which it is ready all the same, with each broken module."""
        told = [(c.name, c.ok, c.detail) for c in self.upkeep.checks.ask(decides=False)]
        return [*told, *((name, False, words) for name, words in flaws(self.pool.modules()))]

    def gauges(self) -> dict[tuple[str, ...], float]:
        """(name, label…) → figure of what the daemon around the engine knows."""
        return gauges(self.pool, self.store)

    def _picture(self) -> dict[str, Any]:
        """For a dump."""
        return {
            "daemon": {"boot": self.boot, "ready": self.is_ready, "draining": self.engine.draining},
            "checks": self.ready() + self.remarks(),
            "http": {"connections": len(self.site.channels), "streams": len(self.api.edge.outlets)},
            **picture(self.engine, self.pool, self.store, self._reactor),
        }

    def workers(self) -> list[dict[str, Any]]:
        """The workers in the shape of `/v1/workers`."""
        return [dict(worker, running=self.engine.running_on(worker["id"])) for worker in self.pool.workers()]

    def reload(self) -> Deferred[dict[str, Any]]:
        """New workers with the code as it is on disk now, and what else a SIGHUP reads; on an error the old goes on."""
        return Deferred.fromCoroutine(self._reload())

    async def _reload(self) -> dict[str, Any]:
        failed = await self.upkeep.reread()
        try:
            report = await self.pool.reload()
        except ModuleLoadError as error:
            failed.append(f"the new code does not load, the old one goes on: {error}")
        if failed:
            raise JobsvcError("conflict", "; ".join(failed))
        return msgspec.structs.asdict(report)

    # -- stop

    def stopService(self) -> Deferred[None]:
        """Drain and stop; see the module. A second signal shortens the wait to nothing."""
        super().stopService()
        self.upkeep.stopping()
        if self._owns_process:
            self._ending.within(self.config.drain_s + EXIT_MARGIN_S, self._last_words)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._reactor.callFromThread(self._second_signal))
            if self.is_ready:
                self._ending.with_status(0)
        return Deferred.fromCoroutine(self._stop())

    def _last_words(self) -> None:
        if self.log is not None:
            self.log.end()

    def _second_signal(self) -> None:
        if self._hurry is not None and not self._hurry.called:
            self._hurry.callback(None)

    async def _stop(self) -> None:
        was_ready, self.is_ready = self.is_ready, False
        if self._started is not None and not self._started.called:
            self._started.cancel()
        await in_turn(self._steps_down(was_ready=was_ready), self._step_failed)
        self._ending.over()

    def _steps_down(self, *, was_ready: bool) -> Iterator[Step]:
        """The stop in its order; the store is closed whatever becomes of those before it."""
        edge = self.api.edge
        if self._watch is not None:
            yield "the watch of the modules", self._watch.stop
        if was_ready:
            yield "the drain", self._drain
        yield "the workers", lambda: self.pool.stop(kill=bool(self.engine.board.active))
        if was_ready:
            yield "the last writes", self._last_writes
        yield "the engine", self.engine.close
        yield "the streams", edge.say_farewell
        yield "the requests", edge.background.drained
        yield "the listeners", self._listeners.close
        yield "work in the background", self._background.drained
        yield "the thread of metrics", self._metrics_thread.stop
        if self.trail is not None:
            yield "the audit log", self.trail.close
        yield "the thread of files", self._file_thread.stop
        yield "the upkeep", self.upkeep.end
        yield "the tokens", edge.registry.close
        if was_ready or self._started is not None:
            yield f"the database {self.folder.database}", self.store.close
        yield f"the data directory {self.folder.path}", self.folder.release

    def _last_writes(self) -> Deferred[None]:
        """What the workers' end sent back to the queue is committed; what cannot be, as the disk is full or has failed,
        is put right by the next start.
        """  # fmt: skip
        return within(self._reactor, STOP_GRACE_S, Deferred.fromCoroutine(self.engine.idle()))

    def _step_failed(self, what: str, failure: Failure) -> None:
        """Whatever it was, the end must not look like a clean one."""
        self._log.failure("{what} could not be closed", failure, what=what, action="close_failed")
        self.fail(
            f"jobsvc: {what} could not be closed: {failure.getErrorMessage()}; the next start looks after it"
        )

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
