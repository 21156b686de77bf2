"""F3: what an operator does to a running daemon and sees of it: signals, rereading, dumps, the service manager, checks.

SIGHUP   certificates, the log file and the task modules are read again; what fails is told, the old goes on
SIGUSR1  a dump is written to the data directory; SIGUSR2 likewise
SIGTERM, SIGINT  the end, by the reactor's own way
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from jobsvc import dump
from jobsvc.health import Answer, Checks
from jobsvc.http.certificates import BadCertificate
from jobsvc.logs.takeover import Log
from jobsvc.model.errors import JobsvcError
from jobsvc.runtime.signals import Signals
from jobsvc.runtime.systemd import Notifier
from jobsvc.runtime.threads import NamedPool
from jobsvc.runtime.watchdog import STALL_S, Watchdog

STALL_TOLD_S = 60.0
"""For so long after a stall of the reactor `/readyz?verbose` shows it as not well."""

LOG_FILE = "log file"
_HANGUP_WORDS = "SIGHUP: reading again what is read at a start"

Hook = Callable[[], "str | Deferred[str | None] | None"]
"""Reads something again; says in a few words what, None when there was nothing to read."""


class Upkeep:
    """See the module. Everything runs on the reactor, but for the watchdog's own thread.

    Args:
        log: ours, when it took the place of the launcher's.
        signals: caught since the process began; None where the process is not ours.
        notifier: to the service manager.
        reload: gives the workers the code as it is on disk now.
        figures: how things stand, by room; for a dump.
        folder: where dumps go.

    Attributes:
        checks: what `/readyz` asks; every room may add its own.
        on_hangup: (what, hook) of all that a SIGHUP and a reload read again, in this order.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        log: Log | None,
        signals: Signals | None,
        notifier: Notifier,
        reload: Callable[[], Deferred[Any]],
        figures: Callable[[], Mapping[str, Any]],
        folder: Path,
        now_us: Callable[[], int],
    ) -> None:
        self.checks = Checks()
        self.on_hangup: list[tuple[str, Hook]] = []
        self.watchdog = Watchdog()
        self.notifier = notifier
        self._reactor = reactor
        self._own_log = log
        self._signals = signals
        self._reload = reload
        self._figures = figures
        self._folder = folder.absolute()
        self._now_us = now_us
        self._threads = NamedPool(reactor, "jobsvc-dump", 1, 4)
        self._is_ready = self._stopping = self._asked_early = False
        self._rereading: Deferred[None] | None = None
        if log is not None:
            self.on_hangup.append((LOG_FILE, log.reopen))
        self.checks.add("reactor", self._reactor_check, decides=False)

    # -- life

    def begin(self, *, own: bool) -> None:
        """The reactor runs.

        Args:
            own: the process is ours; else its signals, its log and its reactor are somebody else's.
        """
        if self._own_log is not None:
            self._own_log.begin()
            self._reactor.addSystemEventTrigger("after", "shutdown", self._own_log.end)
        if not own:
            return
        if sys.__stderr__ is not None:
            faulthandler.enable(
                sys.__stderr__
            )  # all stacks at SIGABRT, by which systemd ends one that hangs, and SIGSEGV
        if not self.watchdog.attach(self._reactor):
            self._log.warn(
                "the reactor {name} has no poll that could be watched: stalls are not seen",
                name=type(self._reactor).__name__, action="watchdog_off",
            )  # fmt: skip
        if self._signals is not None:
            self._signals.deliver(
                {
                    signal.SIGTERM: lambda: self._reactor.sigTerm(signal.SIGTERM),
                    signal.SIGINT: lambda: self._reactor.sigInt(signal.SIGINT),
                    signal.SIGHUP: self.hangup,
                    signal.SIGUSR1: self.dump,
                    signal.SIGUSR2: self.dump,
                },
                self._reactor.callFromThread,
            )
        self.notifier.status("starting")

    def ready(self, words: str) -> None:
        """The daemon takes jobs."""
        self._is_ready = True
        self.notifier.ready(words)
        self.notifier.beat(self._reactor, lambda: self.checks.passes("store"))
        if self._asked_early:
            self._asked_early = False
            self.hangup()

    def stopping(self) -> None:
        """The drain begins."""
        self._is_ready, self._stopping = False, True
        self.notifier.stopping("draining")

    async def end(self) -> None:
        """All else has stopped."""
        await self._threads.stop()
        self.watchdog.stop()
        self.notifier.close()

    # -- reading again

    def hangup(self) -> None:
        """SIGHUP. While a daemon starts it waits until the start is done; in a stop only the log file is of use."""
        if not self._is_ready and not self._stopping:
            self._asked_early = True
            self._log.info("SIGHUP is kept until the start is done", action="hangup")
        elif self._rereading is None:
            words = "SIGHUP in a stop: only the log file is opened anew" if self._stopping else _HANGUP_WORDS
            self._log.info("{words}", words=words, action="hangup")
            self._rereading = Deferred.fromCoroutine(self._hangup()).addErrback(self._failed)

    async def _hangup(self) -> None:
        try:
            if self._stopping:
                await self.reread(only=LOG_FILE)
                return
            self.notifier.reloading()
            await self._reload()
        except JobsvcError as error:
            if error.code == "draining":
                self._log.info("the daemon stops: its tasks stay as they are", action="hangup")
            else:
                self._log.error(
                    "not all could be read again: {error}", error=error.detail, action="hangup_failed"
                )
        finally:
            self._rereading = None
            if self._is_ready:
                self.notifier.ready(self.notifier.status_text)

    async def reread(self, only: str | None = None) -> list[str]:
        """Run all hooks, or one; one that fails does not keep the others from theirs. Returns what failed, in words."""
        failed = []
        for what, hook in tuple(self.on_hangup):
            if only not in {None, what}:
                continue
            try:
                done = await maybeDeferred(hook)
            except (
                BadCertificate
            ) as error:  # the operator's matter: no traceback helps, and the text says it all
                self._log.error("{problem}", problem=str(error), action="reread_failed")
                failed.append(f"{what}: {error}")
            except Exception as error:  # noqa: BLE001 - of whatever room; the old goes on, and all is told
                self._log.failure(
                    "{what} could not be read again: the old one goes on", what=what, action="reread_failed"
                )
                failed.append(f"{what}: {error}")
            else:
                if done is not None:
                    self._log.info("{what} read again: {done}", what=what, done=done, action="reread")
        return failed

    def _failed(self, failure: Failure) -> None:
        self._rereading = None
        self._log.failure("a reload failed", failure, action="hangup_failed")

    # -- looking

    def dump(self) -> None:
        """Write a dump; the log says where it is."""
        at_us, figures = self._now_us(), self._figures()

        def write() -> Path:
            return dump.write(self._folder, dump.text(figures, at_us), at_us)

        self._threads.run(write).addCallbacks(self._dumped, self._not_dumped)

    def _dumped(self, path: Path) -> None:
        self._log.info("a dump was written to {path}", path=str(path), action="dumped")

    def _not_dumped(self, failure: Failure) -> None:
        self._log.error("no dump was written: {error}", error=failure.getErrorMessage(), action="dump_failed")

    def _reactor_check(self) -> Answer:
        """Stalls are bugs of ours; the daemon serves on."""
        turns, last = self.watchdog.turns, self.watchdog.last
        words = f"{turns.stalls} stalls over {STALL_S * 1000:g} ms since the start"
        if last is None:
            return True, words
        ago_s = monotonic() - last.began_s
        return ago_s > STALL_TOLD_S, f"{words}, the last {last.length_s:.3f} s long, {ago_s:.0f} s ago"
